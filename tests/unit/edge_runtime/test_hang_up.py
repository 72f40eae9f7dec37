"""Closing an idle Unix connection so that no request can be lost in between."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from edge_runtime.api import connection
from edge_runtime.api.door import Door
from edge_runtime.api.halves import hang_up, has_unread
from edge_runtime.api.http import Budget
from edge_runtime.api.timeouts import Timeouts
from edge_runtime.metrics import ServerStatistics
from edge_runtime.settings import Limits
from tests.wire import Wire, infer

WAIT_S = 60.0
INFER = infer("m", [[1.0, 2.0]])


class Receiver(asyncio.Protocol):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.data = b""
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        """Keep it."""
        self.data += data

    def eof_received(self) -> bool:
        """Note the end; stay open."""
        self.ended.set()
        return True


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.asyncio
async def test_what_was_sent_before_is_read_and_what_comes_after_fails_before_a_byte_has_left(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    loop = asyncio.get_running_loop()
    transport, receiver = await loop.connect_accepted_socket(Receiver, ours)
    assert not has_unread(transport)
    theirs.sendall(b"sent before")
    assert has_unread(transport)
    hang_up(transport)
    with pytest.raises(BrokenPipeError):
        theirs.send(b"sent after")
    async with asyncio.timeout(WAIT_S):
        await receiver.ended.wait()
    assert receiver.data == b"sent before"
    transport.write(b"the answer")  # the other way is open
    assert await asyncio.to_thread(theirs.recv, 100) == b"the answer"
    transport.close()


async def come_in(ours: socket.socket) -> tuple[Door, connection.Connection]:
    """Bring a socket in through a door that answers everything."""
    loop = asyncio.get_running_loop()
    door = Door(
        lambda exchange: exchange.json({"all": len(exchange.body)}),
        Limits(),
        ServerStatistics(0.0),
        Timeouts(loop),
        Budget(),
    )
    _, protocol = await loop.connect_accepted_socket(door.connection, ours)
    return door, protocol


@pytest.mark.asyncio
@pytest.mark.parametrize(("sent", "status"), [(INFER, 200), (INFER[:-3], 503), (INFER[:20], 503)])
async def test_a_request_that_comes_in_the_moment_of_eviction_is_answered_or_known_not_to_have_run(
    pair: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    sent: bytes,
    status: int,
) -> None:
    # As if it came between the look and the end.
    monkeypatch.setattr(connection, "has_unread", lambda _: False)
    ours, theirs = pair
    theirs.settimeout(WAIT_S)
    door, idle = await come_in(ours)
    wire = Wire(theirs)
    wire.send(sent)
    assert idle.end_if_idle()
    answer = await asyncio.to_thread(wire.answer)
    assert (answer.status, answer.headers["Connection"]) == (status, "close")
    assert await asyncio.to_thread(wire.ends)
    async with asyncio.timeout(WAIT_S):
        await door.empty.wait()
    assert (door.places.taken, door.budget.taken) == (0, 0)


@pytest.mark.asyncio
async def test_a_connection_with_something_unread_is_not_idle(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    theirs.settimeout(WAIT_S)
    door, busy = await come_in(ours)
    wire = Wire(theirs)
    wire.send(INFER)
    assert not busy.end_if_idle()
    assert (await asyncio.to_thread(wire.answer)).status == 200
    wire.close()
    async with asyncio.timeout(WAIT_S):
        await door.empty.wait()
