"""The folder of signed metadata: replaced as a whole or not at all, and durable.

::

    tuf/        what is believed
    tuf.new/    a refresh works here, on a copy
    tuf.old/    what was believed, for a moment

A refresh that ends well renames ``tuf`` to ``tuf.old`` and ``tuf.new`` to ``tuf``. After a power
cut between the two, ``tuf.old`` is put back. One that ends badly leaves nothing behind, except new
roots that the old root signed: they are how a fleet gets rid of a stolen key, and nobody may be
able to keep a device from knowing them by breaking what comes after.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agent.errors import StateError
from edge_runtime.failpoints import failpoint

FOLDER_MODE: Final = 0o700
ROOTS: Final = "root_history"
ROOT_LINK: Final = "root.json"


class AdoptedError(StateError):
    """The disk refused when the new metadata was in its place already: it is believed."""


class MetadataFolder:
    """The folder and its two neighbours; one process at a time.

    Args:
        path: Of the folder; its parent must be there.

    Attributes:
        path: The same.
        work: Where a refresh works.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.work = path.with_name(path.name + ".new")
        self._old = path.with_name(path.name + ".old")

    def begin(self, *, empty: bool = False) -> Path:
        """Make the work folder: a copy of what is believed.

        Args:
            empty: Begin without it, since it cannot be read.

        Returns:
            The work folder.

        Raises:
            StateError: The disk refused.
        """
        try:
            self._recover()
            _remove(self.work)
            if self.path.is_dir() and not empty:
                shutil.copytree(self.path, self.work, symlinks=True)
            else:
                self.work.mkdir(FOLDER_MODE)
        except OSError as error:
            raise StateError(f"cannot make {self.work}: {error}") from error
        return self.work

    @contextlib.contextmanager
    def copied(self) -> Iterator[Path | None]:
        """Copy what is believed for the length of a block, to be read: another process may refresh.

        Returns:
            The copy; ``None``: nothing is believed.

        Raises:
            StateError: The disk refused.
        """
        with contextlib.ExitStack() as cleaning:
            try:
                folder = Path(cleaning.enter_context(tempfile.TemporaryDirectory(prefix="tuf-")))
                found = any(_copied(path, folder / "copy") for path in (self.path, self._old) * 2)
            except OSError as error:
                raise StateError(f"cannot read {self.path}: {error}") from error
            yield folder / "copy" if found else None

    def adopt(self) -> bool:
        """Believe what is in the work folder from now on; durable when this returns.

        Returns:
            Whether that is anything else than before.

        Raises:
            AdoptedError: The disk refused when it was in place: it is believed, and a power cut
                may bring back what was there before.
            StateError: The disk refused; what was believed before still is.
        """
        is_in_place = False
        try:
            if _content(self.work) == _content(self.path):
                _remove(self.work)
                return False
            failpoint("agent.trust.verified")
            _sync_tree(self.work)
            failpoint("agent.trust.synced")
            if self.path.exists():
                self.path.rename(self._old)
            failpoint("agent.trust.moved")
            self.work.rename(self.path)
            is_in_place = True
            failpoint("agent.trust.renamed")
            _sync(self.path.parent)
            _remove(self._old)
        except OSError as error:
            self._recover_quietly()
            kind = AdoptedError if is_in_place else StateError
            raise kind(f"cannot keep the metadata in {self.path}: {error}") from error
        return True

    def discard(self, shipped_root: int) -> bool:
        """Throw the work folder away, but keep new roots.

        Args:
            shipped_root: Version of the root that came with the device; not a new one.

        Returns:
            Whether there were new roots.

        Raises:
            StateError: A new root cannot be kept.
        """
        try:
            any_new = self._keep_roots(shipped_root)
            _remove(self.work)
        except OSError as error:
            raise StateError(f"cannot keep a new root in {self.path}: {error}") from error
        return any_new

    def drop(self) -> None:
        """Throw the work folder away, whole; what cannot be is, when the next refresh begins."""
        with contextlib.suppress(OSError):
            _remove(self.work)

    def _keep_roots(self, shipped_root: int) -> bool:
        known = max([shipped_root, *_root_versions(self.path)])
        new = [version for version in _root_versions(self.work) if version > known]
        if not new:
            return False
        folder = self.path / ROOTS
        folder.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
        for version in sorted(new):
            name = f"{version}.root.json"
            data = (self.work / ROOTS / name).read_bytes()
            _write(folder / name, data)
        _sync(folder)
        failpoint("agent.trust.root")
        link = self.path / (ROOT_LINK + ".new")
        link.unlink(missing_ok=True)
        link.symlink_to(f"{ROOTS}/{max(new)}.root.json")
        link.replace(self.path / ROOT_LINK)
        _sync(self.path)
        return True

    def _recover(self) -> None:
        if self._old.exists():
            if self.path.exists():
                _remove(self._old)
            else:
                self._old.rename(self.path)

    def _recover_quietly(self) -> None:
        with contextlib.suppress(OSError):  # the next refresh tries again, and says so
            self._recover()


def _copied(folder: Path, copy: Path) -> bool:
    _remove(copy)
    try:
        shutil.copytree(folder, copy, symlinks=True)
    except (FileNotFoundError, NotADirectoryError, shutil.Error):
        return False  # not there, or it was replaced just now
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _root_versions(folder: Path) -> list[int]:
    roots = folder / ROOTS
    if not roots.is_dir():
        return []
    names = [path.name.partition(".") for path in roots.iterdir()]
    return [int(first) for first, _, rest in names if first.isdigit() and rest == "root.json"]


def _content(folder: Path) -> dict[str, bytes] | None:
    if not folder.is_dir():
        return None
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(data)
    _sync(temporary)
    temporary.replace(path)


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if not path.is_symlink():
            _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
