"""HTTP/1.1 for one connection, straight on the transport: httptools parses, we answer in order.

Rules:

* A request is handed to the door's ``dispatch`` as soon as its last byte is here; answers leave in
  the order of the requests, whatever order they are ready in.
* Nothing is buffered without a limit: heads, bodies, chunks, pipelined requests, unread answers.
* A body that does not fit one read is received straight into its final, aligned memory.
* A connection owns no timer: ``timeouts`` looks at every connection's ``deadline``.

What it does not do: routing, JSON, models. Source: RFC 9110, RFC 9112.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import httptools

from edge_runtime.access import Peer
from edge_runtime.api.exchange import Buffers, Exchange
from edge_runtime.api.timeouts import NEVER, Timeouts
from edge_runtime.config import Limits
from edge_runtime.metrics import ServerStatistics
from edge_runtime.tensors import receive_buffer

READ_BUFFER_BYTES: Final = 65_536
LINGER_S: Final = 2.0  # after refusing a body: time for the peer to read our answer

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_HOST: Final = b"host"
_CONTENT_LENGTH: Final = b"content-length"
_TRANSFER_ENCODING: Final = b"transfer-encoding"
_CONTENT_ENCODING: Final = b"content-encoding"
_EXPECT: Final = b"expect"
_JSON_LENGTH: Final = b"inference-header-content-length"
_HEADERS_READ: Final = frozenset(
    {_HOST, _CONTENT_LENGTH, _TRANSFER_ENCODING, _CONTENT_ENCODING, _EXPECT, _JSON_LENGTH}
)
# One buffer serves every connection: the loop fills it and calls buffer_updated at once.
_read_buffer: Final = memoryview(bytearray(READ_BUFFER_BYTES))


class Door:
    """What the connections of one listening socket have in common.

    Args:
        dispatch: Answers an exchange, now or later.
        limits: What a caller may ask.
        statistics: Counters of the daemon.
        timeouts: Watches deadlines.
    """

    def __init__(
        self,
        dispatch: Callable[[Exchange], None],
        limits: Limits,
        statistics: ServerStatistics,
        timeouts: Timeouts,
    ) -> None:
        self.dispatch = dispatch
        self.limits = limits
        self.statistics = statistics
        self.timeouts = timeouts
        self.connections: set[Connection] = set()
        self.body_bytes_in_flight = 0
        self._loop = asyncio.get_running_loop()
        self._writing: list[Connection] = []
        #: Set while there is no connection.
        self.empty = asyncio.Event()
        self.empty.set()

    def connection(self) -> "Connection":
        """Make the protocol of a new connection."""
        return Connection(self)

    def write_later(self, connection: "Connection") -> None:
        """Write a connection's answers at the end of this turn of the loop.

        Answers that become ready in one turn leave together: writing each at once wakes a waiting
        client every time, which costs more than a short model's run (measured: 5x at 32 clients).
        """
        if not self._writing:
            self._loop.call_soon(self._write_all)
        self._writing.append(connection)

    def _write_all(self) -> None:
        writing = self._writing
        self._writing = []
        for connection in writing:
            connection.write_outgoing()

    def drain(self) -> None:
        """Close what is idle, and let everything else close after its last answer."""
        for connection in list(self.connections):
            connection.drain()

    def abort(self) -> None:
        """Cut every connection."""
        for connection in list(self.connections):
            connection.abort()


def _peer(transport: asyncio.BaseTransport) -> Peer:
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family == socket.AF_UNIX:
        return Peer.of_unix_socket(sock)
    return Peer.of_tcp(transport.get_extra_info("peername"))


class Connection(asyncio.BufferedProtocol):
    """One client's connection.

    Attributes:
        deadline: When ``timed_out`` is due, in the loop's seconds.
        peer: Who is on the other side.
    """

    def __init__(self, door: Door) -> None:
        self.deadline = NEVER
        self.peer = Peer(None, None, None, "")
        self._door = door
        self._limits = door.limits
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._parser: Any = httptools.HttpRequestParser(self)
        self._queue: deque[Exchange] = deque()  # unanswered, in order
        self._parked: deque[Exchange] = deque()  # received, beyond the pipeline's depth
        self._flushing = False
        self._draining = False
        self._deaf = False  # whatever else arrives is thrown away
        self._ends = False  # closes after what is going out
        self._lingers = False
        self._outgoing: Buffers = []
        self._write_paused = False
        self._reserved = 0  # bytes of the door's budget for bodies in flight
        self._exchange: Exchange | None = None  # being received
        self._head_complete = False
        self._head_bytes = 0
        self._head_is_new = False
        self._headers: dict[bytes, bytes] = {}
        self._content_length = -1
        self._body_parts: list[bytes] = []
        self._body_bytes = 0
        self._chunks = 0
        self._body_started = 0.0
        self._body: memoryview | None = None  # direct reception

    # -- the transport's side ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start, or turn the client away when there are too many."""
        self._transport = transport
        door = self._door
        statistics = door.statistics
        statistics.connections_total += 1
        statistics.connections_open += 1
        door.connections.add(self)
        door.empty.clear()
        self.peer = _peer(transport)
        if statistics.connections_open > self._limits.connections:
            statistics.connections_refused += 1
            self._refuse(503, f"{self._limits.connections} connections are open already")
            return
        self.deadline = self._loop.time() + self._limits.idle_timeout_s
        door.timeouts.watch(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget everything; what still waits for this client need not run."""
        self.deadline = NEVER
        self._deaf = True
        door = self._door
        door.connections.discard(self)
        door.timeouts.forget(self)
        door.statistics.connections_open -= 1
        if not door.connections:
            door.empty.set()
        self._release_body()
        self._cancel_queued()
        self._queue.clear()
        self._parked.clear()
        self._exchange = None

    def eof_received(self) -> bool:
        """Cancel what has not started; a run that goes on may still be answered."""
        self._deaf = True
        self._cancel_queued()
        return bool(self._queue or self._outgoing)

    def pause_writing(self) -> None:
        """Stop reading while the client does not read."""
        self._write_paused = True
        self._transport.pause_reading()
        size = self._transport.get_write_buffer_size()
        limits = self._limits
        self._set_deadline(limits.answer_timeout_s + size / limits.body_rate_bytes_per_s)

    def resume_writing(self) -> None:
        """Go on where ``pause_writing`` stopped."""
        self._write_paused = False
        self._rest()
        self._pump()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Give the loop memory to read into: a body's own, or the shared buffer."""
        if self._body is not None:
            return self._body[self._body_bytes :]
        return _read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take ``nbytes`` new bytes."""
        if self._deaf:
            return
        if self._body is not None:
            self._body_bytes += nbytes
            if self._body_bytes == self._content_length:
                self._parser = httptools.HttpRequestParser(self)
                self._complete(self._body)
            else:
                self._set_body_deadline()
            return
        self._feed(_read_buffer[:nbytes])

    # -- the parser's side ---------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Start a request."""
        exchange = self._exchange = Exchange(self)
        exchange.target = b""
        self._head_complete = False
        self._head_bytes = 0
        self._head_is_new = True
        self._headers = {}
        self._content_length = -1
        self._body_parts = []
        self._body_bytes = 0
        self._chunks = 0

    def on_url(self, url: bytes) -> None:
        """Take the request target, or a piece of it."""
        exchange = self._exchange
        if exchange is not None:
            exchange.target += url
            self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        self._head_bytes += len(name) + len(value) + 4
        key = name.lower()
        if key in _HEADERS_READ:
            self._headers[key] = value

    def on_headers_complete(self) -> None:
        """Decide on the head alone whether the request is acceptable."""
        exchange = self._exchange
        if exchange is None or self._deaf:
            return
        self._head_complete = True
        parser = self._parser
        exchange.method = parser.get_method()
        exchange.keep_alive = parser.should_keep_alive()
        exchange.is_http_1_0 = parser.get_http_version() == "1.0"
        headers = self._headers
        if len(exchange.target) > self._limits.target_bytes:
            self._refuse(414, f"the URL is longer than {self._limits.target_bytes} bytes")
        elif self._head_bytes > self._limits.header_bytes:
            self._refuse(431, f"the headers are larger than {self._limits.header_bytes} bytes")
        elif _HOST not in headers and not exchange.is_http_1_0:
            self._refuse(400, "an HTTP/1.1 request needs a Host header")
        elif exchange.method == b"CONNECT":
            self._refuse(501, "this is not a proxy")
        elif len(headers) > 1:
            self._check_body_headers(exchange, headers)

    def _check_body_headers(self, exchange: Exchange, headers: dict[bytes, bytes]) -> None:
        limits = self._limits
        length = headers.get(_CONTENT_LENGTH)
        if length is not None:
            self._content_length = int(length)  # llhttp let only digits through
            if self._content_length > limits.body_bytes:
                self._refuse(
                    413,
                    f"the body has {self._content_length} bytes; "
                    f"at most {limits.body_bytes} are accepted (limits.body_bytes)",
                )
                return
        json_length = headers.get(_JSON_LENGTH)
        if json_length is not None:
            if not json_length.isdigit():
                self._refuse(400, "Inference-Header-Content-Length must be a number of bytes")
                return
            exchange.json_length = int(json_length)
        if headers.get(_TRANSFER_ENCODING, b"chunked").lower() != b"chunked":
            self._refuse(501, "the only Transfer-Encoding served here is chunked")
        elif headers.get(_CONTENT_ENCODING, b"identity").lower() != b"identity":
            self._refuse(501, "compressed bodies are not served here: send them as they are")
        elif _EXPECT in headers and not exchange.is_http_1_0:
            if headers[_EXPECT].lower() != b"100-continue":
                self._refuse(417, "the only Expect served here is 100-continue")
            elif not self._queue:
                self._transport.write(_CONTINUE)
            # With answers outstanding a 100 would be taken for one of them; RFC 9110 10.1.1
            # makes the client send its body anyway after a while.

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self._deaf or self._exchange is None:
            return
        self._body_bytes += len(body)
        self._body_parts.append(body)
        if self._content_length < 0 and self._body_bytes > self._limits.body_bytes:
            self._refuse(413, f"the body is larger than {self._limits.body_bytes} bytes")

    def on_chunk_header(self) -> None:
        """Count a chunk."""
        self._chunks += 1
        if self._chunks > self._limits.chunks and not self._deaf:
            self._refuse(413, f"the body has more than {self._limits.chunks} chunks")

    def on_message_complete(self) -> None:
        """Hand the request over."""
        if self._deaf or self._exchange is None:
            return
        parts = self._body_parts
        self._complete(parts[0] if len(parts) == 1 else b"".join(parts))

    # -- requests ------------------------------------------------------------------------------

    def _feed(self, data: memoryview) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # Nothing is upgraded here (RFC 9110 7.8 lets a server ignore the wish); go on after it.
            offset: int = upgrade.args[0]
            self._parser = httptools.HttpRequestParser(self)
            if not self._deaf and offset < len(data):
                self._feed(data[offset:])
            return
        except httptools.HttpParserInvalidMethodError:
            self._refuse(501, "unknown method")
        except httptools.HttpParserError as error:
            if isinstance(error, httptools.HttpParserCallbackError) and error.__context__:
                raise error.__context__ from None  # our own defect, not the client's
            self._refuse(400, f"this is not HTTP/1.1: {error}")
        if self._exchange is not None and not self._deaf:
            self._await_rest(len(data))

    def _await_rest(self, nbytes: int) -> None:
        """Prepare for the rest of a request that is only partly here."""
        limits = self._limits
        if not self._head_complete:
            if self._head_is_new:
                self._head_is_new = False
                self._set_deadline(limits.header_timeout_s)
            else:
                self._head_bytes += nbytes  # counted twice what was parsed: a bound, not a measure
            if self._head_bytes > 2 * limits.header_bytes:
                self._refuse(431, f"the headers are larger than {limits.header_bytes} bytes")
            return
        if not self._body_started:
            self._body_started = self._loop.time()
        self._set_body_deadline()
        grown = self._content_length if self._content_length >= 0 else self._body_bytes
        if not self._reserve_body(grown):
            self._refuse(503, "too many large requests are being received; try again later")
            return
        if self._content_length > self._body_bytes:
            exchange = self._exchange
            json_length = exchange.json_length if exchange and exchange.json_length else 0
            received = b"".join(self._body_parts)
            self._body_parts = []
            self._body = receive_buffer(self._content_length, json_length)
            self._body[: len(received)] = received

    def _complete(self, body: bytes | memoryview) -> None:
        exchange = self._exchange
        assert exchange is not None  # noqa: S101 - a defect of ours, not input
        self._exchange = None
        self._body = None
        self._body_parts = []
        self._body_started = 0.0
        self._release_body()
        exchange.body = body
        if not exchange.keep_alive:
            self._deaf = True
        self._queue.append(exchange)
        if len(self._queue) > self._limits.pipeline_depth:
            self._parked.append(exchange)
            self._transport.pause_reading()
            return
        self.deadline = NEVER
        self._door.dispatch(exchange)

    def _refuse(self, status: int, message: str) -> None:
        """Answer an error to what cannot be read on, in its turn, and close."""
        self._deaf = True
        exchange = self._exchange or Exchange(self)
        self._exchange = None
        self._body = None
        self._body_parts = []
        self._release_body()
        exchange.keep_alive = False
        exchange.lingers = True
        self._queue.append(exchange)
        exchange.error(status, message)

    def _reserve_body(self, nbytes: int) -> bool:
        door = self._door
        wanted = nbytes - self._reserved
        if door.body_bytes_in_flight + wanted > self._limits.body_bytes_in_flight:
            return False
        door.body_bytes_in_flight += wanted
        self._reserved = nbytes
        return True

    def _release_body(self) -> None:
        if self._reserved:
            self._door.body_bytes_in_flight -= self._reserved
            self._reserved = 0

    def _cancel_queued(self) -> None:
        for exchange in self._queue:
            exchange.cancel()

    # -- answers -------------------------------------------------------------------------------

    def answered(self, exchange: Exchange) -> None:
        """Write every answer whose turn has come. ``exchange`` just got its own."""
        statuses = self._door.statistics.responses
        statuses[exchange.status] = statuses.get(exchange.status, 0) + 1
        self._pump()

    def _pump(self) -> None:
        if self._flushing:  # an inline answer inside the loop below: the loop goes on with it
            return
        self._flushing = True
        queue = self._queue
        try:
            while queue and queue[0].answer is not None and not self._transport.is_closing():
                exchange = queue.popleft()
                self._write(exchange)
                if self._parked and not self._write_paused:
                    self._door.dispatch(self._parked.popleft())
        finally:
            self._flushing = False
        if not queue:
            self._rest()

    def _write(self, exchange: Exchange) -> None:
        if not self._outgoing:
            self._door.write_later(self)
        answer = exchange.answer
        if isinstance(answer, bytes):
            self._outgoing.append(answer)
        elif answer is not None:
            self._outgoing.extend(answer)
        if not exchange.keep_alive:
            self._deaf = True
            self._ends = True
            self._lingers = exchange.lingers

    def write_outgoing(self) -> None:
        """Write what this turn of the loop gathered."""
        outgoing = self._outgoing
        self._outgoing = []
        if self._transport.is_closing():
            return
        if len(outgoing) == 1:
            self._transport.write(outgoing[0])
        else:
            self._transport.writelines(outgoing)
        if not self._ends:
            return
        if self._lingers and self._transport.can_write_eof():
            self._transport.write_eof()
            self._transport.resume_reading()  # closing on unread input would reset the answer away
            self._set_deadline(LINGER_S)
        else:
            self._transport.close()

    def _rest(self) -> None:
        """Nothing is owed any more: wait for the next request, or leave."""
        if self._queue or self._write_paused or self._transport.is_closing() or self._deaf:
            return
        if self._draining and self._exchange is None:
            self._ends = True
            if not self._outgoing:
                self._transport.close()
            return
        self._transport.resume_reading()
        if self._exchange is None:
            self.deadline = self._loop.time() + self._limits.idle_timeout_s

    # -- time and end --------------------------------------------------------------------------

    def timed_out(self) -> None:
        """Act on the passed deadline."""
        self.deadline = NEVER
        if self._write_paused or self._deaf or (self._exchange is None and not self._queue):
            self._transport.abort() if self._write_paused else self._transport.close()
        elif self._exchange is not None:
            part = "body" if self._head_complete else "head"
            self._refuse(408, f"the request's {part} took too long to arrive")

    def drain(self) -> None:
        """Close when idle, else after the last answer."""
        self._draining = True
        if not self._queue and self._exchange is None and not self._outgoing:
            self._transport.close()

    @property
    def is_draining(self) -> bool:
        """Whether this connection ends with its last answer."""
        return self._draining and len(self._queue) == 1

    def abort(self) -> None:
        """Cut the connection now."""
        self._transport.abort()

    def _set_deadline(self, seconds: float) -> None:
        self.deadline = self._loop.time() + seconds
        self._door.timeouts.watch(self)

    def _set_body_deadline(self) -> None:
        limits = self._limits
        allowed = limits.body_timeout_s + self._body_bytes / limits.body_rate_bytes_per_s
        self.deadline = self._body_started + allowed
        self._door.timeouts.watch(self)
