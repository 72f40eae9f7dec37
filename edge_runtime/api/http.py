"""HTTP/1.1 requests out of a byte stream: httptools parses, we hold every part to its limit.

Rules:

* A request is handed to ``_received`` as soon as its last byte is here.
* Nothing is buffered without a limit: targets, heads, bodies, chunks, trailers.
* A body that does not fit one read is received straight into its final, aligned memory.
* A connection owns no timer: ``timeouts`` looks at every connection's ``deadline``.

What it does not do: answering (``connection``), routing, JSON, models. Source: RFC 9110, RFC 9112.
"""

import logging
from typing import Any, Final

import httptools

from edge_runtime.api import head
from edge_runtime.api.exchange import Exchange
from edge_runtime.api.halves import Half
from edge_runtime.api.known_head import KnownHead
from edge_runtime.api.timeouts import NEVER, Timeouts
from edge_runtime.settings import Limits
from edge_runtime.tensors import receive_buffer

_log = logging.getLogger(__name__)

READ_BUFFER_BYTES: Final = 65_536
CHUNK_FRAMING_BYTES: Final = 16  # a chunk's size in digits and its line ends

# One buffer serves every connection: the loop fills it and calls buffer_updated at once.
_read_memory: Final = bytearray(READ_BUFFER_BYTES)
_read_buffer: Final = memoryview(_read_memory)


class Budget:
    """Bytes of all large bodies together, from their first byte until they are answered."""

    __slots__ = ("taken",)

    def __init__(self) -> None:
        self.taken = 0


class Reception(Half):
    """The receiving half of a connection; ``connection.Connection`` is the whole.

    Args:
        limits: What a caller may ask.
        timeouts: Watches ``deadline``.
        budget: Of all bodies.
    """

    __slots__ = (
        "_body",
        "_body_bytes",
        "_body_parts",
        "_body_started",
        "_budget",
        "_chunks",
        "_completed",
        "_content_length",
        "_deaf",
        "_exchange",
        "_expects",
        "_head_bytes",
        "_head_complete",
        "_head_is_new",
        "_headers",
        "_known",
        "_last",
        "_limits",
        "_parser",
        "_reserved",
        "_wire_bytes",
    )

    def __init__(self, limits: Limits, timeouts: Timeouts, budget: Budget) -> None:
        super().__init__(timeouts)
        self._limits = limits
        self._budget = budget
        self._parser: Any = httptools.HttpRequestParser(self)
        self._deaf = False  # whatever else arrives is thrown away
        self._reserved = 0  # bytes of the budget
        self._exchange: Exchange | None = None  # being received
        self._known: KnownHead | None = None
        self._last: Exchange | None = None  # completed by the parser
        self._completed = 0  # requests in the bytes just parsed
        self._head_complete = False
        self._head_bytes = 0
        self._head_is_new = False
        self._headers: dict[bytes, bytes] = {}
        self._expects = False  # the client waits for a 100 before it sends its body
        self._content_length = -1
        self._body_parts: list[bytes] = []
        self._body_bytes = 0
        self._chunks = 0
        self._wire_bytes = 0  # of a body of unknown length, with its framing
        self._body_started = 0.0
        self._body: memoryview | None = None  # direct reception

    # -- the transport's side ------------------------------------------------------------------

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
        known = self._known
        if (
            known is not None
            and nbytes == known.size_bytes
            and self._exchange is None
            and _read_memory.startswith(known.head)
        ):
            exchange = Exchange(self)
            known.fill(exchange, _read_buffer[:nbytes])
            self.deadline = NEVER
            self._received(exchange)
            return
        self._feed(_read_buffer[:nbytes])

    # -- the parser's side ---------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Start a request; without one, every other part is thrown away."""
        if self._deaf:
            return
        exchange = self._exchange = Exchange(self)
        exchange.target = b""
        self._head_complete = False
        self._head_bytes = 0
        self._head_is_new = True
        self._headers = {}
        self._expects = False
        self._content_length = -1
        self._body_parts = []
        self._body_bytes = 0
        self._chunks = 0
        self._wire_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Take the request target, or a piece of it."""
        exchange = self._exchange
        if exchange is None:
            return
        exchange.target += url
        self._head_bytes += len(url)
        if len(exchange.target) > self._limits.target_bytes:
            self._refuse(414, f"the URL is longer than {self._limits.target_bytes} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        self._head_bytes += len(name) + len(value) + 4
        key = name.lower()
        if key in head.READ:
            if key in self._headers:
                self._repeated(key, value)
            else:
                self._headers[key] = value

    def on_headers_complete(self) -> None:
        """Decide on the head alone whether the request is acceptable."""
        exchange = self._exchange
        if exchange is None:
            return
        self._head_complete = True
        parser = self._parser
        exchange.method = parser.get_method()
        exchange.keep_alive = parser.should_keep_alive()
        version = parser.get_http_version()
        exchange.is_http_1_0 = version == "1.0"
        headers = self._headers
        if exchange.is_http_1_0 and head.TRANSFER_ENCODING in headers:  # RFC 9112 6.1
            exchange.keep_alive = False
        refused = head.refusal(
            exchange.method,
            headers,
            head_bytes=self._head_bytes,
            version=version,
            limits=self._limits,
        )
        if refused is not None:
            self._refuse(*refused)
            return
        if head.CONTENT_LENGTH in headers:
            self._content_length = int(headers[head.CONTENT_LENGTH])
        if head.JSON_LENGTH in headers:
            exchange.json_length = int(headers[head.JSON_LENGTH])
        if head.ACCEPT in headers:
            exchange.accept = headers[head.ACCEPT]
        if head.ROUTING_KEY in headers:
            exchange.routing_key = headers[head.ROUTING_KEY].decode("utf-8", "replace")
        self._expects = head.EXPECT in headers and not exchange.is_http_1_0

    def _repeated(self, key: bytes, value: bytes) -> None:
        """Take a header that was there already (or a trailer of its name)."""
        if self._head_complete or self._exchange is None:
            return
        if key == head.HOST:
            self._refuse(400, "the Host header is there twice")
        else:  # RFC 9110 5.3: one list, which the checks of each header then judge
            self._headers[key] += b", " + value

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self._exchange is None:
            return
        self._body_bytes += len(body)
        self._body_parts.append(body)
        if self._content_length < 0 and self._body_bytes > self._limits.body_bytes:
            limit = self._limits.body_bytes
            self._refuse(413, f"the body is larger than {limit} bytes (limits.body_bytes)")

    def on_chunk_header(self) -> None:
        """Count a chunk; the empty one that ends a body is called too."""
        self._chunks += 1
        if self._chunks > self._limits.chunks + 1 and self._exchange is not None:
            limit = self._limits.chunks
            self._refuse(413, f"the body has more than {limit} chunks (limits.chunks)")

    def on_message_complete(self) -> None:
        """Hand the request over."""
        exchange = self._exchange
        if exchange is None or self._is_upgrade_of_body():
            return
        self._completed += 1
        is_stated = self._content_length == self._body_bytes
        if is_stated and not self._expects and not exchange.is_http_1_0:
            self._last = exchange
        parts = self._body_parts
        self._complete(parts[0] if len(parts) == 1 else b"".join(parts))

    def _is_upgrade_of_body(self) -> bool:
        """Whether the parser passes an announced body over, for a wish to upgrade before it."""
        if self._content_length > self._body_bytes:
            return True
        return head.TRANSFER_ENCODING in self._headers and bool(self._parser.should_upgrade())

    # -- requests ------------------------------------------------------------------------------

    def _feed(self, data: memoryview) -> None:
        is_start = self._exchange is None
        self._completed = 0
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # Nothing is upgraded here (RFC 9110 7.8 lets a server ignore the wish); go on.
                data = self._after_upgrade(data[upgrade.args[0] :])
                is_start = False
                if data and not self._deaf:
                    continue
            except httptools.HttpParserError as error:
                self._unreadable(error, data[0])
            break
        if self._exchange is not None:
            self._await_rest(len(data))
        elif is_start and self._completed == 1 and not self._deaf:
            self._known = KnownHead.of(data, self._last) if self._last else None
        self._last = None

    def _after_upgrade(self, rest: memoryview) -> memoryview:
        """Begin anew behind a head that the parser stopped after; its body is still to come."""
        version = self._parser.get_http_version()
        self._parser = httptools.HttpRequestParser(self)
        exchange = self._exchange
        if exchange is None:
            return rest
        if not exchange.keep_alive:
            self._headers[b"connection"] = b"close"
        # The callbacks make the exchange once more, of the same head without the wish.
        again = head.again(exchange.method, exchange.target, version, self._headers)
        return memoryview(again + rest)

    def _unreadable(self, error: httptools.HttpParserError, first_byte: int) -> None:
        defect = error.__context__
        if isinstance(error, httptools.HttpParserCallbackError) and defect:
            _log.error("a request could not be read for a defect of ours", exc_info=defect)
            if not self._deaf:
                self._refuse(500, "the daemon failed to read this request; its log says why")
        elif not self._deaf:  # else refused already, or nothing may follow the last request
            refusal = head.unreadable(
                str(error),
                is_unknown_method=isinstance(error, httptools.HttpParserInvalidMethodError),
                version=self._parser.get_http_version(),
                first_byte=first_byte,
            )
            self._refuse(*refusal)

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
        grown = self._content_length
        if grown < 0:
            grown = self._body_bytes
            self._wire_bytes += nbytes
            framing = READ_BUFFER_BYTES + limits.header_bytes + CHUNK_FRAMING_BYTES * self._chunks
            if self._wire_bytes - self._body_bytes > framing:
                self._refuse(431, "the chunk extensions or trailers are too large")
                return
        if not self._reserve_body(grown):
            limit = self._limits.body_bytes_in_flight
            self._refuse(
                503,
                f"the bodies of all unanswered requests would be larger than {limit} bytes "
                "(limits.body_bytes_in_flight); try again later",
            )
            return
        if self._expects:
            self._invite()
        if self._content_length > self._body_bytes:
            exchange = self._exchange
            json_length = exchange.json_length if exchange and exchange.json_length else 0
            received = b"".join(self._body_parts)
            self._body_parts = []
            self._body = receive_buffer(self._content_length, json_length)
            self._body[: len(received)] = received

    def _await_again(self) -> None:
        """Start the clock of a partial request anew: we had stopped reading."""
        if self._head_complete:
            self._body_started = self._loop.time()
            self._set_body_deadline()
        else:
            self._set_deadline(self._limits.header_timeout_s)

    def _complete(self, body: bytes | memoryview) -> None:
        exchange = self._exchange
        assert exchange is not None  # noqa: S101 - a defect of ours, not input
        self._exchange = None
        self._body = None
        self._body_parts = []
        self._body_started = 0.0
        exchange.reserved = self._reserved
        self._reserved = 0
        exchange.body = body
        if not exchange.keep_alive:
            self._deaf = True
        self.deadline = NEVER
        self._received(exchange)

    def _abandon(self) -> Exchange | None:
        """Read no more; give back the request that was being received, if there is one."""
        exchange = self._exchange
        self.deadline = NEVER
        self._deaf = True
        self._exchange = None
        self._body = None
        self._body_parts = []
        self._budget.taken -= self._reserved
        self._reserved = 0
        return exchange

    def _reserve_body(self, nbytes: int) -> bool:
        budget = self._budget
        wanted = nbytes - self._reserved
        if budget.taken + wanted > self._limits.body_bytes_in_flight:
            return False
        budget.taken += wanted
        self._reserved = nbytes
        return True

    def _release(self, exchange: Exchange) -> None:
        """Let go of a body that nobody needs any more."""
        self._budget.taken -= exchange.reserved
        exchange.reserved = 0
        exchange.body = b""

    def _set_body_deadline(self) -> None:
        limits = self._limits
        allowed = limits.body_timeout_s + self._body_bytes / limits.body_rate_bytes_per_s
        self.deadline = self._body_started + allowed
        self._timeouts.watch(self)
