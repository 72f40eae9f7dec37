"""The folder ``blobs/``: artifacts by digest, whole and verified, or on their way as ``.part``.

``DIGEST`` is a whole file, ``DIGEST.part`` the beginning of one, ``DIGEST.part.tags`` what servers
said about it. A whole file is hashed again whenever it is about to be used.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from agent.download.blobs import is_file
from agent.download.disk import preflight, translated
from agent.download.entity_tags import read_tags, tags_file
from agent.download.notices import Meter, Notice, NoticeKind, Progress
from agent.download.old_files import OldFiles
from agent.download.pace import TokenBucket
from agent.download.part import Part
from agent.download.reuse import plan_of
from agent.download.sources import Sources
from agent.download.transfer import Terms, Transfer
from agent.download.wire import Web, Wire
from agent.errors import DiskFullError, Distrust, StateError, TrustError
from agent.records.budget import Budget
from agent.settings.device import Downloads as DownloadSettings
from edge_runtime.private_folder import sync
from fleet.documents.chunks import Chunk, ChunkIndex

PART: Final = ".part"
MIRROR_REST_S: Final = 600.0
"""So long a mirror that could not be reached is asked after the others only."""
_FOLDER_MODE: Final = 0o700


class Artifact(Protocol):
    """What is signed about a file; see ``agent.trust``."""

    @property
    def size(self) -> int:
        """Its bytes."""
        ...

    @property
    def sha256(self) -> str:
        """Of its content, 64 lower-case hexadecimal digits."""
        ...

    @property
    def url_path(self) -> str:
        """Below the URL of artifacts, percent-encoded."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """For whom bytes come, and who is told.

    Attributes:
        rollout: The rollout; empty: none.
        rollout_bytes_max: Most bytes of it on this device; 0: no limit.
        progress: Is told how far a file is.
        notice: Is told what the owner should know.
        cancelled: Ends the download when it is set.
    """

    rollout: str
    rollout_bytes_max: int
    progress: Callable[[Progress], None]
    notice: Callable[[Notice], None]
    cancelled: threading.Event


class Downloads:
    """Brings artifacts; one at a time, called from one thread.

    Args:
        folder: ``blobs/``; made if it is missing.
        web: Asks servers.
        base_urls: Folders of artifacts: mirrors in the order in which they are tried, and the
            repository's, whose word is the last one, at the end.
        settings: Limits.
        budget: Asked for bytes beforehand.
        have: Opens a file of the runtime's store, read-only, by its SHA-256; ``None``: not there.
        final_is_here: Whether the runtime's store, which takes a copy, is on the same disk.
    """

    def __init__(
        self,
        folder: Path,
        web: Web,
        base_urls: Sequence[str],
        *,
        settings: DownloadSettings,
        budget: Budget,
        have: Callable[[str], int | None],
        final_is_here: bool = True,
    ) -> None:
        self._folder = folder
        self._web = web
        self._base_urls = [url.rstrip("/") for url in base_urls]
        self._settings = settings
        self._budget = budget
        self._have = have
        self._final_is_here = final_is_here
        self._resting_s: dict[str, float] = {}
        self._bucket = TokenBucket(settings.bytes_per_s, time.monotonic())
        with translated(folder):
            folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)

    def blob(self, sha256: str) -> Path:
        """Name the file of a whole artifact."""
        return self._folder / sha256

    def part(self, sha256: str) -> Path:
        """Name the file of one that is on its way."""
        return self._folder / f"{sha256}{PART}"

    def preflight(self, artifacts: Iterable[Artifact]) -> None:
        """Make sure that the disk has room for what is missing of artifacts, and for a copy of all.

        Raises:
            DiskFullError: It has not.
            StateError: It cannot be asked.
        """
        needed = 0
        for artifact in artifacts:
            needed += max(0, artifact.size - self._there(artifact))
            needed += artifact.size if self._final_is_here else 0
        preflight(self._folder, needed, self._settings.reserve_bytes)

    def fetch(
        self,
        artifact: Artifact,
        order: Order,
        *,
        chunks: ChunkIndex | None = None,
        older: Sequence[ChunkIndex] = (),
    ) -> Path:
        """Bring an artifact, from this disk as far as possible.

        Args:
            artifact: Which.
            order: For whom.
            chunks: Its signed chunk index; ``None``: it has none, so nothing can be reused.
            older: Chunk indexes of files that may be here, the likeliest first.

        Returns:
            The file, verified and durable; its name is its digest.

        Raises:
            BudgetError: A byte budget has no room for what is missing.
            CanceledError: It was called off; what is there is kept.
            ConfigError: No server is configured, and the file is not on this disk.
            DiskFullError: The disk has no room. What is there is kept while the reserve is free,
                and removed where the disk is full indeed.
            RefusedError: No server has it.
            RuntimeAwayError: Nobody says what the runtime has (``have`` raised it).
            StateError: The disk fails.
            TrustError: The repository has another file under its name.
        """
        final = self.blob(artifact.sha256)
        if self._is_whole(final, artifact, order):
            return final
        self.preflight([artifact])
        if chunks is not None and not _fits(chunks, artifact):
            text = f"the chunk index of {artifact.url_path} is of another file"
            raise TrustError(Distrust.MIXED, f"{text}; publish the release again")
        try:
            if not self._transferred(artifact, order, chunks, older):
                text = (
                    f"the chunk index of {artifact.url_path} does not make up the signed file; all "
                    f"of it is downloaded: {artifact.size} bytes"
                )
                order.notice(Notice(NoticeKind.REUSE_FAILED, text, artifact.size))
                self._drop(artifact.sha256)
                self._transferred(artifact, order, None, ())
        except DiskFullError:
            if self._is_full():
                self._drop(artifact.sha256)
            raise
        finally:
            with contextlib.suppress(StateError):  # then it stays counted
                self._budget.settle()
        return final

    def cost_bytes(
        self, artifact: Artifact, chunks: ChunkIndex | None, older: Sequence[ChunkIndex]
    ) -> int:
        """Tell how many bytes an artifact would cost on the network if all goes well.

        Args:
            artifact: Which.
            chunks: Its signed chunk index; ``None``: it has none.
            older: Chunk indexes of files that may be here.

        Raises:
            RuntimeAwayError: Nobody says what the runtime has (``have`` raised it).
            StateError: The disk fails.
        """
        if self.blob(artifact.sha256).exists():
            return 0
        index = chunks if chunks is not None else _one_chunk(artifact)
        part = self.part(artifact.sha256)
        with translated(part), OldFiles([index, *older], self._opened) as olds:
            there = part.stat().st_size if part.exists() else 0
            return plan_of(index, olds.indexes, begin=min(there, artifact.size)).fetch_bytes

    def ask(self, order: Order, size: int) -> None:
        """Make sure that the byte budgets have room.

        Args:
            order: For whom.
            size: How many bytes.

        Raises:
            BudgetError: They have not.
        """
        self._budget.ask("artifact", size, order.rollout, order.rollout_bytes_max)

    def sweep(self, keep: Collection[str]) -> int:
        """Remove what nobody needs any more.

        Args:
            keep: SHA-256 of artifacts that stay, whole or not.

        Returns:
            How many files were removed.

        Raises:
            StateError: The disk fails.
        """
        gone = 0
        with translated(self._folder):
            for path in sorted(self._folder.iterdir()):
                if path.name.partition(".")[0] not in keep and not path.is_dir():
                    path.unlink(missing_ok=True)
                    gone += 1
            if gone:
                sync(self._folder)
        return gone

    def _transferred(
        self,
        artifact: Artifact,
        order: Order,
        chunks: ChunkIndex | None,
        older: Sequence[ChunkIndex],
    ) -> bool:
        """Bring it; ``False``: its chunks are right, and yet it is not the file."""
        index = chunks if chunks is not None else _one_chunk(artifact)
        meter = Meter(order.progress, artifact.size, time.monotonic())
        wire = Wire(self._web, self._spender(order), self._bucket, meter, cancelled=order.cancelled)
        with (
            wire,
            # The runtime may have the very file: then all of it is copied.
            OldFiles([index, *older], self._opened) as olds,
            contextlib.closing(Part(self.part(artifact.sha256), index.chunks, wire.alive)) as part,
        ):
            if older and (chunks is None or not olds.indexes):
                why = "there is no chunk index" if chunks is None else "no older file is here"
                missing = artifact.size - part.length
                text = f"{artifact.url_path}: {why}; all of it is downloaded: {missing} bytes"
                order.notice(Notice(NoticeKind.REUSE_FAILED, text, missing))
            sources = self._sources(artifact, part.path)
            try:
                Transfer(part, index, olds, sources, wire=wire, terms=self._terms(order)).run()
            finally:
                self._note_away(artifact, sources)
            if part.sha256() != artifact.sha256:
                return False
            part.finish(self.blob(artifact.sha256))
        with translated(part.path):
            tags_file(part.path).unlink(missing_ok=True)
        return True

    def _sources(self, artifact: Artifact, part: Path) -> Sources:
        """Say who is asked; a mirror that was away lately is not waited for with every file."""
        now_s = time.monotonic()
        resting = [
            f"{base}/{artifact.url_path}"
            for base in self._base_urls
            if self._resting_s.get(base, now_s) > now_s
        ]
        urls = [f"{base}/{artifact.url_path}" for base in self._base_urls]
        return Sources(urls, read_tags(part), resting)

    def _note_away(self, artifact: Artifact, sources: Sources) -> None:
        until_s = time.monotonic() + MIRROR_REST_S
        for base in self._base_urls:
            if f"{base}/{artifact.url_path}" in sources.away:
                self._resting_s[base] = until_s

    def _terms(self, order: Order) -> Terms:
        settings = self._settings
        return Terms(
            lambda size: self.ask(order, size),
            order.notice,
            settings.reserve_bytes,
            settings.retry_first_s,
            settings.retry_most_s,
        )

    def _spender(self, order: Order) -> Callable[[int], None]:
        return lambda size: self._budget.spend("artifact", size, order.rollout)

    def _opened(self, sha256: str) -> int | None:
        """Open a file of this folder or of the runtime's store."""
        try:
            return os.open(self.blob(sha256), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return self._have(sha256)

    def _there(self, artifact: Artifact) -> int:
        """Count the bytes that an artifact takes on the disk already."""
        for path in (self.blob(artifact.sha256), self.part(artifact.sha256)):
            try:
                return path.stat().st_blocks * 512
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StateError(f"cannot look at {path}: {error.strerror}") from error
        return 0

    def _is_whole(self, path: Path, artifact: Artifact, order: Order) -> bool:
        """Tell whether an artifact is here; a damaged one is removed."""
        if not path.exists():
            return False
        if is_file(path, artifact.sha256):
            # Its name may be younger than the last power cut allows, and hints may have stayed.
            self._drop(artifact.sha256)
            with translated(path):
                sync(self._folder)
            return True
        text = f"{path.name} was damaged on the disk; it is downloaded again"
        order.notice(Notice(NoticeKind.DAMAGED_BLOB, text, artifact.size))
        with translated(path):
            path.unlink(missing_ok=True)
        return False

    def _drop(self, sha256: str) -> None:
        part = self.part(sha256)
        with translated(part):
            part.unlink(missing_ok=True)
            tags_file(part).unlink(missing_ok=True)

    def _is_full(self) -> bool:
        """Tell whether even the reserve is eaten: then what is there must not stay."""
        try:
            preflight(self._folder, 0, self._settings.reserve_bytes)
        except DiskFullError:
            return True
        except StateError:
            pass  # nobody knows
        return False


def _fits(index: ChunkIndex, artifact: Artifact) -> bool:
    return index.file_sha256 == artifact.sha256 and index.file_size == artifact.size


def _one_chunk(artifact: Artifact) -> ChunkIndex:
    """Take a file without an index as one chunk."""
    chunk = Chunk(offset=0, size=artifact.size, sha256=artifact.sha256)
    chunks = (chunk,) if artifact.size else ()
    return ChunkIndex(file_sha256=artifact.sha256, file_size=artifact.size, chunks=chunks)
