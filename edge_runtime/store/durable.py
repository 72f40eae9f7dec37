"""The few operations that change the store on disk, so that a test can lose what is not durable.

What is written is durable once it is synced: a file's bytes by ``sync`` of the file, its name by
``sync`` of its folder. Until then a power cut may take either, both or neither.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol


class FileLayer(Protocol):
    """What changes the disk; every operation raises ``OSError`` if the system refuses it."""

    def make_folder(self, path: Path, mode: int) -> None:
        """Make a folder, which must not be there yet.

        Args:
            path: The folder.
            mode: Its permissions, whatever the process's umask is.
        """
        ...

    def write(self, path: Path, chunks: Iterable[bytes], mode: int) -> None:
        """Write a file that must not be there yet.

        Args:
            path: The file.
            chunks: Its content; what taking them raises is passed on.
            mode: Its permissions, whatever the process's umask is.
        """
        ...

    def sync(self, path: Path) -> None:
        """Make a file's bytes and permissions, or the names in a folder, durable."""
        ...

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name, which must not be taken."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or a folder another name, in one step; replaces a file or an empty folder."""
        ...

    def change_mode(self, path: Path, mode: int) -> None:
        """Set the permissions of a file or a folder."""
        ...

    def unlink(self, path: Path) -> None:
        """Remove one name of a file."""
        ...

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        ...

    def free_bytes(self, path: Path) -> int:
        """Tell how many bytes this process may still write beside a path."""
        ...


class Disk:
    """The real disk."""

    def make_folder(self, path: Path, mode: int) -> None:
        """See ``FileLayer``."""
        path.mkdir()
        path.chmod(mode)

    def write(self, path: Path, chunks: Iterable[bytes], mode: int) -> None:
        """See ``FileLayer``."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(path, flags, 0o600), "wb", buffering=0) as file:  # noqa: PTH123
            for chunk in chunks:
                left = memoryview(chunk)
                while left:  # a disk that becomes full takes a part before it refuses the rest
                    left = left[file.write(left) :]
            os.fchmod(file.fileno(), mode)

    def sync(self, path: Path) -> None:
        """See ``FileLayer``."""
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
            with contextlib.suppress(OSError):  # a folder, or a system that does not know it
                # Whoever reads the file next must see what the disk kept, not what was meant.
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)

    def link(self, source: Path, target: Path) -> None:
        """See ``FileLayer``."""
        os.link(source, target, follow_symlinks=False)

    def rename(self, source: Path, target: Path) -> None:
        """See ``FileLayer``."""
        source.rename(target)

    def change_mode(self, path: Path, mode: int) -> None:
        """See ``FileLayer``."""
        path.chmod(mode)

    def unlink(self, path: Path) -> None:
        """See ``FileLayer``."""
        path.unlink()

    def remove_folder(self, path: Path) -> None:
        """See ``FileLayer``."""
        path.rmdir()

    def free_bytes(self, path: Path) -> int:
        """See ``FileLayer``."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize
