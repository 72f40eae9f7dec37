"""Where the daemon keeps its sockets and its state, and so where clients look for it.

The daemon and its clients must come to the same answer from the same environment, and a client
must not pay for the daemon's imports: this file needs nothing but the standard library.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edge_runtime.errors import SocketError

RUNTIME_SOCKET_NAME: Final = "runtime.sock"
ADMIN_SOCKET_NAME: Final = "admin.sock"
HANDOVER_SOCKET_NAME: Final = "handover.sock"
SYSTEM_SOCKET_DIRECTORY: Final = Path("/run/edge-runtime")  # of packaging/systemd
PRIVATE_MODE: Final = 0o700
JOURNAL_NAME: Final = "runtime.db"
"""The journal of releases, in the state directory."""
PREDICTIONS_NAME: Final = "journal.db"
"""The journal of predictions, in the state directory."""


def default_socket_directory(
    environment: Mapping[str, str], uid: int, temporary_directory: Path
) -> Path:
    """Find the folder of the sockets.

    It is the first that applies: systemd's ``$RUNTIME_DIRECTORY`` (its first entry),
    ``$XDG_RUNTIME_DIR/edge-runtime``, ``edge-runtime-<uid>`` in the temporary folder. Everybody
    may write to the temporary folder, so the last one is made here at once, and is refused unless
    it is a real directory of this user's that nobody else can enter.

    Args:
        environment: Where the variables are looked up.
        uid: The user who runs the daemon.
        temporary_directory: See ``temporary_directory``.

    Returns:
        The folder; the first two need not exist yet.

    Raises:
        SocketError: The folder in the temporary one cannot be made, or is not private.
    """
    given = _from_systemd(environment, "RUNTIME_DIRECTORY")
    if given is not None:
        return given
    session = _absolute(environment, "XDG_RUNTIME_DIR")
    if session is not None:
        return session / "edge-runtime"
    return _private_directory(temporary_directory / f"edge-runtime-{uid}", uid)


def temporary_directory(environment: Mapping[str, str]) -> Path:
    """Name the folder for temporary files: ``$TMPDIR``, else ``/tmp``.

    ``tempfile.gettempdir`` tries folders by writing to them, so two processes can disagree; the
    daemon and its clients must not.

    Args:
        environment: Where the variable is looked up.
    """
    # Not a file in /tmp but the name of the folder: `_private_directory` guards what is in it.
    return _absolute(environment, "TMPDIR") or Path("/tmp")  # noqa: S108


def default_state_directory(environment: Mapping[str, str], home: Path) -> Path:
    """Find the folder of the daemon's state; it need not exist yet.

    Args:
        environment: Where ``$STATE_DIRECTORY`` (systemd's; its first entry) and
            ``$XDG_STATE_HOME`` are looked up.
        home: The user's home, for ``~/.local/state/edge-runtime`` when neither is set.
    """
    given = _from_systemd(environment, "STATE_DIRECTORY")
    if given is not None:
        return given
    base = _absolute(environment, "XDG_STATE_HOME")
    return (base or home / ".local" / "state") / "edge-runtime"


def state_directory(given: str, environment: Mapping[str, str]) -> Path:
    """Say where the daemon keeps its state; it need not exist yet.

    Args:
        given: ``state_dir`` of the configuration; empty: as ``default_state_directory`` says.
        environment: Where the folders' variables are looked up.
    """
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - pathlib's fails where there is none
    return Path(given) if given else default_state_directory(environment, home)


def has_releases(state: Path) -> bool:
    """Tell whether anything was ever released on this device.

    Args:
        state: The state directory.
    """
    return (state / JOURNAL_NAME).exists()


def client_path(environment: Mapping[str, str], name: str) -> Path:
    """Find a daemon's socket: this user's, else the system's.

    Args:
        environment: Where the variables are looked up.
        name: ``RUNTIME_SOCKET_NAME`` or ``ADMIN_SOCKET_NAME``.

    Raises:
        SocketError: The default folder is not private; see ``default_socket_directory``.
    """
    # RUNTIME_DIRECTORY is the client's own where the client is a systemd unit itself.
    without = {key: value for key, value in environment.items() if key != "RUNTIME_DIRECTORY"}
    temporary = temporary_directory(environment)
    own = default_socket_directory(without, os.getuid(), temporary) / name
    system = SYSTEM_SOCKET_DIRECTORY / name
    return system if system.exists() and not own.exists() else own


def _from_systemd(environment: Mapping[str, str], variable: str) -> Path | None:
    """Take the first folder of the list that systemd gives a unit with several."""
    path = Path(environment.get(variable, "").partition(":")[0])
    return path if path.is_absolute() else None


def _absolute(environment: Mapping[str, str], variable: str) -> Path | None:
    """Take a folder; the XDG specification has relative ones ignored."""
    path = Path(environment.get(variable, ""))
    return path if path.is_absolute() else None


def _private_directory(path: Path, uid: int) -> Path:
    """Make a directory that only its owner can enter, or check the one that is there."""
    try:
        path.mkdir(mode=PRIVATE_MODE, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise SocketError(
            f"cannot make the socket folder {path}: {error.strerror}; set XDG_RUNTIME_DIR, or "
            "name the sockets' paths"
        ) from error
    # lstat: a symbolic link, even to a fine directory, could be turned elsewhere by its owner.
    if not stat.S_ISDIR(found.st_mode):
        problem = "is not a directory"
    elif found.st_uid != uid:
        problem = f"belongs to user {found.st_uid}, not {uid}"
    elif stat.S_IMODE(found.st_mode) != PRIVATE_MODE:
        problem = f"has mode {stat.S_IMODE(found.st_mode):04o}, not {PRIVATE_MODE:04o}"
    else:
        return path
    raise SocketError(
        f"the socket folder {path} {problem}, so others could stand in for the daemon; remove "
        "it, set XDG_RUNTIME_DIR, or name the sockets' paths"
    )
