"""How a journal of an earlier version of this program becomes one of today.

A table that got columns is made anew and filled from the old one, because an altered table would
not have the text of ``journal_schema.TABLES``, by which a journal is told from another program's
file. Nothing else of an old journal changes; numbers of rows stay.

``ADDED`` is the whole list of what versions added. To add a column, put it into ``TABLES`` and
here: under the version that is not released yet, else under the next one, and raise
``SCHEMA_VERSION`` to that.
"""

import re
import sqlite3
from collections.abc import Mapping
from typing import Final

from edge_runtime.release.journal_schema import SCHEMA_VERSION, TABLES

_DIGEST_OF_BAD: Final = """
    coalesce((
        SELECT releases.digest FROM releases
        WHERE releases.manifest_sha256 = old.manifest_sha256 AND releases.digest <> ''
        ORDER BY releases.id DESC LIMIT 1
    ), '')
"""

Columns = Mapping[str, str]
"""Columns that are new, with the SQL that gives their value in an ``old`` row."""

ADDED: Final[Mapping[int, Mapping[str, Columns]]] = {
    2: {"bad_digests": {"digest": _DIGEST_OF_BAD}, "releases": {"proof": "''"}},
}
"""What each version of the schema added, by table; a table that was not there has no columns."""

_CREATE: Final = re.compile(r"CREATE TABLE (\w+) \(.*?\n\) STRICT;", re.DOTALL)
_OLD: Final = "old_table"


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a journal up to date, within a transaction of the caller; triggers and indexes go.

    Args:
        connection: A journal whose ``user_version`` is at least 1 and not beyond ours.

    Raises:
        sqlite3.Error: It cannot be written, or its tables are not those of its version.
    """
    present: int = connection.execute("PRAGMA user_version").fetchone()[0]
    added: dict[str, dict[str, str]] = {}
    for version in range(present + 1, SCHEMA_VERSION + 1):
        for table, columns in ADDED[version].items():
            added.setdefault(table, {}).update(columns)
    # They name the tables that are replaced; ``restore_guards`` makes those of today.
    guards = connection.execute(
        "SELECT type, name FROM sqlite_schema WHERE type IN ('index', 'trigger') AND sql NOT NULL"
    ).fetchall()
    for kind, name in guards:
        quoted = name.replace('"', '""')
        connection.execute(f'DROP {kind} "{quoted}"')
    for table, columns in added.items():
        _remake(connection, table, columns)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _remake(connection: sqlite3.Connection, table: str, columns: Columns) -> None:
    create = {match[1]: match[0] for match in _CREATE.finditer(TABLES)}[table]
    if not columns:
        connection.execute(create)
        return
    connection.execute(f"ALTER TABLE {table} RENAME TO {_OLD}")
    connection.execute(create)
    kept = [f'"{row[1]}"' for row in connection.execute(f"PRAGMA table_info({_OLD})")]
    names = ", ".join([*kept, *(f'"{name}"' for name in columns)])
    values = ", ".join([*(f"old.{name}" for name in kept), *columns.values()])
    connection.execute(
        f"INSERT INTO {table} ({names}) SELECT {values} FROM {_OLD} AS old"  # noqa: S608 - ours
    )
    connection.execute(f"DROP TABLE {_OLD}")
