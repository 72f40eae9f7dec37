"""Brings one file of a release with its chunk index, and those of the older files beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.download.downloads import Artifact, Downloads, Order
from agent.download.indexes import ChunkIndexes
from agent.download.notices import Notice, NoticeKind
from agent.errors import RefusedError
from fleet.documents.chunks import ChunkIndex, read_chunks
from fleet.documents.errors import DocumentError


@dataclass(frozen=True, slots=True)
class OlderFile:
    """A file of a version that is here.

    Attributes:
        sha256: Of its content.
        index: The artifact of its chunk index, should it not be kept here; ``None``: it has none.
    """

    sha256: str
    index: Artifact | None = None


class BundleFiles:
    """Brings files of releases.

    Args:
        downloads: Brings artifacts.
        indexes: Chunk indexes that are kept here.
    """

    def __init__(self, downloads: Downloads, indexes: ChunkIndexes) -> None:
        self._downloads = downloads
        self._indexes = indexes

    def fetch(
        self,
        artifact: Artifact,
        index: Artifact | None,
        older: Sequence[OlderFile],
        order: Order,
    ) -> Path:
        """Bring a file, from older ones as far as possible.

        Args:
            artifact: The file.
            index: The artifact of its chunk index; ``None``: it has none.
            older: Files of versions that are here, the likeliest first.
            order: For whom.

        Returns:
            The file, verified and durable.

        Raises:
            AgentError: See ``Downloads.fetch``.
        """
        chunks = self._index(artifact.sha256, index, order)
        olds: list[ChunkIndex] = []
        for file in older if chunks is not None else ():
            found = self._index(file.sha256, file.index, order)
            if found is not None:
                olds.append(found)
        if older and not olds:
            text = f"{artifact.url_path}: no chunk index tells what of it is here already"
            order.notice(Notice(NoticeKind.REUSE_FAILED, text, artifact.size))
        return self._downloads.fetch(artifact, order, chunks=chunks, older=olds)

    def _index(self, sha256: str, artifact: Artifact | None, order: Order) -> ChunkIndex | None:
        """Give the chunk index of a file, fetched if it is not kept here."""
        kept = self._indexes.of(sha256)
        if kept is not None or artifact is None:
            return kept
        try:
            path = self._downloads.fetch(artifact, order)
            data = path.read_bytes()
            found = read_chunks(data, artifact.url_path)
        except (RefusedError, DocumentError, OSError) as error:
            text = f"there is no use in the chunk index {artifact.url_path}: {error}"
            order.notice(Notice(NoticeKind.REUSE_FAILED, text))
            return None
        if found.file_sha256 != sha256:
            text = f"the chunk index {artifact.url_path} is of another file"
            order.notice(Notice(NoticeKind.REUSE_FAILED, text))
            return None
        self._indexes.keep(sha256, data)
        path.unlink(missing_ok=True)
        return found
