"""Where the sockets are, for daemon and clients alike."""

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from edge_runtime import locations
from edge_runtime.errors import SocketError
from edge_runtime.locations import (
    ADMIN_SOCKET_NAME,
    RUNTIME_SOCKET_NAME,
    client_path,
    default_socket_directory,
    default_state_directory,
    temporary_directory,
)

DEADLINE_S: Final = 60.0
UID: Final = os.getuid()


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


def test_client_and_daemon_agree(tmp_path: Path) -> None:
    for environment in ({"XDG_RUNTIME_DIR": str(tmp_path)}, {"TMPDIR": str(tmp_path)}):
        folder = default_socket_directory(environment, UID, temporary_directory(environment))
        assert client_path(environment, RUNTIME_SOCKET_NAME) == folder / "runtime.sock"
        assert client_path(environment, ADMIN_SOCKET_NAME) == folder / "admin.sock"
        assert folder.is_relative_to(tmp_path)


def test_client_finds_the_system_daemon_when_the_user_runs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, own = tmp_path / "system", tmp_path / "own"
    system.mkdir()
    monkeypatch.setattr(locations, "SYSTEM_SOCKET_DIRECTORY", system)
    environment = {"XDG_RUNTIME_DIR": str(own), "RUNTIME_DIRECTORY": str(tmp_path / "of-the-unit")}
    assert client_path(environment, RUNTIME_SOCKET_NAME) == own / "edge-runtime" / "runtime.sock"
    (system / "runtime.sock").touch()
    assert client_path(environment, RUNTIME_SOCKET_NAME) == system / "runtime.sock"
    (own / "edge-runtime").mkdir(parents=True, exist_ok=True)
    (own / "edge-runtime" / "runtime.sock").touch()
    assert client_path(environment, RUNTIME_SOCKET_NAME) == own / "edge-runtime" / "runtime.sock"


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
