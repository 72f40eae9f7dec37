"""How a Unix socket comes to be and goes: who may open it, and what may be in its way."""

import contextlib
import errno
import grp
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from edge_runtime.access import UnixAddress
from edge_runtime.errors import SocketError
from edge_runtime.listeners import bind_unix

DEADLINE_S: Final = 60.0

# Binds when told to, says what came of it, and serves until it is killed.
CHILD: Final = """
import sys
from pathlib import Path
from edge_runtime.errors import SocketError
from edge_runtime.listeners import bind_unix

print("here", flush=True)
sys.stdin.readline()
try:
    bound = bind_unix(Path(sys.argv[1]))
except SocketError as error:
    sys.exit(error.message)
print("bound", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def umask_zero() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def _a_group() -> grp.struct_group:
    """Find a group, not our own, that this user may give a socket to."""
    allowed = grp.getgrall() if os.geteuid() == 0 else map(grp.getgrgid, os.getgroups())
    for group in allowed:
        if group.gr_gid != os.getegid():
            return group
    pytest.skip("this user has no second group")


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


# --- what is at the path already ----------------------------------------------------------------


def _connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    client.settimeout(DEADLINE_S)
    return client


def _start_child(path: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert _said(child) == "here"
    return child


def _tell(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def _said(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def test_live_socket_is_not_replaced(folder: Path) -> None:
    path = folder / "runtime.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(SocketError, match=f"another process is serving on {path}; stop it"):
            bind_unix(path)
        with _connect(path), other.accept()[0]:
            pass  # the probe waits in front of us; either way the other one still serves


def test_live_socket_with_a_full_backlog_is_not_replaced(folder: Path) -> None:
    path = folder / "runtime.sock"
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(socket.socket(socket.AF_UNIX))
        other.bind(str(path))
        other.listen(0)
        while True:
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(0)
            if client.connect_ex(str(path)) == errno.EAGAIN:
                break
        with pytest.raises(SocketError, match="another process is serving"):
            bind_unix(path)
        assert path.is_socket()


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_live_socket_of_another_kind_is_not_replaced(folder: Path, kind: int) -> None:
    path = folder / "runtime.sock"
    with socket.socket(socket.AF_UNIX, kind) as other:
        other.bind(str(path))
        if kind == socket.SOCK_SEQPACKET:
            other.listen()
        with pytest.raises(SocketError, match="another process is serving"):
            bind_unix(path)


def test_second_daemon_is_refused_even_while_the_first_does_not_answer(folder: Path) -> None:
    path = folder / "runtime.sock"
    with contextlib.closing(bind_unix(path)) as first:
        first.socket.close()  # as between the last accept and the exit
        with pytest.raises(SocketError, match="another process is serving"):
            bind_unix(path)


def test_stale_socket_of_a_killed_process_is_replaced(folder: Path) -> None:
    path = folder / "runtime.sock"
    with _start_child(path) as child:
        _tell(child)
        assert _said(child) == "bound"
        with pytest.raises(SocketError, match="another process is serving"):
            bind_unix(path)
        child.send_signal(signal.SIGKILL)
        assert child.wait(DEADLINE_S) == -signal.SIGKILL
    assert path.is_socket()

    with contextlib.closing(bind_unix(path)) as bound, _connect(path):
        assert bound.has_waiting()


def test_of_many_that_start_at_once_exactly_one_serves(folder: Path) -> None:
    path = folder / "runtime.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(_start_child(path)) for _ in range(4)]
        for child in children:
            _tell(child)
        assert sorted(_said(child) for child in children) == ["", "", "", "bound"]
        _connect(path).close()
        for child in children:
            child.kill()


@pytest.mark.parametrize("kind", ["file", "directory", "link to a socket", "dangling link"])
def test_what_is_not_a_socket_is_left_alone(folder: Path, kind: str) -> None:
    path = folder / "runtime.sock"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(folder / "other.sock")
    with contextlib.ExitStack() as stack:
        if kind == "link to a socket":
            stack.enter_context(contextlib.closing(bind_unix(folder / "other.sock")))
        before = path.lstat()
        with pytest.raises(SocketError, match="is not a socket, so it is left alone"):
            bind_unix(path)
    assert path.lstat() == before


def test_link_in_place_of_the_lock_file_is_not_followed(folder: Path) -> None:
    target = folder / "target"
    (folder / "runtime.sock.lock").symlink_to(target)
    with pytest.raises(SocketError, match=r"cannot listen on .*runtime\.sock"):
        bind_unix(folder / "runtime.sock")
    assert not target.exists()


def test_lock_file_is_for_the_owner_only_and_stays(folder: Path) -> None:
    bind_unix(folder / "runtime.sock").close()
    assert [path.name for path in folder.iterdir()] == ["runtime.sock.lock"]
    assert stat.S_IMODE((folder / "runtime.sock.lock").stat().st_mode) == 0o600


def test_lock_is_released_even_if_a_forked_child_lives_on(folder: Path) -> None:
    bound = bind_unix(folder / "runtime.sock")
    copies = [os.dup(fd) for fd in _open_files_of(folder)]  # what fork() leaves in a child
    try:
        bound.close()
        bind_unix(folder / "runtime.sock").close()
    finally:
        for copy in copies:
            os.close(copy)


def _open_files_of(folder: Path) -> list[int]:
    found = []
    for entry in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):
            if entry.readlink().is_relative_to(folder):
                found.append(int(entry.name))
    assert found
    return found


def test_path_that_cannot_be_made_is_a_socket_error(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(SocketError, match=r"cannot listen on .*File exists; check the folder"):
        bind_unix(folder / "file" / "runtime.sock")


def test_path_that_is_too_long_is_refused_before_anything_is_made(folder: Path) -> None:
    with pytest.raises(SocketError, match="limit is 107; choose a shorter one"):
        bind_unix(folder / ("a" * 100) / "runtime.sock")
    assert list(folder.iterdir()) == []
