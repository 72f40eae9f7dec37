"""Updates under way and over, and what plans need remembered: the only SQL about them.

What is stored, is stored before anybody acts on it. Words of states and reasons are those of
``agent.update`` and ``agent.plan``; this file neither knows nor checks them, so that what a newer
program wrote can be read.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Final

from agent.errors import StateError
from agent.records import guard_times
from agent.records.file import RecordsFile
from agent.records.guard_times import GuardTimes, note_change

SCHEMA: Final = (
    """
CREATE TABLE IF NOT EXISTS updates (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    model TEXT NOT NULL,
    kind TEXT NOT NULL,
    version INTEGER NOT NULL,
    back_to INTEGER,
    rollout TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    manifest_sha256 TEXT NOT NULL,
    again INTEGER NOT NULL,
    bytes_max INTEGER NOT NULL,
    state TEXT NOT NULL,
    phase TEXT NOT NULL,
    ending TEXT NOT NULL,
    code TEXT NOT NULL,
    reason TEXT NOT NULL,
    used_s REAL NOT NULL,
    waits INTEGER NOT NULL,
    losses INTEGER NOT NULL,
    seen_release INTEGER NOT NULL,
    is_reported INTEGER NOT NULL,
    created_s REAL NOT NULL,
    updated_s REAL NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS updates_model ON updates (model, id);
CREATE TABLE IF NOT EXISTS bad_manifests (
    model TEXT NOT NULL,
    manifest_sha256 TEXT NOT NULL,
    version INTEGER NOT NULL,
    reason TEXT NOT NULL,
    at_s REAL NOT NULL,
    PRIMARY KEY (model, manifest_sha256)
) STRICT;
CREATE TABLE IF NOT EXISTS counter_floors (
    model TEXT PRIMARY KEY,
    min_counter INTEGER NOT NULL
) STRICT;
"""
    + guard_times.SCHEMA
)

INSTALL: Final = "install"
REVERT: Final = "revert"

UPDATES_MAX: Final = 200
"""Updates of one model that are kept; the oldest that are over go first."""
BAD_MAX: Final = 200
_TEXT_CHARS_MAX: Final = 2000


@dataclass(frozen=True, kw_only=True)
class Update:
    """One release, or one way back, on its way through this device.

    Attributes:
        id: Of the row; rises.
        model: The model's name.
        kind: ``install`` or ``revert``.
        version: Of the plan.
        back_to: Version that a revert leads to; ``None`` for an install.
        rollout: That ordered it.
        sequence: Of the plan, as last seen.
        manifest_sha256: Of the release.
        again: Whether it may have been found bad before.
        bytes_max: Byte budget of the rollout; 0: no limit.
        state: As ``agent.update.states`` calls it.
        phase: Of the runtime's release, as last seen.
        ending: State that it comes to when the runtime has let go of it; empty: it goes on, or
            is over.
        code: Why it ended, or waits, in one frozen word.
        reason: The same for people.
        used_s: Seconds awake in this state so far.
        waits: How often it was reported to wait in this state.
        losses: How often what was downloaded was lost.
        seen_release: Highest id of the runtime's releases of this model before the hand-over; -1:
            nothing has been handed over.
        is_reported: Whether the fleet has been told of this state.
        created_s: Seconds since 1970, for people.
        updated_s: Of the last change of state.
    """

    id: int = 0
    model: str
    kind: str = INSTALL
    version: int
    back_to: int | None = None
    rollout: str
    sequence: int
    manifest_sha256: str = ""
    again: bool = False
    bytes_max: int = 0
    state: str
    phase: str = ""
    ending: str = ""
    code: str = ""
    reason: str = ""
    used_s: float = 0.0
    waits: int = 0
    losses: int = 0
    seen_release: int = -1
    is_reported: bool = False
    created_s: float = 0.0
    updated_s: float = 0.0


_COLUMNS: Final = tuple(field.name for field in fields(Update))
_BOOLEANS: Final = frozenset({"again", "is_reported"})


class Updates:
    """The tables of updates in agent.db.

    Every method raises ``StateError`` when the disk refuses; then nothing changed.

    Args:
        file: agent.db, opened with ``SCHEMA`` among its schemas.

    Attributes:
        times: From when guard-rails count.
    """

    def __init__(self, file: RecordsFile) -> None:
        self._file = file
        self.times = GuardTimes(file)

    def add(self, update: Update) -> Update:
        """Store a new update; gives it with its id."""
        names = _COLUMNS[1:]
        marks = ", ".join("?" for _ in names)
        with self._file.transaction() as connection:
            cursor = connection.execute(
                f"INSERT INTO updates ({', '.join(names)}) VALUES ({marks})",  # noqa: S608
                [_stored(getattr(update, name)) for name in names],
            )
            _forget_old_updates(connection, update.model)
            found = connection.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM updates WHERE id = ?",  # noqa: S608
                (cursor.lastrowid,),
            ).fetchone()
        return _update(found)

    def store(
        self,
        update: Update,
        *,
        change_at_s: float | None = None,
        bad_at_s: float | None = None,
        is_good: bool = False,
    ) -> None:
        """Store what became of an update, and what follows from it, in one transaction.

        Args:
            update: As it is now.
            change_at_s: The version changes by it, at this moment of the elapsed time; an update
                is one change, at its last moment.
            bad_at_s: Its release did harm, at this moment: remember it.
            is_good: Its release was committed: forget that it ever did harm.
        """
        names = _COLUMNS[1:]
        with self._file.transaction() as connection:
            connection.execute(
                f"UPDATE updates SET {', '.join(f'{name} = ?' for name in names)} WHERE id = ?",  # noqa: S608
                [*(_stored(getattr(update, name)) for name in names), update.id],
            )
            if change_at_s is not None:
                note_change(connection, update.id, update.model, change_at_s)
            if bad_at_s is not None and update.manifest_sha256:
                connection.execute(
                    "INSERT OR REPLACE INTO bad_manifests VALUES (?, ?, ?, ?, ?)",
                    (
                        update.model,
                        update.manifest_sha256,
                        update.version,
                        update.reason[:_TEXT_CHARS_MAX],
                        bad_at_s,
                    ),
                )
                _keep_bad(connection, update.model)
            if is_good:
                connection.execute(
                    "DELETE FROM bad_manifests WHERE model = ? AND manifest_sha256 = ?",
                    (update.model, update.manifest_sha256),
                )

    def tick(self, update_id: int, used_s: float) -> None:
        """Store how long an update has been in its state, seconds awake."""
        with self._file.transaction() as connection:
            connection.execute("UPDATE updates SET used_s = ? WHERE id = ?", (used_s, update_id))

    def reported(self, update_id: int, state: str) -> None:
        """Store that the fleet has been told of a state, if it is still that one."""
        with self._file.transaction() as connection:
            connection.execute(
                "UPDATE updates SET is_reported = 1 WHERE id = ? AND state = ?", (update_id, state)
            )

    def get(self, update_id: int) -> Update | None:
        """Give an update as it is stored."""
        found = self._select("WHERE id = ?", (update_id,))
        return found[0] if found else None

    def of_model(self, model: str, limit: int = UPDATES_MAX) -> list[Update]:
        """Give a model's updates, newest first."""
        return self._select("WHERE model = ? ORDER BY id DESC LIMIT ?", (model, limit))

    def except_in(self, states: Iterable[str]) -> list[Update]:
        """Give the updates of every model that are in none of some states, oldest first."""
        left_out = tuple(states)
        marks = ", ".join("?" for _ in left_out)
        return self._select(f"WHERE state NOT IN ({marks}) ORDER BY id", left_out)

    def unreported(self) -> list[Update]:
        """Give the updates whose state the fleet has not been told of, oldest first."""
        return self._select("WHERE is_reported = 0 ORDER BY id", ())

    def latest_in(self, state: str) -> list[Update]:
        """Give each model's newest update of all that are in a state."""
        return self._select(
            "WHERE id IN (SELECT max(id) FROM updates WHERE state = ? GROUP BY model) ORDER BY id",
            (state,),
        )

    def bad(self, model: str) -> dict[str, str]:
        """Give the SHA-256 of manifests that did harm here, with the reason."""
        with self._file.reading() as connection:
            return dict(
                connection.execute(
                    "SELECT manifest_sha256, reason FROM bad_manifests WHERE model = ?", (model,)
                ).fetchall()
            )

    def raise_min_counter(self, model: str, min_counter: int) -> int:
        """Remember the highest ``min_counter`` of a model's releases; gives the highest so far."""
        with self._file.reading() as connection:
            row = connection.execute(
                "SELECT min_counter FROM counter_floors WHERE model = ?", (model,)
            ).fetchone()
        highest = max(min_counter, 0 if row is None else row[0])
        if row is None or highest > row[0]:
            with self._file.transaction() as connection:
                connection.execute(
                    "INSERT INTO counter_floors VALUES (?1, ?2) ON CONFLICT (model) DO UPDATE "
                    "SET min_counter = max(min_counter, ?2)",
                    (model, highest),
                )
        return highest

    def _select(self, rest: str, values: tuple[object, ...]) -> list[Update]:
        with self._file.reading() as connection:
            rows = connection.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM updates {rest}",  # noqa: S608
                values,
            ).fetchall()
        return [_update(row) for row in rows]


def _forget_old_updates(connection: sqlite3.Connection, model: str) -> None:
    connection.execute(
        "DELETE FROM updates WHERE model = ?1 AND is_reported = 1 AND ending = '' AND id NOT IN "
        "(SELECT id FROM updates WHERE model = ?1 ORDER BY id DESC LIMIT ?2)",
        (model, UPDATES_MAX),
    )


def _keep_bad(connection: sqlite3.Connection, model: str) -> None:
    connection.execute(
        "DELETE FROM bad_manifests WHERE model = ?1 AND rowid NOT IN (SELECT rowid FROM "
        "bad_manifests WHERE model = ?1 ORDER BY at_s DESC LIMIT ?2)",
        (model, BAD_MAX),
    )


def _stored(value: object) -> object:
    if isinstance(value, bool):
        return int(value)
    return value[:_TEXT_CHARS_MAX] if isinstance(value, str) else value


def _update(row: tuple[object, ...]) -> Update:
    named = dict(zip(_COLUMNS, row, strict=True))
    try:
        return Update(
            **{name: bool(value) if name in _BOOLEANS else value for name, value in named.items()}  # type: ignore[arg-type]
        )
    except TypeError as error:
        raise StateError(f"a row of updates cannot be read: {error}") from error
