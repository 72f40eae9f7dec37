"""Where the agent keeps its state, and where its commands find it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agent.errors import StateError
from edge_runtime.locations import ADMIN_SOCKET_NAME, client_path

CONTROL_SOCKET_NAME: Final = "agent.sock"
SYSTEM_DIRECTORY: Final = Path("/run/edge-agent")  # of packaging/systemd
HANDOVER_SOCKET_NAME: Final = "handover.sock"
STATE_MODE: Final = 0o700
DATABASE: Final = "agent.db"
IMPORTED: Final = "imported"
"""What `edge-agent import` unpacked last."""


def state_directory(given: str, environment: Mapping[str, str] = os.environ) -> Path:
    """Say where the agent keeps its state; it need not exist yet.

    Args:
        given: ``state_dir`` of the configuration; empty: systemd's ``$STATE_DIRECTORY`` (its first
            entry), else ``edge-agent`` in ``$XDG_STATE_HOME``, else in ``~/.local/state``.
        environment: Where the variables are looked up.
    """
    if given:
        return Path(given).absolute()
    systemd = Path(environment.get("STATE_DIRECTORY", "").partition(":")[0])
    if systemd.is_absolute():
        return systemd
    base = Path(environment.get("XDG_STATE_HOME", ""))
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - pathlib's fails where there is none
    return (base if base.is_absolute() else home / ".local" / "state") / "edge-agent"


def make_state_directory(path: Path) -> None:
    """Make the folder of the state, for its owner alone.

    Raises:
        StateError: It cannot be made.
    """
    try:
        path.mkdir(mode=STATE_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(f"cannot make the state folder {path}: {error.strerror}") from error


def runtime_directory(state: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Say where what need not outlive the device's boot goes: systemd's folder, else the state."""
    systemd = Path(environment.get("RUNTIME_DIRECTORY", "").partition(":")[0])
    return systemd if systemd.is_absolute() else state


def control_socket(state: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Say where the running agent takes questions."""
    return runtime_directory(state, environment) / CONTROL_SOCKET_NAME


def running_socket(state: Path) -> Path:
    """Find the running agent's socket, from a command: beside its state, else the system's."""
    own = state / CONTROL_SOCKET_NAME
    system = SYSTEM_DIRECTORY / CONTROL_SOCKET_NAME
    return system if _is_there(system) and not _is_there(own) else own


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:  # somebody else's folder: connecting will say so
        return False


def admin_socket(given: str, environment: Mapping[str, str] = os.environ) -> Path:
    """Find the daemon's admin socket."""
    return Path(given) if given else client_path(environment, ADMIN_SOCKET_NAME)


def handover_socket(given: str, admin: Path) -> Path:
    """Find the daemon's hand-over socket: beside the admin socket, if it is not named."""
    return Path(given) if given else admin.with_name(HANDOVER_SOCKET_NAME)
