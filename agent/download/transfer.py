"""Makes a ``.part`` file whole: copies what old files have, fetches the rest, never gives up.

Each failure leads back to the plan, which is made anew from what is there; before every request
the byte budget is asked for all that is still to come.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.download.disk import preflight, translated
from agent.download.entity_tags import write_tags
from agent.download.notices import Notice, NoticeKind
from agent.download.old_files import OldFiles
from agent.download.pace import backoff_s
from agent.download.part import BLOCK_BYTES, BadChunkError, Part
from agent.download.ranges import Asked, UnusableAnswerError, WrongFileError
from agent.download.reuse import GAP_BYTES, Copy, Fetch, ReusePlan, plan_of
from agent.download.sources import Source, Sources
from agent.download.wire import Wire
from agent.errors import NetworkError, RefusedError, TooLargeError
from edge_runtime.failpoints import failpoint
from fleet.documents.chunks import ChunkIndex

CHECK_DISK_BYTES: Final = 8_388_608
"""The disk is looked at again after so many bytes: others write to it too."""

DAMAGED_MAX: Final = 8
"""An old file that is damaged in so many places is not read any more."""

_UNSATISFIABLE: Final = 416


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms bytes come.

    Attributes:
        ask: Asks the byte budget for so many bytes; raises ``BudgetError``.
        notice: Is told what the owner should know.
        reserve_bytes: What must stay free on the disk.
        retry_first_s: Longest pause after the first failure.
        retry_most_s: Longest pause.
        gap_bytes: See ``reuse.GAP_BYTES``.
        share: Gives a random number, 0 to 1.
    """

    ask: Callable[[int], None]
    notice: Callable[[Notice], None]
    reserve_bytes: int
    retry_first_s: float
    retry_most_s: float
    gap_bytes: int = GAP_BYTES
    share: Callable[[], float] = random.random


class Transfer:
    """One download of one file.

    Args:
        part: What is there of it.
        index: Its chunks; one of them where it has no index.
        olds: Files on this disk that may have some.
        sources: Who is asked for the rest.
        wire: How the bytes come.
        terms: On what terms.
    """

    def __init__(
        self,
        part: Part,
        index: ChunkIndex,
        olds: OldFiles,
        sources: Sources,
        *,
        wire: Wire,
        terms: Terms,
    ) -> None:
        self._part = part
        self._index = index
        self._olds = olds
        self._sources = sources
        self._wire = wire
        self._terms = terms
        self._failures = 0
        self._retry_after_s = 0.0
        self._reason = ""
        self._damaged: set[tuple[str, int]] = set()
        self._unchecked_bytes = 0

    def run(self) -> None:
        """Go on until the file is whole.

        Raises:
            BudgetError: A byte budget has no room for the rest.
            CanceledError: It was called off.
            ConfigError: There is no server to ask.
            DiskFullError: The disk has no room for the rest.
            RefusedError: No server has it.
            StateError: The disk fails.
            TrustError: The repository has another file under its name.
        """
        while not self._part.is_whole:
            self._wire.alive()
            plan = self.plan()
            left = plan.fetch_bytes
            for piece in plan.pieces:
                done = self._copied(piece) if isinstance(piece, Copy) else self._got(piece, left)
                if not done:
                    break
                left -= piece.size if isinstance(piece, Fetch) else 0
        self._wire.progress(self._part.length)

    def plan(self) -> ReusePlan:
        """Decide where what is missing comes from."""
        return plan_of(
            self._index,
            self._olds.indexes,
            begin=self._part.length,
            damaged=self._damaged,
            gap_bytes=self._terms.gap_bytes,
        )

    def _copied(self, piece: Copy) -> bool:
        """Copy a chunk; whether it is there now."""
        chunk, part = piece.chunk, self._part
        try:
            while part.length < piece.end:
                self._wire.alive()
                at = piece.offset + part.length - chunk.offset
                size = min(BLOCK_BYTES, piece.end - part.length)
                file = piece.file_sha256
                data = self._olds.read(file, at, size) if file else part.read(at, size)
                if not data:
                    part.cut(chunk.offset)
                    break
                part.append(data, piece.file_sha256)
        except BadChunkError:
            pass  # it was cut off again
        if part.length < piece.end:
            self._reuse_failed(piece)
            return False
        with translated(part.path):
            failpoint("agent.download.copied")
        self._note_written(chunk.size)
        return True

    def _reuse_failed(self, piece: Copy) -> None:
        """Say that a chunk must be fetched after all; the budget is asked again with the plan."""
        before = self.plan().fetch_bytes
        file = piece.file_sha256
        self._damaged.add((file, piece.offset))
        places = sum(one == file for one, _ in self._damaged)
        if places >= DAMAGED_MAX:
            self._olds.drop(file)
        more = self.plan().fetch_bytes - before
        text = (
            f"the older file {file[:12] or 'itself'} is damaged in {places} places, the last at "
            f"{piece.offset}; {more} bytes more are downloaded"
        )
        self._terms.notice(Notice(NoticeKind.REUSE_FAILED, text, more))

    def _got(self, piece: Fetch, left: int) -> bool:
        """Fetch bytes from one server; whether they are there now."""
        source = self._sources.next(whole=piece.size == self._index.file_size)
        if source is None:
            self._pause()
            return False
        asked = self._asked(source, piece, left)
        before = self._part.length
        try:
            self._receive(source, asked)
        except NetworkError as error:
            self._failed(source, error.message, error.retry_after_s)
        except RefusedError as error:
            if error.status == _UNSATISFIABLE:
                self._wrong(source, "it is too short")
            else:
                self._set_aside(source, error.message)
                self._sources.refused(source, error)
        except (WrongFileError, TooLargeError) as error:
            self._wrong(source, str(error))
        except UnusableAnswerError as error:
            self._not_usable(source, asked, str(error))
        except BadChunkError as error:
            self._bad_chunk(error)
        if self._part.length > before:
            self._failures = 0
        return self._part.length >= piece.end

    def _asked(self, source: Source, piece: Fetch, left: int) -> Asked:
        """Decide what a server is asked for, and ask the budget."""
        size = self._index.file_size
        if source.has_ranges:
            begin = self._part.length
            self._terms.ask(left - (begin - piece.begin))
            return Asked(begin, piece.end, size, source.tag if source.has_tags else "")
        more = size - (left - (self._part.length - piece.begin))
        if more > 0:
            text = (
                f"{source.url} gives no parts of files: all {size} bytes are downloaded, {more} "
                "more than are missing"
            )
            self._terms.notice(Notice(NoticeKind.FULL_DOWNLOAD, text, more))
        self._terms.ask(size)
        return Asked(0, size, size)

    def _receive(self, source: Source, asked: Asked) -> None:
        with self._wire.receive(source.url, asked) as (placed, blocks):
            if placed.tag and placed.tag != source.tag:
                source.tag = placed.tag
                write_tags(self._part.path, self._sources.tags())
            at = placed.begin
            self._sources.gave(source)
            for block in blocks:
                self._take(at, memoryview(block), source)
                at += len(block)
                self._note_written(len(block))

    def _take(self, at: int, block: memoryview, source: Source) -> None:
        """Add an answer's bytes; those that are there already are compared with it."""
        part = self._part
        old = min(len(block), part.length - at)
        if old > 0:
            same = part.same(at, block[:old])
            if same < old:
                if at + same < part.verified:
                    raise WrongFileError(f"byte {at + same} is another one")
                part.cut(at + same)
                old = same
            block = block[old:]
        if block:
            part.append(block, source.url)

    def _note_written(self, size: int) -> None:
        self._unchecked_bytes += size
        if self._unchecked_bytes >= CHECK_DISK_BYTES:
            self._unchecked_bytes = 0
            missing = self._index.file_size - self._part.length
            preflight(self._part.path.parent, missing, self._terms.reserve_bytes)

    def _failed(self, source: Source, why: str, retry_after_s: float = 0.0) -> None:
        self._sources.failed(source)
        self._retry_after_s = max(self._retry_after_s, retry_after_s)
        self._reason = why

    def _pause(self) -> None:
        """Every server was tried: wait a random time, longer after each round without a byte."""
        self._failures += 1
        terms = self._terms
        pause_s = backoff_s(self._failures, terms.share(), terms.retry_first_s, terms.retry_most_s)
        pause_s = max(pause_s, self._retry_after_s)
        text = f"{self._reason}; tried again in {pause_s:.1f} s"
        terms.notice(Notice(NoticeKind.RETRYING, text))
        self._retry_after_s = 0.0
        self._wire.pause(pause_s)
        self._sources.again()

    def _not_usable(self, source: Source, asked: Asked, why: str) -> None:
        """Ask for less of a server: without its tag, without ranges, and only then later."""
        if asked.tag:
            source.has_tags = False
        elif not asked.is_whole:
            source.has_ranges = False
        else:
            self._failed(source, f"{source.url}: {why}")

    def _bad_chunk(self, error: BadChunkError) -> None:
        """Find out who is to blame: one server, if every byte of the chunk came from it just now.

        Otherwise the chunk is fetched again, from the repository if a mirror had a part in it.
        """
        self._sources.again()
        why = f"bytes {error.chunk.offset} and on have the wrong digest"
        blamed = self._sources.only(error.origins)
        if blamed is not None:
            self._wrong(blamed, why)
            return
        for mirror in self._sources.mirrors(error.origins):
            self._wrong(mirror, why)

    def _wrong(self, source: Source, why: str) -> None:
        self._set_aside(source, why)
        self._sources.wrong(source, why)

    def _set_aside(self, source: Source, why: str) -> None:
        if self._sources.is_mirror(source):
            text = f"the mirror of {source.url} is not asked any more for this file: {why}"
            self._terms.notice(Notice(NoticeKind.MIRROR_SET_ASIDE, text))
