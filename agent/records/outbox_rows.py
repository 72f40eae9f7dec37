"""Tables of the outbox and every statement on them.

A row's ``id`` is the run of the agent that numbered it, times 2^40, plus its number: rows in the
order of their ids are in the order of their age.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from agent.messages import Loss
from agent.records.losses import Losses, Range

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS outbox_boots (
    boot INTEGER PRIMARY KEY,
    boot_id TEXT NOT NULL UNIQUE,
    ended TEXT NOT NULL,
    last_seq INTEGER NOT NULL,
    is_exact INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS outbox (
    id INTEGER PRIMARY KEY,
    priority INTEGER NOT NULL,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    retain INTEGER NOT NULL,
    expiry_s REAL
);
CREATE INDEX IF NOT EXISTS outbox_statuses ON outbox (id) WHERE priority = 0;
CREATE TABLE IF NOT EXISTS outbox_losses (
    boot INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    count INTEGER NOT NULL,
    reason TEXT NOT NULL
);
"""
ROW_BYTES: Final = 160
"""What a row costs beside its payload, towards the quota."""
BOOTS_KEPT: Final = 64
"""Runs that are remembered after all of theirs has been told: clones are known by them."""
_SEQ_BITS: Final = 40
_SEQ_MASK: Final = (1 << _SEQ_BITS) - 1

RUNNING: Final = "running"
CLEAN: Final = "clean"
UNCLEAN: Final = "unclean"


class Priority(IntEnum):
    """What goes first, and what may be dropped."""

    STATUS = 0
    """Statuses of jobs and answers to commands: durable, never dropped."""
    LATEST = 1
    """Births and the like: in memory, and only the newest of a topic."""
    METRICS = 2
    """Measurements: the oldest are dropped where there is no room."""


ON_FLASH: Final = (Priority.STATUS, Priority.METRICS)

# The class stands in the text, so that statuses are found by their index.
_OLDEST: Final = {
    Priority.STATUS: "SELECT id, topic, payload, retain, expiry_s FROM outbox "
    "WHERE priority = 0 AND id > ? ORDER BY id LIMIT ?",
    Priority.METRICS: "SELECT id, topic, payload, retain, expiry_s FROM outbox "
    "WHERE priority = 2 AND id > ? ORDER BY id LIMIT ?",
}
_SIZES: Final = {
    Priority.STATUS: "SELECT count(*), coalesce(sum(length(payload) + length(topic)), 0) "
    "FROM outbox WHERE priority = 0",
    Priority.METRICS: "SELECT count(*), coalesce(sum(length(payload) + length(topic)), 0) "
    "FROM outbox WHERE priority = 2",
}


class Key(NamedTuple):
    """Names a message for good.

    Attributes:
        boot: Number of the run of the agent.
        seq: Number of the message in it, from 1.
    """

    boot: int
    seq: int

    @property
    def id(self) -> int:
        """The row's id."""
        return self.boot << _SEQ_BITS | self.seq


def key_of(row_id: int) -> Key:
    """Give the key of a row's id."""
    return Key(row_id >> _SEQ_BITS, row_id & _SEQ_MASK)


@dataclass(frozen=True, slots=True)
class Row:
    """A message that waits.

    Attributes:
        key: Its name.
        boot_id: Which run numbered it, as it is told.
        priority: Its class.
        topic: Where it goes.
        payload: What it says.
        retain: Whether the broker keeps it.
        expiry_s: How long a broker keeps it for a receiver that is away; ``None``: for ever.
    """

    key: Key
    boot_id: str
    priority: Priority
    topic: str
    payload: bytes
    retain: bool = False
    expiry_s: float | None = None

    @property
    def size_bytes(self) -> int:
        """What it counts towards a quota."""
        return len(self.payload) + len(self.topic) + ROW_BYTES


class Boot(NamedTuple):
    """A run of the agent.

    Attributes:
        boot: Its number.
        boot_id: What it is called.
        ended: ``running``, ``clean`` or ``unclean``.
        last_seq: The last number it gave, where it has ended.
        is_exact: Whether that is certain.
    """

    boot: int
    boot_id: str
    ended: str
    last_seq: int
    is_exact: bool


def boots(db: sqlite3.Connection) -> list[Boot]:
    """Give every run that is remembered, the oldest first."""
    rows = db.execute(
        "SELECT boot, boot_id, ended, last_seq, is_exact FROM outbox_boots ORDER BY boot"
    )
    return [Boot(boot, name, ended, last, bool(exact)) for boot, name, ended, last, exact in rows]


def put_boot(db: sqlite3.Connection, boot: Boot) -> None:
    """Write a run down."""
    db.execute("INSERT OR REPLACE INTO outbox_boots VALUES (?, ?, ?, ?, ?)", boot)


def prune_boots(db: sqlite3.Connection, current: int) -> None:
    """Forget runs long past of which nothing waits."""
    old = db.execute(
        "SELECT boot FROM outbox_boots WHERE ended = ? AND boot <= ? "
        "AND boot NOT IN (SELECT boot FROM outbox_losses)",
        (CLEAN, current - BOOTS_KEPT),
    ).fetchall()
    for (boot,) in old:
        if not last_seq(db, boot):
            db.execute("DELETE FROM outbox_boots WHERE boot = ?", (boot,))


def last_seq(db: sqlite3.Connection, boot: int) -> int:
    """Give the highest number of a run that the file knows; 0: none."""
    (row_id,) = db.execute(
        "SELECT max(id) FROM outbox WHERE id BETWEEN ? AND ?",
        (Key(boot, 0).id, Key(boot, _SEQ_MASK).id),
    ).fetchone()
    (lost,) = db.execute("SELECT max(last) FROM outbox_losses WHERE boot = ?", (boot,)).fetchone()
    return max(0 if row_id is None else key_of(row_id).seq, lost or 0)


def insert(db: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Write messages down."""
    db.executemany(
        "INSERT OR IGNORE INTO outbox VALUES (?, ?, ?, ?, ?, ?)",
        [
            (row.key.id, row.priority, row.topic, row.payload, row.retain, row.expiry_s)
            for row in rows
        ],
    )


def delete(db: sqlite3.Connection, keys: Iterable[Key]) -> None:
    """Forget messages that have arrived."""
    db.executemany("DELETE FROM outbox WHERE id = ?", [(key.id,) for key in keys])


def oldest(
    db: sqlite3.Connection, priority: Priority, after: int, count: int, names: dict[int, str]
) -> list[Row]:
    """Give the oldest messages of a class.

    Args:
        db: The file.
        priority: The class.
        after: Only ids above this one.
        count: How many at most.
        names: Of the runs, by their numbers.
    """
    rows = db.execute(_OLDEST[priority], (after, count))
    found = []
    for row_id, topic, payload, retain, expiry_s in rows:
        key = key_of(row_id)
        name = names.get(key.boot, "")
        found.append(Row(key, name, priority, topic, payload, bool(retain), expiry_s))
    return found


def sizes(db: sqlite3.Connection, priority: Priority) -> tuple[int, int]:
    """Give how many messages of a class wait, and their bytes towards a quota."""
    count, size = db.execute(_SIZES[priority]).fetchone()
    return count, size + count * ROW_BYTES


def drop_oldest_metrics(
    db: sqlite3.Connection, excess_bytes: int, kept: int
) -> list[tuple[Key, int]]:
    """Make room.

    Args:
        db: The file.
        excess_bytes: How much at least, if there is as much.
        kept: So many of the oldest are kept: nobody knows whether they have arrived.

    Returns:
        What was dropped, and what each counted towards the quota.
    """
    edge = db.execute(
        "SELECT id FROM outbox WHERE priority = 2 ORDER BY id LIMIT 1 OFFSET ?",
        (max(kept - 1, 0),),
    ).fetchone()
    if edge is None:
        return []
    dropped: list[tuple[Key, int]] = []
    rows = db.execute(
        "SELECT id, topic, length(payload) FROM outbox WHERE priority = 2 AND id > ? ORDER BY id",
        (edge[0] if kept else -1,),
    )
    for row_id, topic, size in rows:
        if excess_bytes <= 0:
            break
        size_bytes = size + len(topic) + ROW_BYTES
        dropped.append((key_of(row_id), size_bytes))
        excess_bytes -= size_bytes
    rows.close()
    delete(db, [key for key, _ in dropped])
    return dropped


def drop_of_others(db: sqlite3.Connection, own: str) -> list[Key]:
    """Forget what was to be said under another name than this device's: nobody will take it.

    Args:
        db: The file.
        own: What each topic of this device begins with.

    Returns:
        What was dropped, the oldest first.
    """
    rows = db.execute(
        "SELECT id FROM outbox WHERE substr(topic, 1, ?) <> ? ORDER BY id", (len(own), own)
    )
    dropped = [key_of(row_id) for (row_id,) in rows]
    delete(db, dropped)
    return dropped


def losses(db: sqlite3.Connection) -> Losses:
    """Give what never comes and has not been told."""
    rows = db.execute("SELECT boot, first, last, count, reason FROM outbox_losses")
    return Losses(Range(boot, first, last, n, _loss(why)) for boot, first, last, n, why in rows)


def _loss(word: str) -> Loss:
    """Read why; what a newer program wrote is gone all the same, and the fleet is told so."""
    try:
        return Loss(word)
    except ValueError:
        return Loss.DISK


def put_losses(db: sqlite3.Connection, ranges: Sequence[Range]) -> None:
    """Write down what never comes, in the place of what was written before."""
    db.execute("DELETE FROM outbox_losses")
    db.executemany("INSERT INTO outbox_losses VALUES (?, ?, ?, ?, ?)", ranges)
