"""Chunk indexes of files that this device has, kept for the day when a newer one comes.

They were verified when they came. Nothing depends on what is read here later: a chunk that is
copied by it is believed only for its digest in the new, signed index.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Final

from agent.download.disk import translated
from fleet.documents.chunks import INDEX_BYTES_MAX, ChunkIndex, read_chunks
from fleet.documents.errors import DocumentError

SUFFIX: Final = ".chunks"
_FOLDER_MODE: Final = 0o700


class ChunkIndexes:
    """A folder of chunk indexes, by the digest of the file that each is of.

    Args:
        folder: Made if it is missing.

    Raises:
        DiskFullError: Of every method: the disk is full.
        StateError: Of every method: the disk fails.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with translated(folder):
            folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)

    def of(self, file_sha256: str) -> ChunkIndex | None:
        """Read the index of a file; ``None``: there is none, or it cannot be understood."""
        path = self._path(file_sha256)
        try:
            with path.open("rb") as file:
                index = read_chunks(file.read(INDEX_BYTES_MAX + 1), str(path))
        except (OSError, DocumentError):
            return None
        return index if index.file_sha256 == file_sha256 else None

    def keep(self, file_sha256: str, data: bytes) -> None:
        """Keep an index.

        Args:
            file_sha256: Of the file that it is of.
            data: Its exact bytes.
        """
        path = self._path(file_sha256)
        aside = path.with_name(f"{path.name}.new")
        with translated(path):
            try:
                aside.write_bytes(data)
                aside.replace(path)
            except OSError:
                aside.unlink(missing_ok=True)
                raise

    def sweep(self, keep: Collection[str]) -> None:
        """Remove all but those of these files, by SHA-256."""
        with translated(self._folder):
            for path in self._folder.iterdir():
                if path.name.partition(".")[0] not in keep:
                    path.unlink(missing_ok=True)

    def _path(self, file_sha256: str) -> Path:
        return self._folder / f"{file_sha256}{SUFFIX}"
