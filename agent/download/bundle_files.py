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


@dataclass(frozen=True, slots=True)
class Prepared:
    """A file that is about to be brought.

    Attributes:
        artifact: The file.
        chunks: Its chunk index; ``None``: there is none of use.
        older: Those of older files.
        cost_bytes: What it costs on the network if all goes well.
    """

    artifact: Artifact
    chunks: ChunkIndex | None
    older: tuple[ChunkIndex, ...]
    cost_bytes: int


class BundleFiles:
    """Brings files of releases.

    Args:
        downloads: Brings artifacts.
        indexes: Chunk indexes that are kept here.
    """

    def __init__(self, downloads: Downloads, indexes: ChunkIndexes) -> None:
        self._downloads = downloads
        self._indexes = indexes

    def prepare(
        self,
        artifact: Artifact,
        index: Artifact | None,
        older: Sequence[OlderFile],
        order: Order,
    ) -> Prepared:
        """Bring the chunk indexes that a file needs, and find out what it will cost.

        Args:
            artifact: The file.
            index: The artifact of its chunk index; ``None``: it has none.
            older: Files of versions that are here, the likeliest first.
            order: For whom.

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
        cost = self._downloads.cost_bytes(artifact, chunks, olds)
        return Prepared(artifact, chunks, tuple(olds), cost)

    def fetch(
        self,
        artifact: Artifact,
        index: Artifact | None,
        older: Sequence[OlderFile],
        order: Order,
    ) -> Path:
        """Bring a file, from older ones as far as possible; see ``prepare``.

        Returns:
            The file, verified and durable.

        Raises:
            AgentError: See ``Downloads.fetch``.
        """
        return self.bring(self.prepare(artifact, index, older, order), order)

    def bring(self, prepared: Prepared, order: Order) -> Path:
        """Bring a file that was prepared.

        Args:
            prepared: The file, and what is known of its chunks.
            order: For whom.

        Returns:
            The file, verified and durable.

        Raises:
            AgentError: See ``Downloads.fetch``.
        """
        return self._downloads.fetch(
            prepared.artifact, order, chunks=prepared.chunks, older=prepared.older
        )

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
