"""Where the sockets are, for daemon and clients alike, and what may be in the way there."""

import contextlib
import errno
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from edge_runtime import locations
from edge_runtime.errors import SocketError
from edge_runtime.listeners import bind_unix
from edge_runtime.locations import (
    client_admin_socket,
    client_socket,
    default_socket_directory,
    default_state_directory,
    temporary_directory,
)

DEADLINE_S: Final = 10.0
UID: Final = os.getuid()

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


def test_systemd_directory_comes_first_and_the_first_of_several(tmp_path: Path) -> None:
    environment = {"RUNTIME_DIRECTORY": "/run/a:/run/b", "XDG_RUNTIME_DIR": "/run/user/7"}
    assert default_socket_directory(environment, UID, tmp_path) == Path("/run/a")


def test_session_directory_comes_next_and_may_hold_a_colon(tmp_path: Path) -> None:
    environment = {"RUNTIME_DIRECTORY": "", "XDG_RUNTIME_DIR": "/run/us:er"}
    assert default_socket_directory(environment, UID, tmp_path) == Path("/run/us:er/edge-runtime")


def test_relative_directories_are_ignored(tmp_path: Path) -> None:
    environment = {"RUNTIME_DIRECTORY": "here", "XDG_RUNTIME_DIR": "there"}
    found = default_socket_directory(environment, UID, tmp_path)
    assert found == tmp_path / f"edge-runtime-{UID}"


def test_temporary_directory_is_made_private_and_found_again(tmp_path: Path) -> None:
    made = default_socket_directory({}, UID, tmp_path)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert default_socket_directory({}, UID, tmp_path) == made


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o710])
def test_temporary_directory_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / f"edge-runtime-{UID}"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(SocketError, match=f"mode {mode:04o}"):
        default_socket_directory({}, UID, tmp_path)


def test_temporary_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    # Ours, under the name that belongs to the user after us.
    (tmp_path / f"edge-runtime-{UID + 1}").mkdir(mode=0o700)
    with pytest.raises(SocketError, match=f"belongs to user {UID}, not {UID + 1}"):
        default_socket_directory({}, UID + 1, tmp_path)


def test_symbolic_link_to_a_fine_directory_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir(mode=0o700)
    (tmp_path / f"edge-runtime-{UID}").symlink_to(target)
    with pytest.raises(SocketError, match="is not a directory"):
        default_socket_directory({}, UID, tmp_path)


def test_file_in_the_way_of_the_temporary_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / f"edge-runtime-{UID}").touch()
    with pytest.raises(SocketError, match="set XDG_RUNTIME_DIR"):
        default_socket_directory({}, UID, tmp_path)


def test_state_directory_prefers_systemd_then_xdg_then_home() -> None:
    home = Path("/home/a")
    both = {"STATE_DIRECTORY": "/var/lib/x:/var/lib/y", "XDG_STATE_HOME": "/s"}
    assert default_state_directory(both, home) == Path("/var/lib/x")
    assert default_state_directory({"XDG_STATE_HOME": "/s"}, home) == Path("/s/edge-runtime")
    assert default_state_directory({}, home) == home / ".local/state/edge-runtime"


def test_client_takes_the_path_it_is_given() -> None:
    environment = {"EDGE_RUNTIME_SOCKET": "a.sock", "EDGE_RUNTIME_ADMIN_SOCKET": "/b.sock"}
    assert client_socket(environment) == Path("a.sock")
    assert client_admin_socket(environment) == Path("/b.sock")


def test_client_and_daemon_agree(tmp_path: Path) -> None:
    for environment in ({"XDG_RUNTIME_DIR": str(tmp_path)}, {"TMPDIR": str(tmp_path)}):
        folder = default_socket_directory(environment, UID, temporary_directory(environment))
        assert client_socket(environment) == folder / "runtime.sock"
        assert client_admin_socket(environment) == folder / "admin.sock"
        assert folder.is_relative_to(tmp_path)


def test_client_finds_the_system_daemon_when_the_user_runs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, own = tmp_path / "system", tmp_path / "own"
    system.mkdir()
    monkeypatch.setattr(locations, "SYSTEM_SOCKET_DIRECTORY", system)
    environment = {"XDG_RUNTIME_DIR": str(own), "RUNTIME_DIRECTORY": str(tmp_path / "of-the-unit")}
    assert client_socket(environment) == own / "edge-runtime" / "runtime.sock"
    (system / "runtime.sock").touch()
    assert client_socket(environment) == system / "runtime.sock"
    (own / "edge-runtime").mkdir(parents=True, exist_ok=True)
    (own / "edge-runtime" / "runtime.sock").touch()
    assert client_socket(environment) == own / "edge-runtime" / "runtime.sock"


def test_temporary_directory_is_the_usual_one_without_a_variable() -> None:
    assert temporary_directory({}) == Path("/tmp")  # noqa: S108 - it is what is promised


def test_import_loads_nothing_heavy() -> None:
    code = (
        "import sys; before = set(sys.modules); import edge_runtime.locations;"
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    heavy = {"asyncio", "dataclasses", "inspect", "msgspec", "numpy", "onnxruntime", "socket"}
    assert heavy.isdisjoint(loaded)


# --- what is at the path already ----------------------------------------------------------------


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir="/tmp"))  # short: a socket's path has 107 bytes
    yield path
    shutil.rmtree(path)


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
