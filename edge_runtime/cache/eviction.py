"""What leaves the file, inside the transaction that brings something new. With ``store``, all SQL.

What was written first leaves first, which is also what would end its life first.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from edge_runtime.cache.life import SLACK_S
from edge_runtime.cache.subject import Identity

CHUNK: Final = 256  # rows let go in one step, so that readers need not wait long


class Version(NamedTuple):
    """A version that has answers in the file.

    Attributes:
        identity: What tells it from others.
        keep_ms: Milliseconds until an answer of it is of no use to anybody.
        max_bytes: Most that the answers of its model take.
        described: What ``Subject.describe`` wrote.
        retired: Whether another digest or engine took its place.
    """

    identity: Identity
    keep_ms: int
    max_bytes: int
    described: bytes
    retired: bool


class Held(NamedTuple):
    """How much is kept of something."""

    entries: int = 0
    size_bytes: int = 0


class _Doomed(NamedTuple):
    id: int
    version: int
    size: int
    fingerprint: int


class Eviction:
    """Removes rows and keeps count, for one transaction.

    Args:
        connection: In a transaction.
        versions: By their number in the file.
        held: What is kept of each.

    Attributes:
        held: What is kept of each, as it will be after the commit.
        gone: Fingerprints of what was removed.
        evicted: How many of those had belonged to each version.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        versions: Mapping[int, Version],
        held: Mapping[int, Held],
    ) -> None:
        self._connection = connection
        self._versions = versions
        self.held = dict(held)
        self.gone: set[int] = set()
        self.evicted: dict[Identity, int] = {}

    def count(self, version: int, entries: int, size_bytes: int) -> None:
        """Count rows that came, or with negative numbers some that went."""
        before = self.held.get(version, Held())
        self.held[version] = Held(before.entries + entries, before.size_bytes + size_bytes)

    def expire(self, now_ms: int) -> None:
        """Remove some of what is of no use any more, and of what claims to be from the future."""
        for id_, version in self._versions.items():
            rows = self._connection.execute(
                "SELECT id, version, size, fingerprint, created_ms FROM answers WHERE version = ?"
                " ORDER BY id LIMIT ?",
                (id_, CHUNK),
            )
            dead = []
            for row in rows.fetchall():
                if -SLACK_S * 1000 <= now_ms - row[4] < version.keep_ms:
                    break
                dead.append(_Doomed(*row[:4]))
            self._remove(dead)

    def limit_model(self, model: str) -> None:
        """Remove the oldest rows of a model until it is within its own limit."""
        ids = [id_ for id_, each in self._versions.items() if each.identity[0] == model]
        most = min(self._versions[id_].max_bytes for id_ in ids)
        while (excess := sum(self.held.get(id_, Held()).size_bytes for id_ in ids) - most) > 0:
            oldest = sorted(row for id_ in ids for row in self._oldest_of(id_, CHUNK))[:CHUNK]
            doomed = []
            for row in oldest:
                if excess <= 0:
                    break
                doomed.append(row)
                excess -= row.size
            _check_found(doomed)
            self._remove(doomed)

    def limit_all(self, most_bytes: int, most_entries: int) -> None:
        """Remove the oldest rows of all until the file is within its limits.

        Args:
            most_bytes: Of pages in use.
            most_entries: Of rows.
        """
        while entries := sum(each.entries for each in self.held.values()):
            excess = entries - most_entries
            if excess <= 0:
                if used_bytes(self._connection) <= most_bytes:
                    return
                excess = max(1, min(CHUNK, entries // 16))
            rows = self._connection.execute(
                "SELECT id, version, size, fingerprint FROM answers ORDER BY id LIMIT ?",
                (min(excess, CHUNK),),
            )
            doomed = [_Doomed(*row) for row in rows.fetchall()]
            _check_found(doomed)
            self._remove(doomed)

    def forget(self, version: int) -> bool:
        """Remove some rows of a version; whether there may be more."""
        oldest = self._oldest_of(version, CHUNK)
        self._remove(oldest)
        return len(oldest) == CHUNK

    def discard(self, fingerprint: int) -> None:
        """Remove one row, if it is there."""
        rows = self._connection.execute(
            "DELETE FROM answers WHERE fingerprint = ? RETURNING version, size", (fingerprint,)
        )
        for version, size in rows.fetchall():
            self.count(version, -1, -size)

    def _oldest_of(self, version: int, count: int) -> list[_Doomed]:
        rows = self._connection.execute(
            "SELECT id, version, size, fingerprint FROM answers WHERE version = ?"
            " ORDER BY id LIMIT ?",
            (version, count),
        )
        return [_Doomed(*row) for row in rows.fetchall()]

    def _remove(self, rows: Iterable[_Doomed]) -> None:
        for row in rows:
            self._connection.execute("DELETE FROM answers WHERE id = ?", (row.id,))
            self.count(row.version, -1, -row.size)
            self.gone.add(row.fingerprint)
            identity = self._versions[row.version].identity
            self.evicted[identity] = self.evicted.get(identity, 0) + 1


def _check_found(rows: Sequence[_Doomed]) -> None:
    """Make sure that there are rows where some were counted; else this would never end.

    Raises:
        sqlite3.DatabaseError: There are none: the file contradicts itself.
    """
    if not rows:
        raise sqlite3.DatabaseError("there are fewer answers in the file than were counted")


def pragma(connection: sqlite3.Connection, name: str) -> int:
    """Read a number that SQLite keeps."""
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def used_bytes(connection: sqlite3.Connection) -> int:
    """Measure the pages that are in use."""
    pages = pragma(connection, "page_count") - pragma(connection, "freelist_count")
    return pages * pragma(connection, "page_size")
