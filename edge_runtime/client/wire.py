"""HTTP/1.1 as a client speaks it, without I/O: buffers to send, and a reader of one answer.

An answer that does not fit one read is received straight into its final memory, aligned so that
its first binary tensor is a view of it.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import httptools

from edge_runtime.client.endpoint import Endpoint
from edge_runtime.errors import ProtocolError
from edge_runtime.protocol.codec import BINARY_TYPE, JSON_LENGTH_HEADER, JSON_TYPE
from edge_runtime.tensors import receive_buffer

Buffer = bytes | memoryview
Buffers = list[Buffer]

READ_BUFFER_BYTES: Final = 65_536
RESPONSE_BYTES_MAX: Final = 268_435_456  # four times what the daemon accepts as a request
RESPONSE_HEAD_BYTES_MAX: Final = 65_536
_JOIN_BELOW_BYTES: Final = 65_536  # a copy this size costs less than a second buffer
_DIGITS_MAX: Final = 18
_SWITCHING: Final = 101
_FIRST_FINAL_STATUS: Final = 200  # below: interim answers, and another one follows


class Answer(NamedTuple):
    """What came back.

    Attributes:
        status: HTTP status.
        body: The whole body, in memory that belongs to this answer.
        json_length: ``Inference-Header-Content-Length``, or ``None``.
        retry_after_s: ``Retry-After`` in seconds, or ``None``.
    """

    status: int
    body: bytes | memoryview
    json_length: int | None = None
    retry_after_s: int | None = None


def request_buffers(
    endpoint: Endpoint,
    method: str,
    target: str,
    parts: Sequence[Buffer],
    json_length: int | None,
) -> Buffers:
    """Put a request together.

    Args:
        endpoint: Gives the host and the base path.
        method: HTTP method.
        target: Path, percent-encoded.
        parts: The body; large ones are not copied.
        json_length: Bytes of JSON before binary tensors; ``None``: all is JSON.

    Returns:
        Buffers to write one after the other.
    """
    size = sum(map(len, parts))
    kind = JSON_TYPE
    extra = ""
    if json_length is not None:
        kind = BINARY_TYPE
        extra = f"{JSON_LENGTH_HEADER}: {json_length}\r\n"
    head = (
        f"{method} {endpoint.base}{target} HTTP/1.1\r\nHost: {endpoint.authority}\r\n"
        f"Content-Type: {kind}\r\n{extra}Content-Length: {size}\r\n\r\n"
    ).encode()
    if size < _JOIN_BELOW_BYTES:
        return [b"".join((head, *parts))]
    return [head, *parts]


def advance(buffers: Buffers, count: int) -> None:
    """Take what was written off the front.

    Args:
        buffers: What was to be written; changed in place.
        count: Bytes that were.
    """
    done = 0
    for part in buffers:
        if count < len(part):
            break
        count -= len(part)
        done += 1
    del buffers[:done]
    if count:
        buffers[0] = memoryview(buffers[0])[count:]


class AnswerReader:
    """Reads one answer: fill ``buffer()``, tell ``received()`` how much, until it says done.

    Args:
        scratch: Memory to read into until the body's length is known; may be shared by readers
            that are not used at once.
    """

    def __init__(self, scratch: memoryview) -> None:
        self._scratch = scratch
        self._parser: Any = httptools.HttpResponseParser(self)
        self._problem = ""
        self._head_bytes = 0
        self._head_complete = False
        self._headers: dict[bytes, bytes] = {}
        self._content_length = -1
        self._parts: list[bytes] = []
        self._body_bytes = 0
        self._body: memoryview | None = None  # direct reception
        self._status = 0
        #: The answer, once it is complete.
        self.answer: Answer | None = None
        #: Whether the connection may carry another request.
        self.keep_alive = False

    def buffer(self) -> memoryview:
        """Give memory to read into."""
        if self._body is not None:
            return self._body[self._body_bytes :]
        return self._scratch

    def received(self, count: int) -> Answer | None:
        """Take new bytes.

        Args:
            count: How many were written to ``buffer()``; 0: the server closed its side.

        Returns:
            The answer if it is complete, else ``None``.

        Raises:
            ConnectionError: The server closed before the answer was complete.
            ProtocolError: This is not an answer of the protocol, or it is over a limit.
        """
        if not count:
            return self._ended()
        if self._body is not None:
            self._body_bytes += count
            if self._body_bytes == self._content_length:
                self._finish(self._body)
            return self.answer
        self._feed(self._scratch[:count])
        if self._problem:
            raise ProtocolError(f"the server's answer {self._problem}")
        if self.answer is None and not self._head_complete:
            self._head_bytes += count
            if self._head_bytes > RESPONSE_HEAD_BYTES_MAX:
                raise ProtocolError(
                    f"the server's answer has headers over {RESPONSE_HEAD_BYTES_MAX} bytes"
                )
        elif self.answer is None and self._content_length > self._body_bytes:
            self._body = receive_buffer(self._content_length, self._json_length() or 0)
            self._body[: self._body_bytes] = b"".join(self._parts)
        return self.answer

    def _feed(self, data: memoryview) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            raise ProtocolError("the server's answer wants another protocol") from error
        except httptools.HttpParserError as error:
            if isinstance(error, httptools.HttpParserCallbackError) and error.__context__:
                raise error.__context__ from None  # our own defect, not the server's
            if self.answer is None and not self._problem:
                raise ProtocolError(f"the server's answer is not HTTP/1.1: {error}") from error
            self.keep_alive = False

    def _ended(self) -> Answer:
        if not self._head_complete and not self._head_bytes:
            raise ConnectionError("the server closed the connection without an answer")
        chunked = b"transfer-encoding" in self._headers
        if not self._head_complete or chunked or self._content_length >= 0:
            raise ConnectionError("the server closed the connection in the middle of its answer")
        self._finish(b"".join(self._parts))  # of unstated length: the end is the end
        self.keep_alive = False
        assert self.answer is not None  # noqa: S101 - just set
        return self.answer

    def _finish(self, body: bytes | memoryview) -> None:
        json_length = self._json_length()
        if json_length is not None and isinstance(body, bytes):
            aligned = receive_buffer(len(body), json_length)
            aligned[:] = body
            body = aligned
        # Retry-After may be a date too, but that needs a clock that is set.
        self.answer = Answer(self._status, body, json_length, self._number(b"retry-after"))

    def _json_length(self) -> int | None:
        return self._number(b"inference-header-content-length")

    def _number(self, header: bytes) -> int | None:
        digits = self._headers.get(header, b"")
        return int(digits) if digits.isdigit() and len(digits) <= _DIGITS_MAX else None

    # -- the parser's side ---------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Start an answer; one that nobody asked for ends the connection."""
        if self.answer is not None:
            self.keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        if self.answer is None:
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Decide on the head alone whether the answer is acceptable."""
        if self.answer is not None:
            return
        self._status = self._parser.get_status_code()
        if self._status == _SWITCHING:
            self._problem = "wants another protocol"
        if self._status < _FIRST_FINAL_STATUS:
            return
        self._head_complete = True
        self.keep_alive = self._parser.should_keep_alive()
        length = self._headers.get(b"content-length")
        if length is not None and b"transfer-encoding" not in self._headers:
            self._content_length = int(length)  # llhttp let only digits through
        self._check_size(self._content_length)
        if self._headers.get(b"content-encoding", b"identity").lower() != b"identity":
            self._problem = "is compressed, which was not asked for"

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self.answer is None:
            self._body_bytes += len(body)
            self._parts.append(body)
            self._check_size(self._body_bytes)

    def on_message_complete(self) -> None:
        """Hand the answer over, unless it is an interim one."""
        if self.answer is not None:
            return
        if self._status < _FIRST_FINAL_STATUS:
            self._headers.clear()
        else:
            self._finish(b"".join(self._parts))

    def _check_size(self, size: int) -> None:
        if size > RESPONSE_BYTES_MAX:
            self._problem = f"has more than {RESPONSE_BYTES_MAX} bytes: ask for fewer outputs"
