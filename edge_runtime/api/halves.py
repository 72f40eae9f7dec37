"""What the two halves of a connection share: ``http`` receives, ``connection`` answers."""

import asyncio
import os
import select
import socket

from edge_runtime.access import Peer
from edge_runtime.api.exchange import Exchange
from edge_runtime.api.timeouts import NEVER, Timeouts


class Half(asyncio.BufferedProtocol):
    """What the receiving half asks of the answering one, and the deadline of both.

    Args:
        timeouts: Watches ``deadline``.

    Attributes:
        deadline: When ``timed_out`` is due, in the loop's seconds.
        peer: Who is on the other side.
    """

    __slots__ = ("_loop", "_timeouts", "deadline", "peer")

    def __init__(self, timeouts: Timeouts) -> None:
        self.deadline = NEVER
        self.peer = Peer(None, None, None, "")
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()

    def answered(self, exchange: Exchange) -> None:
        """Take an answer that is there."""
        raise NotImplementedError

    @property
    def is_draining(self) -> bool:
        """Whether this connection ends with its last answer."""
        raise NotImplementedError

    def timed_out(self) -> None:
        """Act on the passed deadline."""
        raise NotImplementedError

    def _received(self, exchange: Exchange) -> None:
        """Take a complete request."""
        raise NotImplementedError

    def _refuse(self, status: int, message: str) -> None:
        """Answer an error to what cannot be read on, in its turn, and close."""
        raise NotImplementedError

    def _invite(self) -> None:
        """Send 100 Continue, and clear ``_expects``, as soon as it cannot be misunderstood."""
        raise NotImplementedError

    def _set_deadline(self, seconds: float) -> None:
        self.deadline = self._loop.time() + seconds
        self._timeouts.watch(self)


def peer_of(transport: asyncio.BaseTransport) -> Peer:
    """Say who is on the other side."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family == socket.AF_UNIX:
        return Peer.of_unix_socket(sock)
    return Peer.of_tcp(transport.get_extra_info("peername"))


def has_unread(transport: asyncio.BaseTransport) -> bool:
    """Tell whether something has arrived that was not read yet."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


def hang_up(transport: asyncio.BaseTransport) -> None:
    """Make a Unix socket take nothing more; what is there already is still read, then its end.

    From now on the client's writes fail before a byte has left, so it knows that nothing ran. If
    the socket were closed, a request that arrives just then would vanish.
    """
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as twin:
        twin.shutdown(socket.SHUT_RD)


def is_gone(transport: asyncio.BaseTransport) -> bool | None:
    """Whether a client that sends no more does not read either; TCP does not tell (``None``)."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family != socket.AF_UNIX:
        return None
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLHUP)
    return bool(poll.poll(0))
