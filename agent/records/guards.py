"""A second, small file of what guards this device: it outlives a damaged agent.db.

Old metadata, old commands, withdrawn releases and plans in a hurry are refused because of what was
seen before. These rows are few. Whenever one of them has changed, all of them are written to a file
beside the database, which is replaced as a whole; a database that has to begin anew takes them from
there. What moves along without a write of its own, such as the time that has passed, comes back as
it was at the last of these changes: then guards count too little time, and hold for longer.

Which rows have changed is noted by triggers of the connection, so that nobody who writes them has
to think of it.
"""

import logging
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.durable_file import replace_file
from agent.errors import StateError

_log = logging.getLogger(__name__)

ENDING: Final = ".guards"
"""Ends the name of the file: agent.db.guards."""
GUARDED: Final[Mapping[str, str]] = {
    "version_floors": "versions of metadata",
    "time_floor": "the time floor",
    "signed_time": "the time that others signed",
    "command_floors": "the counters of commands",
    "counter_floors": "least counters of releases",
    "bad_manifests": "releases that did harm",
    "versions_changed": "when versions changed",
    "stages_seen": "when stages were seen",
    "plans_known": "since when plans are known",
}
"""Tables of which a change is copied, and what is in them."""
ALONG: Final = ("elapsed_time", "sqlite_sequence", "command_floor")
"""Tables that are copied with them: what their rows are counted by, and what an earlier version
wrote."""
NOT_KEPT: Final = ("updates under way", "messages that waited", "bytes counted this month")

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS records_loss (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    reason TEXT NOT NULL,
    kept TEXT NOT NULL,
    lost TEXT NOT NULL,
    is_told INTEGER NOT NULL
) STRICT;
"""
_NOTING: Final = "guard_changes"
_SEPARATOR: Final = "; "


class Table(msgspec.Struct, frozen=True):
    """The rows of a table.

    Attributes:
        columns: Their names.
        rows: Values in this order.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


Tables = dict[str, Table]


@dataclass(frozen=True, slots=True)
class RecordsLoss:
    """A database that had to begin anew.

    Attributes:
        reason: Why.
        kept: What of it came back from the copy, in words.
        lost: What did not.
        is_told: Whether the fleet has been told.
    """

    reason: str
    kept: tuple[str, ...]
    lost: tuple[str, ...]
    is_told: bool = False


class GuardCopy:
    """The file.

    Args:
        database: The database's path.
    """

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + ENDING)
        self._copied: Tables = self.read() or {}
        self._changes = 0
        self._is_failing = False

    def read(self) -> Tables | None:
        """Read the copy; ``None``: there is none that is whole."""
        try:
            text, _, digest = self._path.read_bytes().rstrip(b"\n").rpartition(b"\n")
            if sha256(text).hexdigest().encode() != digest:
                _log.error("%s is damaged: what guards this device begins anew", self._path)
                return None
            return msgspec.json.decode(text, type=Tables)
        except (OSError, msgspec.MsgspecError):
            return None

    def watch(self, connection: sqlite3.Connection) -> None:
        """Note from now on what changes over a connection, and copy what has changed before."""
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"CREATE TEMP TABLE {_NOTING} (count INTEGER NOT NULL)")
        connection.execute(f"INSERT INTO temp.{_NOTING} VALUES (0)")  # noqa: S608 - our own name
        for table in _present(connection, GUARDED):
            for event in ("INSERT", "UPDATE", "DELETE"):
                connection.execute(
                    f"CREATE TEMP TRIGGER {table}_{event} AFTER {event} ON main.{table} "  # noqa: S608 - our own names
                    f"BEGIN UPDATE {_NOTING} SET count = count + 1; END"
                )
        self._keep(_tables(connection))

    def follow(self, connection: sqlite3.Connection) -> None:
        """Write the copy if something that guards has changed; what the disk refuses waits."""
        (changes,) = connection.execute(f"SELECT count FROM temp.{_NOTING}").fetchone()  # noqa: S608
        if changes != self._changes and self._keep(_tables(connection)):
            self._changes = changes

    def _keep(self, tables: Tables) -> bool:
        if _guarding(tables) == _guarding(self._copied):
            return True
        text = msgspec.json.encode(tables)
        try:
            replace_file(self._path, text + b"\n" + sha256(text).hexdigest().encode() + b"\n")
        except StateError as error:
            if not self._is_failing:
                _log.warning("the copy of what guards this device is old: %s", error.message)
            self._is_failing = True
            return False
        self._copied = tables
        self._is_failing = False
        return True


def restore(connection: sqlite3.Connection, reason: str, copy: Tables | None) -> RecordsLoss | None:
    """Put what guards this device into a database that begins, and note that it had to.

    Args:
        connection: In a transaction; the tables are there, and empty.
        reason: Why it begins; empty: nobody knows of an earlier one.
        copy: What was copied; ``None``: nothing.

    Returns:
        What came of it; ``None``: it is the first database here.
    """
    if not reason and copy is None:
        return None
    kept = [
        table
        for table in _present(connection, (*GUARDED, *ALONG))
        if copy is not None and _came_back(connection, table, copy.get(table))
    ]
    loss = RecordsLoss(
        reason or "it was gone",
        tuple(words for table, words in GUARDED.items() if table in kept),
        (*(words for table, words in GUARDED.items() if table not in kept), *NOT_KEPT),
    )
    connection.execute(
        "INSERT OR REPLACE INTO records_loss VALUES (1, ?, ?, ?, 0)",
        (loss.reason, _SEPARATOR.join(loss.kept), _SEPARATOR.join(loss.lost)),
    )
    return loss


def read_loss(connection: sqlite3.Connection) -> RecordsLoss | None:
    """Read what was noted; ``None``: the database never had to begin anew."""
    row = connection.execute("SELECT reason, kept, lost, is_told FROM records_loss").fetchone()
    if row is None:
        return None
    kept, lost = (tuple(filter(None, text.split(_SEPARATOR))) for text in row[1:3])
    return RecordsLoss(row[0], kept, lost, bool(row[3]))


def _came_back(connection: sqlite3.Connection, table: str, copied: Table | None) -> bool:
    """Put a table's rows back; one of which nothing was copied had none."""
    if copied is None:
        return True
    known = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
    if not known.issuperset(copied.columns):
        return False  # another version of this program copied it
    marks = ", ".join("?" for _ in copied.columns)
    names = ", ".join(copied.columns)
    connection.execute("SAVEPOINT guards")
    try:
        connection.executemany(
            f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({marks})",  # noqa: S608 - known names
            copied.rows,
        )
    except sqlite3.Error as error:
        _log.error("%s cannot be taken from its copy: %s", table, error)
        connection.execute("ROLLBACK TO guards")
        return False
    finally:
        connection.execute("RELEASE guards")
    return True


def _tables(connection: sqlite3.Connection) -> Tables:
    found = {}
    for table in _present(connection, (*GUARDED, *ALONG)):
        cursor = connection.execute(f"SELECT * FROM {table}")  # noqa: S608 - our own names
        rows = tuple(cursor.fetchall())
        if rows:
            found[table] = Table(tuple(each[0] for each in cursor.description), rows)
    return found


def _guarding(tables: Tables) -> Tables:
    return {name: table for name, table in tables.items() if name in GUARDED}


def _present(connection: sqlite3.Connection, names: Iterable[str]) -> list[str]:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    there = {name for (name,) in rows}
    return [name for name in names if name in there]
