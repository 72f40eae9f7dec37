"""The part of the outbox that is in memory: what the disk does not have, or not yet."""

from collections.abc import Collection
from itertools import islice
from typing import Final

from agent.records.outbox_rows import Key, Priority, Row

LATEST_MAX: Final = 64
UNSAVED_MAX: Final = 1000
"""Statuses kept in memory while the disk refuses them; beyond that the oldest is dropped."""


class Memory:
    """Messages in memory, by their keys and in the order of their age.

    Attributes:
        statuses: The disk refused them so far.
        metrics: Not on the disk yet.
        latest: Never on the disk.
        metrics_bytes: What the metrics count.
    """

    def __init__(self) -> None:
        self.statuses: dict[Key, Row] = {}
        self.metrics: dict[Key, Row] = {}
        self.latest: dict[Key, Row] = {}
        self.metrics_bytes = 0

    def add(self, row: Row) -> None:
        """Keep a message."""
        self._of(row.priority)[row.key] = row
        if row.priority is Priority.METRICS:
            self.metrics_bytes += row.size_bytes

    def next(self, priority: Priority, count: int, taken: Collection[Key]) -> list[Row]:
        """Give the oldest messages of a class that are not taken."""
        rest = (row for key, row in self._of(priority).items() if key not in taken)
        return list(islice(rest, max(count, 0)))

    def remove(self, key: Key) -> bool:
        """Forget a message; false where it is not here."""
        row = self.metrics.pop(key, None)
        if row is not None:
            self.metrics_bytes -= row.size_bytes
            return True
        return (self.latest.pop(key, None) or self.statuses.pop(key, None)) is not None

    def superseded(self, row: Row, seen: Collection[Key]) -> list[Key]:
        """Forget what a newer message of a topic replaces.

        Args:
            row: The newer one.
            seen: What the broker may have seen already; it is kept until that is known.

        Returns:
            What never comes.
        """
        gone = [
            key
            for key, each in self.latest.items()
            if each.topic == row.topic and key < row.key and key not in seen
        ]
        over = len(self.latest) - len(gone) - LATEST_MAX
        gone += [key for key in self.latest if key not in gone][: max(over, 0)]
        for key in gone:
            del self.latest[key]
        return gone

    def beyond(self, metrics_bytes: int, taken: Collection[Key]) -> list[Key]:
        """Forget the oldest of what the disk refuses and memory has no room for.

        Args:
            metrics_bytes: Most bytes of metrics.
            taken: What is under way, and is kept.

        Returns:
            What never comes.
        """
        gone = list(islice(self.statuses, max(len(self.statuses) - UNSAVED_MAX, 0)))
        size = self.metrics_bytes
        for key, row in self.metrics.items():
            if size <= metrics_bytes:
                break
            if key not in taken:
                gone.append(key)
                size -= row.size_bytes
        for key in gone:
            self.remove(key)
        return gone

    def _of(self, priority: Priority) -> dict[Key, Row]:
        if priority is Priority.STATUS:
            return self.statuses
        return self.latest if priority is Priority.LATEST else self.metrics
