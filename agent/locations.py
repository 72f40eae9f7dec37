"""Where the agent keeps its state, and where its commands find it."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agent.errors import StateError
from edge_runtime.locations import ADMIN_SOCKET_NAME, client_path

CONTROL_SOCKET_NAME: Final = "agent.sock"
SOCKET_VARIABLE: Final = "EDGE_AGENT_SOCKET"
"""Names the running agent's socket for commands."""
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
    """Say where what need not outlive the device's boot goes.

    Args:
        state: The agent's folder.
        environment: Where the variables are looked up.

    Returns:
        systemd's folder; else the one that an agent's sign leads to, so that commands read what
        one that was killed left there; else the state.
    """
    systemd = Path(environment.get("RUNTIME_DIRECTORY", "").partition(":")[0])
    if systemd.is_absolute():
        return systemd
    with contextlib.suppress(OSError):
        led_to = Path(os.readlink(state / CONTROL_SOCKET_NAME)).parent  # noqa: PTH115 - not followed
        if os.access(led_to, os.W_OK | os.X_OK):
            return led_to
    return state


def control_socket(state: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Say where the running agent takes questions."""
    return runtime_directory(state, environment) / CONTROL_SOCKET_NAME


def control_sockets(
    state: Path,
    given: str = "",
    *,
    is_named: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> list[Path]:
    """Say where a command looks for the running agent, the likeliest place first.

    Args:
        state: The agent's folder.
        given: The socket that somebody named; empty: nobody did, but perhaps
            ``$EDGE_AGENT_SOCKET`` does.
        is_named: Whether somebody named the folder: then the system's agent is not meant.
        environment: Where the variables are looked up.
    """
    named = given or environment.get(SOCKET_VARIABLE, "")
    if named:
        return [Path(named)]
    found = [control_socket(state, environment), state / CONTROL_SOCKET_NAME]
    if not is_named:
        found.append(SYSTEM_DIRECTORY / CONTROL_SOCKET_NAME)
    return list(dict.fromkeys(found))


def leave_sign(state: Path, socket: Path) -> None:
    """Have the state folder lead to a socket that is elsewhere, so that commands find it.

    Raises:
        StateError: The disk refused.
    """
    sign = state / CONTROL_SOCKET_NAME
    if sign == socket:
        return
    try:
        sign.unlink(missing_ok=True)
        sign.symlink_to(socket)
    except OSError as error:
        raise StateError(f"cannot write {sign}: {error.strerror}") from error


def remove_sign(state: Path) -> None:
    """Take the sign away; a socket is left alone, and so is what the disk does not let go."""
    sign = state / CONTROL_SOCKET_NAME
    if sign.is_symlink():
        with contextlib.suppress(OSError):
            sign.unlink()


def admin_socket(given: str, environment: Mapping[str, str] = os.environ) -> Path:
    """Find the daemon's admin socket."""
    return Path(given) if given else client_path(environment, ADMIN_SOCKET_NAME)


def handover_socket(given: str, admin: Path) -> Path:
    """Find the daemon's hand-over socket: beside the admin socket, if it is not named."""
    return Path(given) if given else admin.with_name(HANDOVER_SOCKET_NAME)
