"""Room on the disk, and what its errors mean."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agent.errors import DiskFullError, StateError

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def free_bytes(folder: Path) -> int:
    """Tell how many bytes the disk of a folder has for users who are not root.

    Raises:
        StateError: It cannot be asked.
    """
    try:
        found = os.statvfs(folder)
    except OSError as error:
        raise StateError(f"cannot look at the disk of {folder}: {error.strerror}") from error
    return found.f_bavail * found.f_frsize


def preflight(folder: Path, needed_bytes: int, reserve_bytes: int) -> None:
    """Make sure that a disk has room, beside what must stay free.

    Args:
        folder: A folder on it.
        needed_bytes: What is about to be written, in bytes.
        reserve_bytes: What must be free afterwards, in bytes.

    Raises:
        DiskFullError: It has not; says how much is missing.
        StateError: It cannot be asked.
    """
    free = free_bytes(folder)
    missing = needed_bytes + reserve_bytes - free
    if missing > 0:
        raise DiskFullError(
            f"{needed_bytes} bytes do not fit on the disk of {folder}: {free} are free, and "
            f"{reserve_bytes} must stay free; make room for {missing} more"
        )


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Tell what the disk says about a file.

    Raises:
        DiskFullError: The disk, or the user's part of it, is full.
        StateError: It fails otherwise.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise DiskFullError(f"cannot write {path}: {reason}; make room on the disk") from error
        raise StateError(f"cannot use {path}: {reason}; check the disk") from error
