"""One HTTP request and its answer, between a connection and the routes."""

from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final, Protocol

import msgspec

from edge_runtime.access import Peer
from edge_runtime.errors import EdgeRuntimeError, UnavailableError
from edge_runtime.protocol.codec import JSON_TYPE, Encoded
from edge_runtime.protocol.messages import InferRequest
from edge_runtime.protocol.schemas import ErrorBody
from edge_runtime.protocol.status import status_of

_JOIN_BELOW_BYTES: Final = 65_536  # a copy this size costs less than a second buffer in the loop
_END: Final = b"\r\n\r\n"
MESSAGE_CHARS_MAX: Final = 1000  # of an error: messages may quote what the caller sent
_json: Final = msgspec.json.Encoder()

Headers = tuple[tuple[str, str], ...]
Buffers = list[bytes | memoryview]


class Origin(Protocol):
    """What an exchange needs of the connection it came from."""

    peer: Peer

    @property
    def is_draining(self) -> bool:
        """Whether the connection ends with its last answer."""
        ...

    def answered(self, exchange: "Exchange") -> None:
        """Take the answer that ``exchange`` just got."""
        ...


class Exchange(msgspec.Struct, eq=False):
    """One request, and the place where its answer goes. A struct, because it is made so often.

    Attributes:
        connection: Where it came from; knows the peer.
        method: Upper case.
        target: As sent: path and query, percent-encoded.
        body: The whole body; memory that belongs to this request.
        json_length: ``Inference-Header-Content-Length``, or ``None``.
        accept: ``Accept``, as sent.
        routing_key: ``Edge-Routing-Key``; empty: none was given.
        body_key: The same, as a body of ``api/compat`` gives it; it wins.
        keep_alive: Whether the connection may go on after the answer.
        is_http_1_0: Whether the client speaks HTTP/1.0.
        lingers: Whether the client may still be sending when the answer is written.
        reserved: Bytes of the budget of bodies that this one holds until it is answered.
        infer: The prediction it waits for, so that it can be cancelled.
        problem: Why it failed, in words that hold no tensor's values.
        status: Of the answer.
        answer: What to write, once it is there.
    """

    connection: Origin
    method: bytes = b"GET"
    target: bytes = b""
    body: bytes | memoryview = b""
    json_length: int | None = None
    accept: bytes = b""
    routing_key: str = ""
    body_key: str = ""
    keep_alive: bool = True
    is_http_1_0: bool = False
    lingers: bool = False
    reserved: int = 0
    infer: InferRequest | None = None
    problem: str = ""
    status: int = 0
    answer: bytes | Buffers | None = None

    @property
    def split_key(self) -> str:
        """What a split of a model's traffic goes by; ``/v2`` reads the key of its body itself."""
        return self.body_key or self.routing_key or str(self.connection.peer.connection)

    def send(
        self,
        status: int,
        body: Buffers,
        content_type: str = JSON_TYPE,
        json_length: int | None = None,
        headers: Headers = (),
    ) -> None:
        """Answer.

        Args:
            status: HTTP status.
            body: Buffers to write one after the other; must not change any more.
            content_type: Media type, without a suffix (the kserve client compares it whole).
            json_length: Bytes of JSON before binary tensors, for the header of that name.
            headers: More headers.
        """
        self.status = status
        if self.connection.is_draining:
            self.keep_alive = False
        size = 0
        for part in body:
            size += len(part)
        head = _head(status, content_type, self.keep_alive, self.is_http_1_0, size, json_length)
        for name, value in headers:
            head += f"\r\n{name}: {value}".encode("latin-1", "replace")
        if self.method == b"HEAD":
            self.answer = head + _END
        elif size < _JOIN_BELOW_BYTES:
            self.answer = b"".join((head, _END, *body))
        else:
            self.answer = [head + _END, *body]
        self.connection.answered(self)

    def encoded(self, encoded: Encoded) -> None:
        """Answer 200 with a prediction."""
        parts, json_length = encoded
        if json_length is None:
            self.send(200, parts)
        else:
            self.send(200, parts, "application/octet-stream", json_length)

    def json(self, value: Any, status: int = 200) -> None:  # noqa: ANN401 - any struct
        """Answer with a struct or plain data as JSON."""
        self.send(status, [_json.encode(value)])

    def error(self, status: int, message: str, headers: Headers = ()) -> None:
        """Answer an error in the one shape all clients read."""
        self.problem = self.problem or message
        if len(message) > MESSAGE_CHARS_MAX:
            message = message[:MESSAGE_CHARS_MAX] + "…"
        self.send(status, [_json.encode(ErrorBody(message))], headers=headers)

    def refused(self, error: EdgeRuntimeError) -> None:
        """Answer with one of our errors."""
        self.problem = error.loggable
        headers: Headers = ()
        if isinstance(error, UnavailableError) and error.retry_after_s is not None:
            headers = (("Retry-After", str(error.retry_after_s)),)
        self.error(status_of(error), error.message, headers)

    def cancel(self) -> None:
        """The client is gone: what waits for it need not run."""
        if self.infer is not None:
            self.infer.cancelled = True


@lru_cache(maxsize=1024)
def _head(  # noqa: PLR0917 - a cache's key is positional
    status: int,
    content_type: str,
    keep_alive: bool,  # noqa: FBT001 - a cache key
    is_http_1_0: bool,  # noqa: FBT001 - a cache key
    size_bytes: int,
    json_length: int | None,
) -> bytes:
    """Make a head without its end: one model's answers differ in little else than their sizes."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Type: {content_type}"]
    if not keep_alive:
        lines.append("Connection: close")
    elif is_http_1_0:
        lines.append("Connection: keep-alive")
    lines.append(f"Content-Length: {size_bytes}")
    if json_length is not None:
        lines.append(f"Inference-Header-Content-Length: {json_length}")
    return "\r\n".join(lines).encode()
