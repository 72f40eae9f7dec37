"""The part of the outbox that is on flash, and what of it never comes."""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from agent.errors import StateError
from agent.messages import GAPS_MAX, Ended, Gap, Loss, MetricsBatch
from agent.records import outbox_rows as rows
from agent.records import outbox_runs
from agent.records.file import RecordsFile
from agent.records.losses import Losses
from agent.records.outbox_rows import ON_FLASH, Key, Priority, Row
from agent.records.sequence_mark import Mark

_log = logging.getLogger(__name__)

RETRY_S: Final = 30.0
"""Pause before a disk that refused is asked again."""


class Flash:
    """The outbox's tables, changed in as few transactions as can be.

    Args:
        file: agent.db.
        kernel: What this boot of the device is called.
        mark: The last number that was written in place.
        quota_bytes: Most bytes of metrics.
        kept: So many of the oldest metrics are never dropped.
        own: What topics of this device begin with: whatever waits for another is dropped, and told
            as superseded; empty: all are its own.
        now_s: Seconds that only rise.

    Attributes:
        run: The run that begins with this.
        counts: How many messages wait, by class.
        metrics_bytes: What the metrics count.
        dropped: Messages that never come, since the agent started, by reason.
        problem: What the disk said last; empty: nothing is wrong.

    Raises:
        StateError: The file cannot be read or written.
    """

    def __init__(
        self,
        file: RecordsFile,
        *,
        kernel: str,
        mark: Mark | None,
        quota_bytes: int,
        kept: int,
        own: str = "",
        now_s: Callable[[], float],
    ) -> None:
        self._file = file
        self._quota_bytes, self._kept, self._now_s = quota_bytes, kept, now_s
        with file.transaction() as db:
            self.run = outbox_runs.begin(db, kernel, mark)
            self._losses = rows.losses(db)
            foreign = rows.drop_of_others(db, own)
            for key in foreign:
                self._losses.add(key.boot, key.seq, Loss.SUPERSEDED)
            if foreign:
                rows.put_losses(db, self._losses.ranges)
            self.counts = {each: rows.sizes(db, each)[0] for each in ON_FLASH}
            self.metrics_bytes = rows.sizes(db, Priority.METRICS)[1]
        self._ends = list(self.run.ends)
        self._are_losses_saved = True
        self._refused_s: float | None = None
        self.dropped: dict[Loss, int] = {}
        if foreign:
            self.dropped[Loss.SUPERSEDED] = len(foreign)
            _log.warning("%d messages of another name than %s are dropped", len(foreign), own)
        self.problem = ""
        self.look_again()

    @property
    def is_asked(self) -> bool:
        """Whether the disk may be asked: it did not refuse a moment ago."""
        return self._refused_s is None or self._now_s() - self._refused_s >= RETRY_S

    @property
    def has_losses(self) -> bool:
        """Whether there is something that nobody has been told."""
        return bool(self._losses) or bool(self._ends)

    def look_again(self, behind: Mapping[Priority, Key] | None = None) -> None:
        """Begin again.

        Args:
            behind: After which message, by class, and with the oldest later; others begin with the
                oldest.
        """
        self._after: dict[Priority, int] = dict.fromkeys(ON_FLASH, -1)
        self._has_more: dict[Priority, bool] = dict.fromkeys(ON_FLASH, True)
        self._wraps: dict[Priority, int] = {each: key.id for each, key in (behind or {}).items()}
        self._after |= self._wraps

    def next(self, priority: Priority, count: int, known: Collection[Key]) -> list[Row]:
        """Give the oldest messages of a class that have not been given yet.

        Args:
            priority: The class.
            count: How many at most.
            known: What is under way or has arrived.
        """
        if count <= 0 or not self._has_more.get(priority, False):
            return []
        limit = count + len(known)
        try:
            with self._file.reading() as db:
                found = rows.oldest(db, priority, self._after[priority], limit, self.run.names)
        except StateError as error:
            self.problem = error.message
            return []
        fresh = [row for row in found if row.key not in known][:count]
        self._has_more[priority] = len(found) == limit or len(fresh) == count
        if fresh:
            self._after[priority] = fresh[-1].key.id
        if not self._has_more[priority] and self._wraps.pop(priority, None) is not None:
            self._after[priority], self._has_more[priority] = -1, True
            given = {*known, *(row.key for row in fresh)}
            return fresh + self.next(priority, count - len(fresh), given)
        return fresh

    def lose(self, keys: Iterable[Key], reason: Loss) -> None:
        """Note that messages never come; written with the next change."""
        for key in keys:
            self._losses.add(key.boot, key.seq, reason)
            self.dropped[reason] = self.dropped.get(reason, 0) + 1
            self._are_losses_saved = False

    def save(self, fresh: Collection[Row], arrived: Collection[Row]) -> bool:
        """Write messages down and delete those that have arrived, in one transaction.

        Args:
            fresh: Statuses and metrics; beyond the quota the oldest metrics are dropped.
            arrived: Rows of the file.

        Returns:
            Whether it is durable; if not, nothing changed and ``problem`` says why.
        """
        size = self.metrics_bytes + _metrics_bytes(fresh) - _metrics_bytes(arrived)
        losses = Losses(self._losses.ranges)
        dropped: list[tuple[Key, int]] = []
        try:
            with self._file.transaction() as db:
                rows.delete(db, (row.key for row in arrived))
                rows.insert(db, fresh)
                if size > self._quota_bytes:
                    dropped = rows.drop_oldest_metrics(db, size - self._quota_bytes, self._kept)
                for key, _ in dropped:
                    losses.add(key.boot, key.seq, Loss.QUOTA)
                if dropped or not self._are_losses_saved:
                    rows.put_losses(db, losses.ranges)
        except StateError as error:
            self.problem, self._refused_s = error.message, self._now_s()
            return False
        self.problem, self._refused_s = "", None
        self._losses, self._are_losses_saved = losses, True
        self.metrics_bytes = size - sum(size_bytes for _, size_bytes in dropped)
        if dropped:
            self.counts[Priority.METRICS] -= len(dropped)
            self.dropped[Loss.QUOTA] = self.dropped.get(Loss.QUOTA, 0) + len(dropped)
        for sign, each in ((1, fresh), (-1, arrived)):
            for row in each:
                self.counts[row.priority] += sign
        self._expect(fresh)
        return True

    def tell_losses(self, row_of: Callable[[MetricsBatch], Row]) -> Row | None:
        """Turn what never comes into a message that itself is never lost.

        Args:
            row_of: Numbers the message.

        Returns:
            The message, durable; ``None`` where there is nothing to tell or the disk refuses.
        """
        if not self.has_losses or not self.is_asked:
            return None
        told, ends = self._losses.first(GAPS_MAX), self._ends[:GAPS_MAX]
        names = self.run.names
        row = row_of(
            MetricsBatch(
                gaps=tuple(
                    Gap(
                        boot_id=names[each.boot],
                        first_seq=each.first,
                        last_seq=each.last,
                        count=each.lost,
                        reason=each.reason,
                    )
                    for each in told
                    if each.boot in names
                ),
                ended=tuple(
                    Ended(boot_id=each.boot_id, last_seq=each.last_seq, is_exact=each.is_exact)
                    for each in ends
                ),
            )
        )
        rest = self._losses.without(told)
        try:
            with self._file.transaction() as db:
                rows.insert(db, [row])
                rows.put_losses(db, rest.ranges)
                for each in ends:
                    rows.put_boot(db, each._replace(ended=rows.CLEAN))
        except StateError as error:
            self.problem, self._refused_s = error.message, self._now_s()
            self.lose([row.key], Loss.DISK)
            return None
        self._losses, self._are_losses_saved = rest, True
        self._ends = self._ends[GAPS_MAX:]
        self.counts[row.priority] += 1
        self._expect([row])
        return row

    def end(self, last_seq: int, *, is_certain: bool) -> None:
        """Say that this run ended as it should.

        Args:
            last_seq: The last number it gave.
            is_certain: Whether it is known of each number what became of it.

        Raises:
            StateError: The disk refuses.
        """
        with self._file.transaction() as db:
            rows.put_boot(db, outbox_runs.ended_well(self.run, last_seq, is_certain=is_certain))

    def _expect(self, fresh: Collection[Row]) -> None:
        """Make new rows be found, though an older one may come after a younger one."""
        for row in fresh:
            self._has_more[row.priority] = True
            self._after[row.priority] = min(self._after[row.priority], row.key.id - 1)


def _metrics_bytes(several: Collection[Row]) -> int:
    return sum(row.size_bytes for row in several if row.priority is Priority.METRICS)
