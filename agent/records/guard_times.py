"""From when guard-rails count: the only SQL about it.

All moments are seconds of ``agent.elapsed_time``, never of the time of day. After a power cut that
counter may be behind a moment that was noted; the moment becomes one of now then, so that what
nobody knows makes guard-rails hold for longer.
"""

import sqlite3
from typing import Final

from agent.records.file import RecordsFile

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS stages_seen (
    model TEXT NOT NULL,
    version INTEGER NOT NULL,
    rollout TEXT NOT NULL,
    stage INTEGER NOT NULL,
    elapsed_s REAL NOT NULL,
    PRIMARY KEY (model, version, rollout, stage)
) STRICT;
CREATE TABLE IF NOT EXISTS versions_changed (
    update_id INTEGER PRIMARY KEY,
    model TEXT NOT NULL,
    elapsed_s REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS plans_known (
    channel TEXT PRIMARY KEY,
    issued_s REAL NOT NULL,
    elapsed_s REAL NOT NULL
) STRICT;
"""

ROLLOUTS_MAX: Final = 32
"""Rollouts of one model whose stages are remembered; a forgotten one begins anew, and slower."""
CHANGES_MAX: Final = 1000


class GuardTimes:
    """The tables; every method raises ``StateError`` when the disk refuses: nothing changed then.

    Args:
        file: agent.db, opened with ``SCHEMA`` among its schemas.
    """

    def __init__(self, file: RecordsFile) -> None:
        self._file = file

    def see_stage(
        self, model: str, version: int, rollout: str, stage: int, elapsed_s: float
    ) -> dict[int, float]:
        """Remember that a plan is at a stage, and give when each of its stages was first seen.

        Stages that were jumped over are seen with the one they were jumped for.

        Args:
            model: The plan's.
            version: The plan's.
            rollout: The plan's.
            stage: The plan's present one.
            elapsed_s: Now.

        Returns:
            Moments by index of the stage.
        """
        key = (model, version, rollout)
        where = "model = ? AND version = ? AND rollout = ?"
        with self._file.transaction() as connection:
            for each in range(stage + 1):
                connection.execute(
                    "INSERT INTO stages_seen VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (*key, each, elapsed_s),
                )
            connection.execute(
                f"UPDATE stages_seen SET elapsed_s = ? WHERE {where} AND elapsed_s > ?",  # noqa: S608
                (elapsed_s, *key, elapsed_s),
            )
            seen = connection.execute(
                f"SELECT stage, elapsed_s FROM stages_seen WHERE {where}",  # noqa: S608
                key,
            ).fetchall()
            connection.execute(
                "DELETE FROM stages_seen WHERE model = ?1 AND rollout NOT IN (SELECT rollout "
                "FROM stages_seen WHERE model = ?1 GROUP BY rollout "
                "ORDER BY rollout = ?2 DESC, max(elapsed_s) DESC LIMIT ?3)",
                (model, rollout, ROLLOUTS_MAX),
            )
        return dict(seen)

    def forget_stages(self, model: str, version: int, rollout: str) -> None:
        """Begin a rollout's stages anew, after it was aborted or taken back."""
        with self._file.transaction() as connection:
            connection.execute(
                "DELETE FROM stages_seen WHERE model = ? AND version = ? AND rollout = ?",
                (model, version, rollout),
            )

    def changes(self, model: str, elapsed_s: float) -> tuple[float, ...]:
        """Give when a model's version changed, oldest first.

        Args:
            model: Its name.
            elapsed_s: Now.
        """
        with self._file.transaction() as connection:
            connection.execute(
                "UPDATE versions_changed SET elapsed_s = ?1 WHERE model = ?2 AND elapsed_s > ?1",
                (elapsed_s, model),
            )
            rows = connection.execute(
                "SELECT elapsed_s FROM versions_changed WHERE model = ? ORDER BY elapsed_s",
                (model,),
            ).fetchall()
        return tuple(at_s for (at_s,) in rows)

    def see_plans(self, channel: str, issued_s: float, elapsed_s: float) -> float:
        """Remember that a channel's plans are those that were signed at a moment.

        Args:
            channel: Whose.
            issued_s: When they say that they were signed: their name here, and nothing more.
            elapsed_s: Now.

        Returns:
            For how long they have been known, in seconds.
        """
        with self._file.reading() as connection:
            row = connection.execute(
                "SELECT issued_s, elapsed_s FROM plans_known WHERE channel = ?", (channel,)
            ).fetchone()
        if row is not None and row[0] == issued_s and row[1] <= elapsed_s:
            return elapsed_s - float(row[1])
        with self._file.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO plans_known VALUES (?, ?, ?)",
                (channel, issued_s, elapsed_s),
            )
        return 0.0


def note_change(
    connection: sqlite3.Connection, update_id: int, model: str, elapsed_s: float
) -> None:
    """Note that a version changes; an update is one change, at its last moment.

    Args:
        connection: In the transaction that stores the update.
        update_id: Of the update.
        model: Its model.
        elapsed_s: Now.
    """
    connection.execute(
        "INSERT INTO versions_changed VALUES (?, ?, ?) "
        "ON CONFLICT (update_id) DO UPDATE SET elapsed_s = excluded.elapsed_s",
        (update_id, model, elapsed_s),
    )
    connection.execute(
        "DELETE FROM versions_changed WHERE model = ?1 AND rowid NOT IN (SELECT rowid FROM "
        "versions_changed WHERE model = ?1 ORDER BY update_id DESC LIMIT ?2)",
        (model, CHANGES_MAX),
    )
