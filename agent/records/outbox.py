"""What waits for the broker: durable where it must be, counted where it is dropped.

Statuses are durable before ``add`` returns. Metrics stay in memory while the broker takes them, and
go to flash, several in one write, when it is away, when there are too many, and at the end.
Births and their like are in memory only: each start makes them anew. What arrived is deleted in
batches; what a crash leaves undeleted is sent again under the same ``(boot_id, seq)``.

Every message has a number, rising by one in each run of the agent, and every number either
arrives, waits, or is told to be gone in a ``Gap``. A run that was killed is told as ``Ended``, and
so is one that ended before the broker had said whether it has a birth.
"""

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.errors import StateError
from agent.messages import REPORT_BYTES_MAX, Loss, MetricsBatch, write
from agent.records.file import RecordsFile
from agent.records.outbox_flash import Flash
from agent.records.outbox_memory import Memory
from agent.records.outbox_rows import Key, Priority, Row
from agent.records.sequence_mark import SequenceMark

ARRIVED_MAX: Final = 20
"""So many arrivals are deleted in one write."""
FLUSH_BYTES: Final = 16_384
FLUSH_S: Final = 300.0
"""Metrics wait for company that long before they are written while the broker is away."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """How full the outbox is.

    Attributes:
        statuses: Statuses that wait.
        metrics: Batches of metrics that wait.
        metrics_bytes: Their bytes.
        latest: Births and their like that wait.
        unsaved: Statuses that the disk refused so far.
        dropped: Messages that never come, since the agent started, by reason.
        problem: What the disk says; empty: nothing is wrong.
    """

    statuses: int
    metrics: int
    metrics_bytes: int
    latest: int
    unsaved: int
    dropped: dict[Loss, int]
    problem: str


class Outbox:
    """Messages that wait for the broker; every method may be called by any thread.

    Args:
        file: agent.db.
        kernel: What this boot of the device is called (``/proc/sys/kernel/random/boot_id``).
        mark: File of the last number; in a tmpfs if there is one.
        gaps_topic: Where gaps are told.
        metrics_bytes: Most bytes of metrics that wait on flash.
        memory_bytes: Most bytes of metrics in memory.
        in_flight_max: Most messages that are under way at once, and most metrics that are refused:
            so many of the oldest are never dropped, since nobody knows whether they have arrived.
        own: What topics of this device begin with: what waits for another name is dropped; empty:
            nothing is.
        now_s: Seconds that only rise.

    Attributes:
        boot_id: Which run of the agent this is, told with every number.
        own_boot_ids: This run and those before it, as far as they are remembered.

    Raises:
        StateError: The file cannot be read or written.
    """

    def __init__(
        self,
        file: RecordsFile,
        *,
        kernel: str,
        mark: Path,
        gaps_topic: str,
        metrics_bytes: int,
        memory_bytes: int,
        in_flight_max: int,
        own: str = "",
        now_s: Callable[[], float],
    ) -> None:
        self._lock = threading.RLock()
        self._mark = SequenceMark(mark)
        self._flash = Flash(
            file,
            kernel=kernel,
            mark=self._mark.found,
            quota_bytes=metrics_bytes,
            kept=2 * in_flight_max + ARRIVED_MAX,
            own=own,
            now_s=now_s,
        )
        self._memory = Memory()
        self._memory_bytes = memory_bytes
        self._gaps_topic = gaps_topic
        self._now_s = now_s
        self.boot_id = self._flash.run.boot_id
        self.own_boot_ids = frozenset(self._flash.run.names.values())
        self._seq = 0
        self._mark.write(self._flash.run.boot, 0)
        self._is_connected = False
        self._metrics_since_s = 0.0
        self._taken: dict[Key, Row] = {}
        self._refused: dict[Key, Row] = {}
        self._uncertain: set[Key] = set()
        self._arrived: dict[Key, Row] = {}
        self._telling: Key | None = None

    def add(
        self,
        topic: str,
        payload: bytes,
        priority: Priority,
        *,
        retain: bool = False,
        expiry_s: float | None = None,
    ) -> int:
        """Number a message and keep it until it has arrived.

        A status is durable when this returns, unless the disk refuses: then it stays in memory, is
        sent from there, and the disk is asked again (``waiting`` says so).

        Args:
            topic: Where it goes.
            payload: What it says, at most ``REPORT_BYTES_MAX`` bytes.
            priority: Its class.
            retain: Whether the broker keeps it.
            expiry_s: How long a broker keeps it for a receiver that is away.

        Returns:
            Its number in this run.

        Raises:
            ValueError: It is too large; it has no number.
        """
        if len(payload) > REPORT_BYTES_MAX:
            raise ValueError(
                f"a message for {topic} has {len(payload)} bytes; cut it to {REPORT_BYTES_MAX}"
            )
        with self._lock:
            if priority is Priority.METRICS and not self._memory.metrics:
                self._metrics_since_s = self._now_s()
            row = self._numbered(topic, payload, priority, retain=retain, expiry_s=expiry_s)
            self._memory.add(row)
            if priority is Priority.STATUS:
                self._save()
            elif priority is Priority.LATEST:
                seen = self._taken.keys() | self._uncertain
                self._flash.lose(self._memory.superseded(row, seen), Loss.SUPERSEDED)
            elif self._is_flush_due():
                self._save(metrics=True)
            gone = self._memory.beyond(self._memory_bytes, self._taken)
            self._flash.lose(gone, Loss.DISK)
            return row.key.seq

    def take(self, count: int, priorities: Collection[Priority] = tuple(Priority)) -> list[Row]:
        """Take messages to send, by class and then by age; they stay until they have arrived.

        Args:
            count: How many at most.
            priorities: Classes that may go now.
        """
        with self._lock:
            if self._telling is None and Priority.STATUS in priorities and count > 0:
                told = self._flash.tell_losses(self._losses_row)
                self._telling = None if told is None else told.key
            known = self._taken.keys() | self._arrived.keys()
            found: list[Row] = []
            for priority in sorted(priorities):
                found += self._flash.next(priority, count - len(found), known)
                found += self._memory.next(priority, count - len(found), known)
            self._taken.update((row.key, row) for row in found)
            return found

    def arrived(self, key: Key) -> None:
        """Note that the broker has a message; ``settle`` deletes it."""
        with self._lock:
            row = self._taken.pop(key, None)
            if row is None:
                return
            self._refused.pop(key, None)
            self._uncertain.discard(key)
            if key == self._telling:
                self._telling = None
            if not self._memory.remove(key):
                self._arrived[key] = row

    def refused(self, key: Key) -> None:
        """Note that the broker refuses a message: it is given again by ``try_refused``."""
        with self._lock:
            row = self._taken.get(key)
            if row is not None:
                self._refused[key] = row

    def try_refused(self) -> None:
        """Give what was refused again, statuses after those behind them: each has its turn.

        Metrics always go by age, since only the oldest are safe from being dropped on the way.
        """
        with self._lock:
            statuses = (row for row in self._refused.values() if row.priority is Priority.STATUS)
            behind = {row.priority: row.key for row in statuses}
            for key in self._refused:
                self._taken.pop(key, None)
            self._refused.clear()
            self._flash.look_again(behind)

    def drop(self, key: Key, reason: Loss) -> None:
        """Give up a message that was taken and can never be sent; a status is not given up."""
        with self._lock:
            row = self._taken.get(key)
            if row is None or row.priority is Priority.STATUS:
                return
            self.arrived(key)
            self._flash.lose([key], reason)

    def settle(self) -> None:
        """Delete what has arrived if it is many or nothing more is under way."""
        with self._lock:
            is_quiet = self._taken.keys() == self._refused.keys()
            is_due = len(self._arrived) >= ARRIVED_MAX or (self._arrived and is_quiet)
            if is_due or self._memory.statuses:
                self._save()

    def connected(self) -> None:
        """Note that the broker is there: metrics stay in memory from now on."""
        with self._lock:
            self._is_connected = True

    def lost(self) -> None:
        """Note that the broker is away: what was under way is sent again, metrics go to flash."""
        with self._lock:
            self._is_connected = False
            self._uncertain |= self._taken.keys() & self._memory.latest.keys()
            self.try_refused()
            self._taken.clear()
            if self._memory.metrics or self._arrived:
                self._save(metrics=True)

    def close(self) -> None:
        """End this run: everything is written down.

        Raises:
            StateError: The disk refuses; what was in memory is lost, and the next run says so.
        """
        with self._lock:
            latest = self._memory.latest.keys()
            # The broker may have these: nobody may say that they never come.
            unknown = latest & (self._taken.keys() | self._uncertain)
            self._flash.lose(sorted(latest - unknown), Loss.SUPERSEDED)
            self._memory.latest.clear()
            self._taken.clear()
            try:
                if not self._save(metrics=True, at_once=True):
                    raise StateError(self._flash.problem)
                self._flash.end(self._seq, is_certain=not unknown)
            finally:
                self._mark.close()

    @property
    def newest(self) -> Key:
        """The key that was given last."""
        return Key(self._flash.run.boot, self._seq)

    def waiting(self) -> Waiting:
        """Say how full it is."""
        with self._lock:
            flash, memory = self._flash, self._memory
            return Waiting(
                statuses=flash.counts[Priority.STATUS] + len(memory.statuses),
                metrics=flash.counts[Priority.METRICS] + len(memory.metrics),
                metrics_bytes=flash.metrics_bytes + memory.metrics_bytes,
                latest=len(memory.latest),
                unsaved=len(memory.statuses),
                dropped=dict(flash.dropped),
                problem=flash.problem,
            )

    def _numbered(
        self,
        topic: str,
        payload: bytes,
        priority: Priority,
        *,
        retain: bool = False,
        expiry_s: float | None = None,
    ) -> Row:
        self._seq += 1
        key = Key(self._flash.run.boot, self._seq)
        self._mark.write(*key)
        return Row(key, self.boot_id, priority, topic, payload, retain, expiry_s)

    def _losses_row(self, batch: MetricsBatch) -> Row:
        return self._numbered(self._gaps_topic, write(batch), Priority.STATUS)

    def _is_flush_due(self) -> bool:
        if self._is_connected:
            return self._memory.metrics_bytes > self._memory_bytes
        age_s = self._now_s() - self._metrics_since_s
        most_bytes = min(FLUSH_BYTES, self._memory_bytes)
        return self._memory.metrics_bytes >= most_bytes or age_s >= FLUSH_S

    def _save(self, *, metrics: bool = False, at_once: bool = False) -> bool:
        """Bring the file up to what is known; false where the disk refuses."""
        if not (at_once or self._flash.is_asked):
            return False
        memory = self._memory
        fresh = list(memory.statuses.values()) + list(memory.metrics.values() if metrics else ())
        if not self._flash.save(fresh, list(self._arrived.values())):
            return False
        self._arrived.clear()
        for row in fresh:
            memory.remove(row.key)
        return True
