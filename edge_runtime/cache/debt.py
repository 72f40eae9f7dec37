"""What was to be cleared and could not be yet: noted beside the file, so that a crash forgets none.

The note is on the disk before anybody is told that a clear failed and will be tried again; and it
is read before the file is, so that nothing of what it names is ever given again.
"""

import os
from pathlib import Path
from typing import Final

import msgspec

from edge_runtime.cache.folder import Folder, InUseError
from edge_runtime.cache.schema import DEBT
from edge_runtime.cache.subject import Identity

_MODE: Final = 0o600


class _Note(msgspec.Struct):
    """The file's content."""

    everything: bool = False
    identities: set[Identity] = msgspec.field(default_factory=set)


class Debt:
    """What is owed.

    Args:
        folder: Where the note is kept.

    Attributes:
        problem: Why it could not be noted; empty: it was.
        everything: Whether all of it is to be cleared.
        identities: Versions whose answers are to be forgotten; with an empty number: every
            version of the model.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._path = folder.path / DEBT
        self._noted: _Note | None = None  # as on the disk; ``None``: nobody has looked
        self.everything = False
        self.identities: set[Identity] = set()
        self.problem = ""

    def note(self) -> None:
        """Write down what is owed, if the folder is this daemon's; a crash must not forget it."""
        self.problem = ""
        try:
            self._folder.take()
            self._save()
        except InUseError:
            return  # what is not ours is not ours to clear
        except OSError as error:
            self.problem = f"nor can that be noted, so a crash would forget it: {error}"

    def load(self) -> None:
        """Take over what an earlier daemon owed; the caller has taken the folder.

        Raises:
            OSError: The note cannot be read, so nobody knows what may be given.
        """
        if self._noted is not None:
            return
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=_Note)
        except FileNotFoundError:
            found = _Note()
        except (msgspec.MsgspecError, UnicodeDecodeError):
            found = _Note(everything=True)  # something was to go, and nobody can say what
        self.everything |= found.everything
        self.identities |= found.identities
        self._noted = found

    def _save(self) -> None:
        """Have the note say what is owed now; without a debt there is none."""
        self.load()
        now = _Note(self.everything, self.identities.copy())
        if now == self._noted:
            return
        if self.everything or self.identities:
            new = self._path.with_suffix(".new")
            new.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            with os.fdopen(os.open(new, flags, _MODE), "wb") as file:
                file.write(msgspec.json.encode(now))
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        else:
            self._path.unlink(missing_ok=True)
        self._noted = now
        _sync(self._path.parent)

    def drop(self) -> None:
        """Owe nothing any more: the folder is another daemon's, or all of it was removed."""
        self.everything = False
        self.identities.clear()
        self._noted = None


def _sync(folder: Path) -> None:
    """Make the names in a folder as durable as what they name."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
