"""The head of a connection's last request, so that the same bytes need not be parsed again.

Clients repeat their heads to the byte: the same method, target, headers and length. The parser is
deterministic, so equal bytes at a message's start mean an equal head; what it costs to parse it in
Python callbacks (a sixth of a small prediction's time) is saved.
"""

from typing import Final, NamedTuple, Self

from edge_runtime.api.exchange import Exchange

_END: Final = b"\r\n\r\n"


class KnownHead(NamedTuple):
    """A head that was parsed and accepted, and what it said.

    Attributes:
        head: Its bytes, up to and with the empty line.
        size_bytes: Of the whole request, body included.
        method: As in ``Exchange``.
        target: As in ``Exchange``.
        json_length: As in ``Exchange``.
        accept: As in ``Exchange``.
        routing_key: As in ``Exchange``.
    """

    head: bytes
    size_bytes: int
    method: bytes
    target: bytes
    json_length: int | None
    accept: bytes
    routing_key: str

    @classmethod
    def of(cls, data: memoryview, exchange: Exchange) -> Self | None:
        """Remember the head of a request that was exactly ``data``, if that is what it was.

        Args:
            data: Everything that was read since the message before.
            exchange: The one request that the parser found in it: of HTTP/1.1, keeping the
                connection, with a body of stated length.
        """
        head_bytes = len(data) - len(exchange.body)
        head = bytes(data[:head_bytes])
        # Blank lines after the body shift the border: then the bytes do not match, or, if all of
        # them are line ends, the head seems to have two ends; as does one with blank lines before.
        is_certain = head.endswith(_END) and head.find(_END) + len(_END) == len(head)
        if is_certain and head[:1] != b"\r" and exchange.body == data[head_bytes:]:
            return cls(
                head,
                len(data),
                exchange.method,
                exchange.target,
                exchange.json_length,
                exchange.accept,
                exchange.routing_key,
            )
        return None

    def fill(self, exchange: Exchange, data: memoryview) -> None:
        """Make of a new exchange the request that ``data`` is; it begins with this head."""
        exchange.method = self.method
        exchange.target = self.target
        exchange.json_length = self.json_length
        exchange.accept = self.accept
        exchange.routing_key = self.routing_key
        exchange.body = bytes(data[len(self.head) :])
