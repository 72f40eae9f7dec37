"""The daemon's doors together: how they open, serve, and close."""

import asyncio
import contextlib
import gc
import socket
import warnings
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Final, cast

import pytest
import uvloop

from edge_runtime.errors import SocketError
from edge_runtime.listeners import BACKLOG, Listeners, bind_tcp, bind_unix

DEADLINE_S: Final = 60.0
LOOPS: Final = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

Run = Callable[[Coroutine[object, object, None]], None]


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Run a coroutine on one of the two loops; errors that a loop would only log count too."""
    problems: list[dict[str, object]] = []
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        runner.get_loop().set_exception_handler(lambda _loop, context: problems.append(context))
        yield lambda main: runner.run(asyncio.wait_for(main, DEADLINE_S))
    assert problems == []


@pytest.fixture
def doors(run: Run) -> Iterator[Listeners]:
    """Make doors that are closed before the loop is; uvloop's close hangs on a leaked one.

    It warns about the leak, warnings are errors here, and the error keeps it from cleaning up.
    """
    del run
    made = Listeners()
    yield made
    made.close()


def _connect(path: Path) -> socket.socket:
    """Connect, or fail if one would have to wait for room in the backlog."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(0)
    client.connect(str(path))
    return client


class Greeter(asyncio.Protocol):
    """Speaks first, which HTTP never does."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        # uvloop's transports are not instances of asyncio's classes, so there is no check here.
        writer = cast("asyncio.WriteTransport", transport)
        writer.write(b"hello")
        writer.close()


# --- all doors together -------------------------------------------------------------------------


async def _read(client: socket.socket) -> bytes:
    client.settimeout(0)
    return await asyncio.get_running_loop().sock_recv(client, 100)


def test_doors_of_all_kinds_open_and_close_together(
    folder: Path, run: Run, doors: Listeners
) -> None:
    path = folder / "runtime.sock"

    async def main() -> None:
        tcp = bind_tcp("127.0.0.1:0")
        doors.add(bind_unix(path), Greeter)
        doors.add(tcp, Greeter)
        host, port = tcp.socket.getsockname()
        assert doors.addresses == [("runtime", str(path)), ("http", f"{host}:{port}")]
        await doors.start()
        opened = doors.are_open
        with _connect(path) as one, socket.create_connection((host, port)) as two:
            assert await _read(one) == await _read(two) == b"hello"
        doors.close()
        doors.close()
        assert (opened, doors.are_open) == (True, False)
        assert not path.exists()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, port))
        assert [name for name, _ in doors.addresses] == ["runtime", "http"]

    run(main())


def test_door_that_accepts_by_itself_gets_the_raw_socket(
    folder: Path, run: Run, doors: Listeners
) -> None:
    path = folder / "descriptors.sock"

    async def main() -> None:
        accepted: asyncio.Queue[socket.socket] = asyncio.Queue()
        doors.add_raw(
            bind_unix(path, kind=socket.SOCK_SEQPACKET),
            lambda sock: accepted.put_nowait(sock.accept()[0]),
        )
        await doors.start()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(str(path))
            with await accepted.get() as server:
                # Descriptors travel beside the bytes: no HTTP door could do this.
                socket.send_fds(client, [b"one"], [client.fileno()])
                said, descriptors, _, _ = socket.recv_fds(server, 100, 1)
            assert said == b"one"
            with socket.socket(fileno=descriptors[0]) as copy:
                assert copy.getpeername() == client.getpeername() == str(path)
        await doors.stop_accepting()
        doors.close()
        assert not path.exists()

    run(main())


def test_connections_made_before_the_start_are_served(
    folder: Path, run: Run, doors: Listeners
) -> None:
    async def main() -> None:
        doors.add(bind_unix(folder / "runtime.sock"), Greeter)
        with contextlib.ExitStack() as stack:
            clients = [
                stack.enter_context(_connect(folder / "runtime.sock")) for _ in range(BACKLOG)
            ]
            await doors.start()
            for client in clients:
                assert await _read(client) == b"hello"

    run(main())


def test_backlog_is_ours_and_not_the_loops_own(folder: Path, run: Run, doors: Listeners) -> None:
    async def main() -> None:
        doors.add(bind_unix(folder / "runtime.sock"), Greeter)
        await doors.start()
        with contextlib.ExitStack() as stack:
            # Nothing is accepted meanwhile, for this is the loop's thread.
            for _ in range(BACKLOG):
                stack.enter_context(_connect(folder / "runtime.sock"))

    run(main())
    with warnings.catch_warnings():  # asyncio forgets, from Python 3.13 on, whom it was to accept
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_who_has_connected_before_the_stop_is_served(
    folder: Path, run: Run, doors: Listeners
) -> None:
    path = folder / "runtime.sock"

    async def main() -> None:
        tcp = bind_tcp("127.0.0.1:0")
        doors.add(bind_unix(path), Greeter)
        doors.add(tcp, Greeter)
        await doors.start()
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(_connect(path)) for _ in range(BACKLOG)]
            clients.append(stack.enter_context(socket.create_connection(tcp.socket.getsockname())))
            await doors.stop_accepting()
            assert not path.exists()
            for client in clients:
                assert await _read(client) == b"hello"
        with pytest.raises(SocketError):
            bind_unix(path)  # until we are gone the place is ours
        doors.close()
        bind_unix(path).close()

    run(main())


def test_client_that_never_stops_connecting_cannot_hold_the_stop_up(
    run: Run, doors: Listeners
) -> None:
    async def main() -> None:
        tcp = bind_tcp("127.0.0.1:0")
        address = tcp.socket.getsockname()
        with contextlib.ExitStack() as stack:

            def connect_again(_sock: socket.socket | None = None) -> None:
                client = stack.enter_context(socket.socket())
                client.settimeout(0)
                client.connect_ex(address)

            doors.add_raw(tcp, connect_again)  # and never accepts
            await doors.start()
            connect_again()
            await doors.stop_accepting()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)

    run(main())


def test_start_that_fails_is_a_socket_error_and_can_be_closed(
    folder: Path, run: Run, doors: Listeners
) -> None:
    async def main() -> None:
        # A served door has to be a stream.
        doors.add(bind_unix(folder / "a.sock", kind=socket.SOCK_SEQPACKET), Greeter)
        doors.add(bind_unix(folder / "b.sock"), Greeter)
        with pytest.raises(SocketError, match=r"cannot accept on .*a\.sock"):
            await doors.start()

    run(main())
    doors.close()
    assert not list(folder.glob("*.sock"))
