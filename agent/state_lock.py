"""One agent at a time on a state folder."""

import fcntl
import os
from pathlib import Path
from typing import Final

from agent.errors import ConfigError, StateError

LOCK: Final = "agent.lock"


def lock_state(state: Path) -> int:
    """Keep a second agent out of a state folder.

    Returns:
        A descriptor; closing it lets others in.

    Raises:
        ConfigError: Another agent has it.
        StateError: The disk refused.
    """
    path = state / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateError(f"cannot open {path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigError(
            f"another edge-agent uses {state}: ask it (`edge-agent status`), or stop it first"
        ) from error
    return descriptor
