"""Whether a command paused updates, and until when; kept over restarts."""

import contextlib
import threading
from pathlib import Path

import msgspec

from agent.durable_file import replace_file

FILE = "pause.json"


class Paused(msgspec.Struct, frozen=True):
    """What is stored.

    Attributes:
        until_s: Seconds since 1970.
    """

    until_s: float = 0.0


class Pause:
    """Any thread may ask and change it.

    Args:
        state: The agent's folder.
    """

    def __init__(self, state: Path) -> None:
        self._path = state / FILE
        self._lock = threading.Lock()
        self._paused = Paused()
        with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeError, RecursionError):
            self._paused = msgspec.json.decode(self._path.read_bytes(), type=Paused)

    def until_s(self) -> float:
        """Until when updates are paused, in seconds since 1970; 0: they are not."""
        with self._lock:
            return self._paused.until_s

    def set(self, until_s: float) -> None:
        """Pause updates, or go on with them: then it lies in the past.

        Raises:
            StateError: The disk refused; nothing changed.
        """
        with self._lock:
            paused = Paused(until_s)
            replace_file(self._path, msgspec.json.encode(paused))
            self._paused = paused
