"""The cache's folder: private, locked for one daemon, with a corner for broken files."""

import fcntl
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from edge_runtime.cache.schema import DATABASE, DEBT, LOCK, SIDES

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
QUARANTINED_MAX: Final = 2  # broken files that are kept for whoever wants to know
MIGRATION_S: Final = 120.0
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_BROKEN: Final = ".broken-"


class FolderError(OSError):
    """The folder cannot be used; the message says why."""


class InUseError(FolderError):
    """Another daemon uses it."""


class Folder:
    """Where the cache is kept.

    Args:
        path: The folder; made when it is first used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    @property
    def database(self) -> Path:
        """The file."""
        return self.path / DATABASE

    def take(self) -> None:
        """Make the folder and the file if need be, and keep every other daemon out.

        Raises:
            InUseError: Another daemon is in.
            OSError: It cannot be made, or is not this user's alone.
        """
        self.path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        above = self.path.parent.stat().st_mode
        if above & _OTHERS_WRITE and not above & stat.S_ISVTX:
            # They could put a folder with answers of their own in the place of this one.
            raise FolderError(f"others may write to {self.path.parent}")
        found = self.path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise FolderError(f"{self.path} is not a folder of this user's")
        if stat.S_IMODE(found.st_mode) != FOLDER_MODE:
            self.path.chmod(FOLDER_MODE)  # it was ours alone to widen
        if self._lock is None:
            self._lock = _locked(self.path / LOCK)
        os.close(_opened(self.database))

    def release(self) -> None:
        """Let others in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def migrate(self) -> None:
        """Bring an older file up to date, in a process of its own.

        Raises:
            FolderError: The process failed; the message has its last line.
        """
        command = [sys.executable, "-m", "edge_runtime.cache.migrations", str(self.database)]
        try:
            done = subprocess.run(  # noqa: S603 - our own module on our own file
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=MIGRATION_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise FolderError(f"the migration took longer than {MIGRATION_S:g} s") from error
        if done.returncode:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise FolderError(f"the migration failed: {lines[-1] if lines else done.returncode}")

    def quarantine(self) -> None:
        """Put the file aside; only the latest few of those are kept.

        Raises:
            OSError: It cannot be renamed.
        """
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        self.remove_sides()
        self.database.rename(self.database.with_name(f"{DATABASE}{_BROKEN}{now}"))
        for old in self.quarantined()[:-QUARANTINED_MAX]:
            old.unlink(missing_ok=True)
        os.close(_opened(self.database))

    def quarantined(self) -> list[Path]:
        """List the broken files, the oldest first."""
        return sorted(self.path.glob(f"{DATABASE}{_BROKEN}*"))

    def remove_sides(self) -> None:
        """Remove what SQLite put beside the file.

        Raises:
            OSError: It cannot be removed.
        """
        for side in SIDES:
            # What was not yet in the file belongs to it; alone it is no use to anybody.
            Path(f"{self.database}{side}").unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the file and everything beside it; only for who has taken the folder.

        Raises:
            OSError: It cannot be removed.
        """
        for side in ("", *SIDES):
            Path(f"{self.database}{side}").unlink(missing_ok=True)
        for old in self.quarantined():
            old.unlink(missing_ok=True)
        (self.path / DEBT).unlink(missing_ok=True)  # last: until here it was owed


def _locked(path: Path) -> int:
    lock = _opened(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if isinstance(error, BlockingIOError):
            raise InUseError(f"another daemon uses {path.parent}") from error
        raise
    return lock


def _opened(path: Path) -> int:
    """Open a file that is this user's alone, an empty one if there is none."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
