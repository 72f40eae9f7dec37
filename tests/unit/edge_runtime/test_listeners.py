"""The daemon's doors: how sockets come to be, are shared out, and go."""

import asyncio
import contextlib
import errno
import gc
import grp
import logging
import os
import shutil
import socket
import stat
import tempfile
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Final, cast

import pytest
import uvloop

from edge_runtime.access import UnixAddress
from edge_runtime.errors import SocketError
from edge_runtime.listeners import BACKLOG, Listeners, bind_tcp, bind_unix

DEADLINE_S: Final = 10.0
LOOPS: Final = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

Run = Callable[[Coroutine[object, object, None]], None]


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir="/tmp"))  # short: a socket's path has 107 bytes
    yield path
    shutil.rmtree(path)


@pytest.fixture
def umask_zero() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


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


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def _connect(path: Path) -> socket.socket:
    """Connect, or fail if one would have to wait for room in the backlog."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(0)
    client.connect(str(path))
    return client


def _a_group() -> grp.struct_group:
    """Find a group, not our own, that this user may give a socket to."""
    allowed = grp.getgrall() if os.geteuid() == 0 else map(grp.getgrgid, os.getgroups())
    for group in allowed:
        if group.gr_gid != os.getegid():
            return group
    pytest.skip("this user has no second group")


class Greeter(asyncio.Protocol):
    """Speaks first, which HTTP never does."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        # uvloop's transports are not instances of asyncio's classes, so there is no check here.
        writer = cast("asyncio.WriteTransport", transport)
        writer.write(b"hello")
        writer.close()


# --- who may open it ---------------------------------------------------------------------------


class _Watching(socket.socket):
    """Notes the mode that a path has at the moment it comes into being."""

    seen: list[int]

    def bind(self, address: object, /) -> None:
        super().bind(address)  # type: ignore[arg-type]
        assert isinstance(address, str | bytes)
        self.seen.append(_mode(Path(os.fsdecode(address))))


@pytest.mark.usefixtures("umask_zero")
@pytest.mark.parametrize("with_group", [False, True])
def test_socket_is_never_wider_than_0660_even_under_umask_zero(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, with_group: bool
) -> None:
    group = _a_group() if with_group else None
    monkeypatch.setattr(_Watching, "seen", [], raising=False)
    monkeypatch.setattr(socket, "socket", _Watching)
    changes: list[tuple[int, int]] = []
    chmod = Path.chmod

    def watch_chmod(path: Path, mode: int) -> None:
        changes.append((path.lstat().st_gid, _mode(path)))
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", watch_chmod)

    bound = bind_unix(folder / "runtime.sock", group=group.gr_name if group else "")
    with contextlib.closing(bound):
        assert _mode(folder / "runtime.sock") == 0o660
    # Opened to the group only after it had become the right one.
    assert _Watching.seen == [0o600 if group else 0o660]
    assert changes == ([(group.gr_gid, 0o600)] if group else [])
    # The watching itself works: without our care this is what one gets.
    with socket.socket(socket.AF_UNIX) as careless:
        careless.bind(str(folder / "careless"))
    assert _Watching.seen[-1] == 0o777


@pytest.mark.usefixtures("umask_zero")
def test_no_other_process_ever_sees_a_wider_mode(folder: Path) -> None:
    path = folder / "runtime.sock"
    seen: set[int] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            with contextlib.suppress(FileNotFoundError):
                seen.add(_mode(path))

    watcher = threading.Thread(target=look)
    watcher.start()
    group = _a_group().gr_name
    try:
        for turn in range(300):
            bind_unix(path, group=group if turn % 2 else "").close()
    finally:
        done.set()
        watcher.join()
    assert seen <= {0o600, 0o660}


def test_umask_of_the_process_is_restored_after_success_and_failure(folder: Path) -> None:
    before = os.umask(0o027)
    try:
        bind_unix(folder / "a.sock").close()
        (folder / "file").touch()
        with pytest.raises(SocketError):
            bind_unix(folder / "file")
    finally:
        assert os.umask(before) == 0o027


@pytest.mark.usefixtures("umask_zero")
def test_missing_folders_are_made_for_the_owner_only(folder: Path) -> None:
    bind_unix(folder / "a" / "b" / "runtime.sock").close()
    assert _mode(folder / "a") == _mode(folder / "a" / "b") == 0o700


def test_folder_that_exists_keeps_its_mode(folder: Path) -> None:
    folder.chmod(0o755)
    bind_unix(folder / "runtime.sock").close()
    assert _mode(folder) == 0o755


def test_group_gets_the_socket(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    group = _a_group()
    folder.chmod(0o711)
    with contextlib.closing(bind_unix(folder / "admin.sock", group=group.gr_name)) as bound:
        assert (folder / "admin.sock").stat().st_gid == group.gr_gid
        assert bound.address == UnixAddress("admin", folder / "admin.sock", group.gr_name)
    assert caplog.records == []


def test_group_that_cannot_reach_its_socket_is_reported(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        bind_unix(folder / "admin.sock", group=_a_group().gr_name).close()
    assert "cannot enter" in caplog.text


def test_unknown_group_leaves_nothing_behind(folder: Path) -> None:
    with pytest.raises(SocketError, match="no group 'nobody-has-this'"):
        bind_unix(folder / "runtime.sock", group="nobody-has-this")
    assert list(folder.iterdir()) == []


def test_group_that_may_not_be_given_leaves_no_socket_and_no_lock(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(os, "chown", refuse)
        with pytest.raises(SocketError, match="not permitted; add the daemon's user to the group"):
            bind_unix(folder / "runtime.sock", group=grp.getgrgid(os.getgid()).gr_name)
    assert not (folder / "runtime.sock").exists()
    bind_unix(folder / "runtime.sock").close()


# --- closing ------------------------------------------------------------------------------------


def test_closing_removes_the_path_and_frees_it_for_the_next(folder: Path) -> None:
    path = folder / "runtime.sock"
    for _ in range(2):
        bound = bind_unix(path)
        bound.close()
        bound.close()
        assert not bound.is_open
        assert not bound.has_waiting()
        assert not path.exists()


def test_closing_leaves_what_somebody_else_put_at_the_path(folder: Path) -> None:
    path = folder / "runtime.sock"
    bound = bind_unix(path)
    path.unlink()
    path.write_text("another's")
    bound.close()
    assert path.read_text() == "another's"


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
