"""Files that are on this disk and may have chunks of a new one: open, read-only, never believed."""

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Self

from fleet.documents.chunks import ChunkIndex


class OldFiles:
    """Old files that could be opened.

    Args:
        indexes: Their chunks, the likeliest file first.
        opened: Opens a file by its SHA-256; ``None``: it is not here.

    Attributes:
        indexes: Of those that are here.
    """

    def __init__(self, indexes: Sequence[ChunkIndex], opened: Callable[[str], int | None]) -> None:
        self.indexes: list[ChunkIndex] = []
        self._descriptors: dict[str, int] = {}
        try:
            for index in indexes:
                if index.file_sha256 not in self._descriptors:
                    descriptor = opened(index.file_sha256)
                    if descriptor is None:
                        continue
                    self._descriptors[index.file_sha256] = descriptor
                    self.indexes.append(index)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, file_sha256: str, begin: int, size: int) -> bytes:
        """Read from a file; fewer bytes, or none, where the disk does not give them.

        Args:
            file_sha256: Which.
            begin: Place of the first byte.
            size: How many.
        """
        try:
            return os.pread(self._descriptors[file_sha256], size, begin)
        except OSError:
            return b""

    def drop(self, file_sha256: str) -> None:
        """Do not use a file any more."""
        self.indexes = [one for one in self.indexes if one.file_sha256 != file_sha256]

    def close(self) -> None:
        """Let go of all."""
        for descriptor in self._descriptors.values():
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._descriptors.clear()
