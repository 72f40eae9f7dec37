"""Where the files of an import are: replaced as a whole, by one rename.

::

    imported      leads to one of the two:
    imported.a/   what was imported last
    imported.b/   the next import, while it is laid out and judged

To put the next one in place is to rename a symbolic link. So whatever ends the program, the name
leads to the old files or to the new ones, and all of them are there. What an import left that was
ended goes when the next one begins.
"""

import contextlib
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agent.download.disk import translated
from agent.errors import AgentError
from edge_runtime.failpoints import failpoint
from edge_runtime.private_folder import sync

_log = logging.getLogger(__name__)

_ENDS: Final = (".a", ".b")
_FOLDER_MODE: Final = 0o700


class ImportFolder:
    """The name and the two folders.

    Args:
        path: What leads to the files; its parent is made when it is needed.

    Attributes:
        path: The same.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._link = path.with_name(f".{path.name}.new")
        self._one, self._other = (path.with_name(path.name + end) for end in _ENDS)

    @property
    def spare(self) -> Path:
        """The folder to which nothing leads: the next import's place."""
        return self._other if self._current() == self._one else self._one

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep others from importing for the length of a block.

        Raises:
            AgentError: Somebody imports just now.
            StateError: The disk fails.
        """
        with translated(self.path):
            self.path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            descriptor = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise AgentError(
                    f"something is imported into {self.path} just now; try again when it is done"
                ) from error
            with translated(self.path):
                self._adopt_folder()
            yield
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        """Remove what is not in place.

        Raises:
            StateError: The disk fails.
        """
        with translated(self.path):
            self._link.unlink(missing_ok=True)
            _remove(self.spare)

    @contextlib.contextmanager
    def replaced(self) -> Iterator[None]:
        """Put the spare folder in place: for good if the block ends well, else the old one is back.

        Raises:
            StateError: The disk fails; what was in place still is.
        """
        old, new = self._current(), self.spare
        with translated(self.path):
            self._lead_to(new)
        try:
            with translated(self.path):
                failpoint("agent.import.placed")
            yield
        except BaseException:
            try:
                self._lead_to(old)
            except OSError as error:
                _log.error("%s stays, though nobody believes in it yet: %s", new, error)
            raise
        if old is not None:
            with contextlib.suppress(OSError):  # else with the next import
                shutil.rmtree(old)

    def _adopt_folder(self) -> None:
        """Make one of the two of a folder that has the name itself, as an old program left it."""
        if self.path.is_symlink() or not self.path.is_dir():
            return
        _remove(self._one)
        self.path.rename(self._one)
        self._lead_to(self._one)

    def _current(self) -> Path | None:
        """Give the folder that is in place; ``None``: there is none."""
        with contextlib.suppress(OSError):
            leads_to = os.readlink(self.path)  # noqa: PTH115 - a name, not a path
            for folder in (self._one, self._other):
                if leads_to == folder.name:
                    return folder
        return None

    def _lead_to(self, folder: Path | None) -> None:
        if folder is None:
            self.path.unlink(missing_ok=True)
        else:
            self._link.unlink(missing_ok=True)
            self._link.symlink_to(folder.name)
            self._link.replace(self.path)
        sync(self.path.parent)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
