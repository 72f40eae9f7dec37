"""A folder of the daemon that it can do without: private, changed atomically, or left alone."""

import contextlib
import logging
import os
import stat
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)

PRIVATE_MODE: Final = 0o700
GONE: Final = ".gone-"
"""Begins the names of what is being removed."""

_ROOT: Final = 0
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


class PrivateFolder:
    """A folder in the state directory. Whatever fails there never fails the daemon.

    Args:
        path: The folder; ``None``: there is none, and nothing is kept.
        without: What it means to do without, for the warning.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path | None, without: str) -> None:
        self.path = path or Path()
        self._without = without
        self._is_safe = self._is_writable = path is not None

    def is_safe(self) -> bool:
        """Make the folder if it is missing, and tell whether what lies in it is ours."""
        if not self._is_safe:
            return False
        try:
            self.path.parent.mkdir(mode=PRIVATE_MODE, parents=True, exist_ok=True)
            self.path.mkdir(mode=PRIVATE_MODE, exist_ok=True)
            # The state directory may be a link: systemd makes one for a dynamic user.
            problem = _foreign(self.path, self.path.lstat()) or _foreign(
                self.path.parent, self.path.parent.stat(), sticky=True
            )
        except OSError as error:
            problem = str(error)
        if problem:
            self.cannot_write(problem)
            self._is_safe = False
        return self._is_safe

    def is_writable(self) -> bool:
        """Tell whether it is safe, and writing to it has not failed yet."""
        return self._is_writable and self.is_safe()

    def cannot_write(self, problem: str) -> None:
        """Write nothing more until the daemon starts again; say so once."""
        if self._is_writable:
            self._is_writable = False
            _log.warning("%s; %s until the daemon is started again", problem, self._without)

    def temporary(self, prefix: str) -> Path:
        """Make a folder with a name of its own inside.

        Raises:
            OSError: It cannot be made.
        """
        path = self.path / f"{prefix}{os.getpid()}-{os.urandom(8).hex()}"
        path.mkdir(mode=PRIVATE_MODE)
        return path

    def read(self, name: str) -> bytes:
        """Read a small file; empty where there is none.

        Args:
            name: Path inside.
        """
        if not self.is_safe():
            return b""
        try:
            return (self.path / name).read_bytes()
        except OSError:
            return b""

    def write(self, name: str, data: bytes) -> None:
        """Put a small file in place, whole or not at all. It may be lost with the power.

        Args:
            name: Path inside; its folder is made if it is missing.
            data: The content.
        """
        if not self.is_writable():
            return
        path = self.path / name
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(mode=PRIVATE_MODE, exist_ok=True)
            partial.write_bytes(data)
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            self.cannot_write(f"cannot write {path}: {error.strerror}")

    def remove(self, name: str) -> None:
        """Take a folder away at once for everybody who looks, then free its space.

        Args:
            name: Path inside; may be missing.
        """
        try:
            gone = self.temporary(GONE)
        except OSError as error:
            self.cannot_write(f"cannot remove {self.path / name}: {error.strerror}")
            return
        with contextlib.suppress(OSError):  # somebody else has removed it
            (self.path / name).rename(gone / "it")
        remove_tree(gone)


def remove_tree(path: Path) -> None:
    """Remove a folder with all that is in it, as far as that is possible."""
    from shutil import rmtree  # noqa: PLC0415 - rarely needed, and it imports every compressor

    rmtree(path, ignore_errors=True)


def sync(path: Path) -> None:
    """Write a file, or the names in a folder, through to the disk.

    Raises:
        OSError: The disk is full, or fails.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _foreign(path: Path, found: os.stat_result, *, sticky: bool = False) -> str:
    """Say why others could plant something there, which would then be run; empty: they cannot.

    Args:
        path: A folder.
        found: What it is.
        sticky: Whether it is enough that others cannot rename what is ours.
    """
    if not stat.S_ISDIR(found.st_mode):
        return f"{path} is not a folder"
    if found.st_uid not in {os.geteuid(), _ROOT}:
        return f"{path} belongs to user {found.st_uid}"
    if found.st_mode & _OTHERS_WRITE and not (sticky and found.st_mode & stat.S_ISVTX):
        return f"others may write to {path} (mode {stat.S_IMODE(found.st_mode):04o})"
    return ""
