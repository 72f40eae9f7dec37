"""Takes versions out of the store, frees what nobody needs, and cleans up after a crash."""

import fcntl
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from edge_runtime.failpoints import failpoint
from edge_runtime.private_folder import PRIVATE_MODE
from edge_runtime.store.durable import FileLayer
from edge_runtime.store.layout import FILE_MODE, VERSION_MODE, Layout

_log = logging.getLogger(__name__)

_LAST: Final = 1
"""Names of a file that has no other."""


def remove_version(layer: FileLayer, layout: Layout, folder: Path) -> int:
    """Take a version out of sight for good, then free its space.

    Args:
        layer: What changes the disk.
        layout: Of the store.
        folder: Of the version.

    Returns:
        Bytes that were freed; its blobs are still there.

    Raises:
        OSError: The disk refuses it; the version is there as a whole, or out of sight.
    """
    gone = layout.gone()
    # Whoever is not root may move only folders that he may write to.
    layer.change_mode(folder, PRIVATE_MODE)
    try:
        layer.rename(folder, gone)
    except OSError:
        with suppress(OSError):
            layer.change_mode(folder, VERSION_MODE)
        raise
    # Before anything in it goes: a power cut may bring the version back, and then as a whole.
    layer.sync(folder.parent)
    failpoint("store.collect")
    return remove_tree(layer, gone)


def remove_tree(layer: FileLayer, folder: Path) -> int:
    """Remove a folder with all that is in it; links in it are not followed.

    Returns:
        Bytes that were freed.

    Raises:
        OSError: The disk refuses it; some of it may be left.
    """
    freed_bytes = 0
    layer.change_mode(folder, PRIVATE_MODE)
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = folder / entry.name
        if entry.is_dir(follow_symlinks=False):
            freed_bytes += remove_tree(layer, path)
        else:
            freed_bytes += _freed_bytes(entry.stat(follow_symlinks=False))
            layer.unlink(path)
    layer.remove_folder(folder)
    return freed_bytes


def drop_orphans(layer: FileLayer, layout: Layout) -> int:
    """Remove the blobs that no version has.

    Returns:
        Bytes that were freed.

    Raises:
        OSError: The disk refuses it.
    """
    freed_bytes = 0
    for path in _inside(layout.blobs):
        with suppress(FileNotFoundError):  # somebody else has removed it
            found = path.lstat()
            # Whoever links it between the look and the removal has a name of his own by then.
            if found.st_nlink <= _LAST:
                layer.unlink(path)
                freed_bytes += found.st_size
    return freed_bytes


def sweep(layer: FileLayer, layout: Layout) -> int:
    """Remove what was being installed or removed when its maker died, and seal what is there.

    Returns:
        Bytes that were freed.

    Raises:
        OSError: The disk refuses it; some of it may be left.
    """
    freed_bytes = 0
    problem: OSError | None = None
    settle(layer, layout)
    for path in _inside(layout.incoming):
        try:
            if not stat.S_ISDIR(path.lstat().st_mode):
                layer.unlink(path)  # a new signature
                continue
            with _unless_alive(path) as is_dead:
                if is_dead:
                    _log.info("the store removes what was left of %s", path.name)
                    freed_bytes += remove_tree(layer, path)
        except FileNotFoundError:  # somebody else has removed it
            continue
        except OSError as error:  # one that cannot be removed must not keep the others
            problem = error
    freed_bytes += drop_orphans(layer, layout)
    for _, _, folder in layout.installed():
        seal(layer, folder)
    for model in _inside(layout.models):
        with suppress(OSError):  # versions are in it
            layer.remove_folder(model)
    if problem is not None:
        raise problem
    return freed_bytes


def settle(layer: FileLayer, layout: Layout) -> None:
    """Make the places of all versions durable: who died may not have come to it.

    Raises:
        OSError: The disk refuses it.
    """
    for folder in _inside(layout.models):
        if stat.S_ISDIR(folder.lstat().st_mode):
            layer.sync(folder)  # its own name was made durable before anything came into it


def seal(layer: FileLayer, folder: Path) -> None:
    """Take the right to write from a folder and all that is in it, where it is still there.

    Raises:
        OSError: The disk refuses it.
    """
    for path in _inside(folder):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            seal(layer, path)
        elif stat.S_ISREG(mode) and stat.S_IMODE(mode) != FILE_MODE:
            layer.change_mode(path, FILE_MODE)
    if stat.S_IMODE(folder.lstat().st_mode) != VERSION_MODE:
        layer.change_mode(folder, VERSION_MODE)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep others from sweeping a folder away for as long as this process lives and needs it.

    Raises:
        OSError: It cannot be opened.
    """
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextmanager
def _unless_alive(path: Path) -> Iterator[bool]:
    """Claim a folder, if nobody has; say whether."""
    lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(lock)


def _inside(folder: Path) -> list[Path]:
    """List what is in a folder, in order; nothing if it is missing."""
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def _freed_bytes(found: os.stat_result) -> int:
    return found.st_size if found.st_nlink <= _LAST else 0
