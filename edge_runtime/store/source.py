"""Opens a bundle that comes in: a folder or a tar file, by its path or by a descriptor."""

import os
import stat
from pathlib import Path

from edge_runtime.bundle import unreadable
from edge_runtime.errors import ModelLoadError
from edge_runtime.store.archive import ArchiveSource
from edge_runtime.store.folder import FolderSource
from edge_runtime.store.reading import BundleSource, SourceLimits


def source_of(
    where: Path | int, limits: SourceLimits, *, is_waited_for: bool = False
) -> BundleSource:
    """Open a bundle: a folder, or a tar file.

    Args:
        where: A path, or a descriptor of a folder, a file, a pipe or a socket. Links on the way to
            the bundle are followed, those in it are refused. A descriptor stays the caller's, and
            so does the place where a file is read.
        limits: What it may ask of its reader.
        is_waited_for: Whether a path may lead to a pipe: somebody waits, and can press Ctrl-C.

    Returns:
        The bundle; the caller closes it.

    Raises:
        ModelLoadError: It cannot be opened, or is neither a folder nor a file.
    """
    shown = str(where) if isinstance(where, Path) else "the bundle that was handed over"
    try:
        if isinstance(where, Path):
            # A pipe must not hold up whoever opens it.
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
            descriptor = os.open(where, flags)
        else:
            descriptor = os.dup(where)
    except (OSError, ValueError) as error:
        raise ModelLoadError(unreadable(shown, error)) from error
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):
        return FolderSource(descriptor, shown, limits)
    # Whoever hands a pipe over writes to it; one that is only named may never end.
    may_stream = is_waited_for or not isinstance(where, Path)
    is_stream = may_stream and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))
    if stat.S_ISREG(mode) or is_stream:
        return ArchiveSource(descriptor, shown, limits)
    os.close(descriptor)
    raise ModelLoadError(f"{shown} is neither a folder nor a tar file; name a bundle")
