"""The file from the loop's side: what may be on disk, reads that come back, writes that gather.

Everything here runs on the event loop's thread except ``_work``, which is the cache's own thread
and the only one that touches the file. Reads go before writes. Both queues are bounded.
"""

import asyncio
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

from edge_runtime.cache.entry import Entry
from edge_runtime.cache.folder import Folder
from edge_runtime.cache.index import KeyIndex, fingerprint
from edge_runtime.cache.life import Clock, Policy
from edge_runtime.cache.store import Row, Written
from edge_runtime.cache.subject import Identity, Subject
from edge_runtime.cache.worker import Opened, Outcome, Worker
from edge_runtime.settings import Cache

_log = logging.getLogger(__name__)

BATCH_BYTES: Final = 1_048_576
BATCH_ROWS: Final = 256
READS_MAX: Final = 256
_RETRY_S_MIN: Final = 1.0

Found = Callable[[Entry | None], None]


class Disk:
    """The answers on disk.

    Args:
        loop: The event loop.
        path: The cache's folder.
        settings: Limits.
        clock: What time it is.
        known: Called with the versions found whenever the file was opened.
        evicted: Called with numbers of answers that left the disk, by version.
        dropped: Called with numbers of answers that were not written, by version.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        path: Path,
        settings: Cache,
        clock: Clock,
        *,
        known: Callable[[list[Subject]], None],
        evicted: Callable[[dict[Identity, int]], None],
        dropped: Callable[[dict[Identity, int]], None],
    ) -> None:
        self._loop = loop
        self._settings = settings
        self._known = known
        self._evicted = evicted
        self._dropped = dropped
        self._index: KeyIndex | None = None
        self._reads: dict[int, tuple[Found, asyncio.TimerHandle]] = {}
        self._number = 0
        self._is_stalled = False
        self._pending: list[Row] = []
        self._pending_bytes = 0
        self._queued_bytes = 0  # handed to the thread and not written yet
        self._flushing: asyncio.TimerHandle | None = None
        self._wanted: set[Identity] = set()
        self._forgetting: dict[Identity, int] = {}  # and which request was the last to say so
        self._failed: dict[Identity, int] = {}  # those of them that could not be forgotten yet
        self._clearing = 0  # requests to remove everything that are not done
        self._retrying: asyncio.TimerHandle | None = None
        self._is_closed = False
        self.worker = Worker(Folder(path), settings, clock, lambda it: self._post(self._open, it))
        self._urgent: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()
        self._jobs: deque[tuple[Callable[[], Any], Callable[[Any], None]] | None] = deque()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._ended = asyncio.Event()
        # A daemon: a disk that hangs must not keep the interpreter from ending.
        self._thread = threading.Thread(target=self._work, name="cache", daemon=True)
        self._thread.start()
        self._submit(self.worker.open, _nothing)

    @property
    def pending_bytes(self) -> int:
        """Answers that wait to be written."""
        return self._pending_bytes + self._queued_bytes

    def may_hold(self, identity: Identity, key: bytes) -> bool:
        """Say at once whether an answer may be on disk; a no is certain enough not to look."""
        index = self._index
        if index is None or self._is_stalled or self._is_closed or self._clearing:
            return False
        return fingerprint(key) in index and identity not in self._forgetting

    def read(self, key: bytes, within_s: float, found: Found) -> None:
        """Read an answer.

        Args:
            key: Its question.
            within_s: Seconds after which it is given up.
            found: Called later on the loop's thread, with ``None`` if it is not there or too late.
        """
        if len(self._reads) >= READS_MAX or self._is_closed:
            self._loop.call_soon(found, None)
            return
        number = self._number = self._number + 1
        timer = self._loop.call_later(within_s, self._is_late, number)
        self._reads[number] = found, timer

        def done(entry: Entry | None) -> None:
            self._is_stalled = False
            if entry is None and self._index is not None:
                self._index.discard(fingerprint(key))
            waiting = self._reads.pop(number, None)
            if waiting is not None:
                waiting[1].cancel()
                waiting[0](entry)

        self._urgent.append((lambda: self.worker.read(key), done))
        self._wake.put(None)

    def write(self, subject: Subject, key: bytes, entry: Entry) -> bool:
        """Write an answer with the next batch; whether there is room for it."""
        size = entry.size_bytes
        if (
            self._is_closed
            or self.worker.is_paused
            or self.pending_bytes + size > self._settings.queue_bytes
        ):
            return False
        self._pending.append(Row(subject, key, entry))
        self._pending_bytes += size
        if self._pending_bytes >= BATCH_BYTES or len(self._pending) >= BATCH_ROWS:
            self.flush()
        elif self._flushing is None:
            self._flushing = self._loop.call_later(self._settings.flush_interval_s, self.flush)
        return True

    def flush(self) -> None:
        """Hand what has gathered to the thread."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        rows, self._pending = self._pending, []
        size, self._pending_bytes = self._pending_bytes, 0
        if not rows:
            return
        self._queued_bytes += size

        def done(written: Written | None) -> None:
            self._queued_bytes -= size
            if written is None:
                self._dropped(Counter(row.subject.identity for row in rows))
                return
            self._dropped(Counter(written.refused))
            self._evicted(written.evicted)
            if self._index is not None:
                self._index.add_all(written.added)
            self._gone(written.gone)
            self._retry()

        self._submit(lambda: self.worker.write(rows), done)

    def describe(self, subject: Subject, policy: Policy) -> None:
        """Take note of a version; what it replaces is forgotten, and so is what was to be."""
        identity = subject.identity
        self._wanted = {each for each in self._wanted if each[:2] != identity[:2]} | {identity}
        self._submit(lambda: self.worker.describe(subject, policy), self._forget_all)

    def forget(
        self,
        identity: Identity,
        *,
        for_good: bool = True,
        done: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Remove every answer of a version, bit by bit; from now on none of them is found.

        Args:
            identity: The version; with an empty number: every version of the model that is on
                disk. Those that are asked for must be named for themselves.
            for_good: Whether it may be forgotten that there was such a version.
            done: Called when it is done, with an empty text, or when it failed, with the reason.
                What failed is tried again until it is done.
        """
        self._pending = [row for row in self._pending if row.subject.identity != identity]
        self._pending_bytes = sum(row.entry.size_bytes for row in self._pending)
        if for_good:
            self._wanted.discard(identity)
        number = self._number = self._number + 1
        self._forgetting[identity] = number
        forgot = partial(self._forgot, identity, number, done)
        self._submit(lambda: self.worker.forget(identity, for_good=for_good), forgot)

    def _forgot(
        self,
        identity: Identity,
        number: int,
        done: Callable[[str], None],
        result: tuple[set[int], Outcome],
    ) -> None:
        gone, outcome = result
        self._gone(gone)
        if outcome is Outcome.MORE and not self._is_closed:
            forgot = partial(self._forgot, identity, number, done)
            self._submit(lambda: self.worker.go_on(identity), forgot)
        elif outcome is Outcome.DONE:
            if self._forgetting.get(identity) == number:
                del self._forgetting[identity]
            done("")
        else:
            self._failed[identity] = self._forgetting.get(identity, number)
            self._retry_later()
            done(self._reason())

    def _reason(self) -> str:
        problem = self.worker.problem or "the file cannot be changed now"
        return "; ".join(filter(None, [problem, self.worker.debt.problem]))

    def _retry_later(self) -> None:
        if self._retrying is None and not self._is_closed:
            delay_s = max(self.worker.retry_in_s, _RETRY_S_MIN)
            self._retrying = self._loop.call_later(delay_s, self._retry)

    def _retry(self) -> None:
        """Try what failed again; if it is too early for that, later."""
        if self._retrying is not None:
            self._retrying.cancel()
            self._retrying = None
        if self._is_closed or not (self._failed or self._clearing):
            return
        if self.worker.is_paused:
            self._retry_later()
            return
        failed, self._failed = self._failed, {}
        if self._clearing:
            cleared = partial(self._cleared, self._clearing, _nothing)
            self._submit(self.worker.retry_clear, cleared)
        for identity, number in failed.items():
            forgot = partial(self._forgot, identity, number, _nothing)
            self._submit(partial(self.worker.go_on, identity), forgot)

    def _forget_all(self, identities: list[Identity]) -> None:
        for identity in identities:
            # The thread says what was so a moment ago; since then it may be wanted again.
            if identity not in self._forgetting and identity not in self._wanted:
                self.forget(identity)

    def clear(self, done: Callable[[str], None] = lambda _: None) -> None:
        """Remove everything; from now on nothing is found.

        Args:
            done: Called when it is done or failed, as in ``forget``.
        """
        self._pending, self._pending_bytes = [], 0
        self._index = None
        number = self._number = self._number + 1
        self._clearing = number
        self._submit(self.worker.clear, partial(self._cleared, number, done))

    def _cleared(self, number: int, done: Callable[[str], None], is_done: bool) -> None:  # noqa: FBT001 - what the thread says
        if is_done:
            if self._clearing == number:
                self._clearing = 0
            done("")
        else:
            self._retry_later()
            done(self._reason())

    def after(self, done: Callable[[], None]) -> None:
        """Call back when everything that was asked for so far is done."""
        self._submit(lambda: None, lambda _: done())

    async def close(self, within_s: float) -> bool:
        """Write what waits, close the file, end the thread.

        Args:
            within_s: Time for it, in seconds.

        Returns:
            Whether the thread has ended; a disk that hangs cannot be cut from outside.
        """
        if not self._is_closed:
            self.flush()
            self._is_closed = True
            if self._retrying is not None:
                self._retrying.cancel()
            for found, timer in self._reads.values():
                timer.cancel()
                self._loop.call_soon(found, None)
            self._reads.clear()
            self._submit(self.worker.close, _nothing)
            self._jobs.append(None)
            self._wake.put(None)
        try:
            async with asyncio.timeout(within_s):
                await self._ended.wait()
        except TimeoutError:
            return False
        self._thread.join()
        return True

    def _submit(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self._jobs.append((work, done))
        self._wake.put(None)

    def _work(self) -> None:
        """Do one job after the other, on the cache's thread."""
        while True:
            self._wake.get()
            job = self._urgent.popleft() if self._urgent else self._jobs.popleft()
            if job is None:
                self._post(lambda _: self._ended.set(), None)
                return
            work, done = job
            self._post(done, work())
            del job, work, done  # what they hold must not wait for the next job

    def _post(self, call: Callable[[Any], None], argument: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, argument)
        except RuntimeError:  # the loop is closed: nobody waits any more
            _log.debug("nobody waits for the cache's disk any more")

    def _open(self, opened: Opened | None) -> None:
        if opened is None or self._is_closed:
            self._index = None
            return
        self._index = opened.index
        self._known(opened.subjects)
        self._forget_all(opened.retired)
        self._retry()

    def _gone(self, fingerprints: Iterable[int]) -> None:
        if self._index is not None:
            for number in fingerprints:
                self._index.discard(number)

    def _is_late(self, number: int) -> None:
        found, _ = self._reads.pop(number)
        self._is_stalled = True  # until it answers again
        found(None)


def _nothing(_: object) -> None:
    """Take note of nothing."""
