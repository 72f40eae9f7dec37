"""What this run of the daemon has loaded, in a file that tells the next run if this one dies.

The file is for a daemon that dies, not for a device that loses power: what was written when a
process died is in the kernel's memory and is not lost with it, so nothing is synced. It is written
when a version is about to be loaded, on the thread that loads it, and never when a request comes.
"""

import contextlib
import logging
import os
import threading
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

_log = logging.getLogger(__name__)

RUN: Final = "runtime.run"
"""The file, in the state directory."""

_BYTES_MAX: Final = 1_048_576
_FILE_MODE: Final = 0o600
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC

Version = tuple[str, int]
"""A model's name and a version of it."""


class Run(NamedTuple):
    """What a run has told.

    Attributes:
        boot_id: In which boot of the device.
        began_s: When, on the monotonic clock, which all processes of a boot share, in seconds.
        loaded: Every version whose load began, whatever became of it.
        awake_s: The awake clock when it began, in seconds; ``None``: it had not read that yet.
    """

    boot_id: str
    began_s: float
    loaded: frozenset[Version] = frozenset()
    awake_s: float | None = None


class RunRecord:
    """Notes what this run loads; any thread may call.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._loaded: set[Version] = set()
        self._file = -1

    def begin(self, boot_id: str, now_s: float) -> Run | None:
        """Read what the last run has told, and begin anew.

        Args:
            boot_id: Of this boot.
            now_s: The monotonic clock, in seconds.

        Returns:
            The last run; ``None``: it is not known.
        """
        last = read(self._path)
        file = -1
        try:  # without the lock: a disk that hangs here must not hold up what is loaded
            file = os.open(self._path, _FLAGS, _FILE_MODE)
            _write(file, boot_id, now_s)
            with self._lock:
                for name, version in sorted(self._loaded):
                    _write(file, name, version)
                self._file = file
        except OSError as error:
            _forget(file, error)
        return last

    def loading(self, name: str, version: int) -> None:
        """Note that a version is about to be loaded.

        Args:
            name: The model.
            version: Its version.
        """
        with self._lock:
            if (name, version) in self._loaded:
                return
            self._loaded.add((name, version))
            if self._file < 0:
                return
            try:
                _write(self._file, name, version)
            except OSError as error:
                _forget(self._file, error)
                self._file = -1

    def awake(self, awake_s: float) -> None:
        """Note what the awake clock said when this run began: an idle daemon stores it nowhere.

        Args:
            awake_s: The awake clock, in seconds.
        """
        with self._lock:
            if self._file < 0:
                return
            try:
                _write(self._file, awake_s)
            except OSError as error:
                _forget(self._file, error)
                self._file = -1

    def end(self) -> None:
        """Write nothing more."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
            self._file = -1


def read(path: Path) -> Run | None:
    """Read what a run has told.

    Args:
        path: The file.

    Returns:
        The run; ``None``: there is no such file, or it makes no sense.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_BYTES_MAX + 1)
    except OSError:
        return None
    first, *rest = data[: data.rfind(b"\n") + 1].splitlines() or [b""]
    if len(data) > _BYTES_MAX:
        return None
    try:
        boot_id, began_s = msgspec.json.decode(first, type=tuple[str, float])
        lines = [msgspec.json.decode(line, type=tuple[str | int | float, ...]) for line in rest]
        awake = [msgspec.convert(line, tuple[float])[0] for line in lines if len(line) == 1]
        loaded = frozenset(msgspec.convert(line, Version) for line in lines if len(line) != 1)
    except msgspec.MsgspecError:
        return None
    return Run(boot_id, began_s, loaded, max(awake, default=None))


def _write(file: int, *values: str | float) -> None:
    line = msgspec.json.encode(values) + b"\n"
    if os.write(file, line) != len(line):
        raise OSError("the disk took half a line")


def _forget(file: int, error: OSError) -> None:
    """Leave an empty file: half a record would clear whoever is not in it."""
    _log.warning("if this daemon dies, nobody can tell which version was in memory: %s", error)
    if file >= 0:
        with contextlib.suppress(OSError):
            os.ftruncate(file, 0)
        os.close(file)
