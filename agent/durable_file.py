"""Small private files that are replaced or removed as a whole, and survive a power cut."""

import contextlib
import os
from pathlib import Path
from typing import Final

from agent.errors import StateError

_MODE: Final = 0o600


def aside_of(path: Path) -> Path:
    """Say where a new file is written before it takes its place: a kill may leave it there."""
    return path.with_name(f".{path.name}.new")


def replace_file(path: Path, data: bytes) -> None:
    """Put a private file at its place, durably: the old one or the new one, never a part.

    Raises:
        StateError: The disk refused; the old one is still there.
    """
    aside = aside_of(path)
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _MODE)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor with its mode
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        _sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise StateError(f"cannot write {path}: {error.strerror}") from error


def remove_file(path: Path) -> None:
    """Remove a file, durably; one that is not there is no trouble.

    Raises:
        StateError: The disk refused; it may still be there.
    """
    try:
        path.unlink(missing_ok=True)
        _sync(path.parent)
    except OSError as error:
        raise StateError(f"cannot remove {path}: {error.strerror}") from error


def _sync(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
