"""The counter of elapsed time in agent.db: one row."""

from typing import Final

from agent.elapsed_time import Belief, Kept
from agent.records.file import RecordsFile

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS elapsed_time (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    elapsed_s REAL NOT NULL,
    boot_id TEXT NOT NULL,
    since_boot_s REAL NOT NULL,
    believed_wall_s REAL,
    believed_elapsed_s REAL,
    believed_boot_id TEXT
) STRICT;
"""


class Elapsed:
    """The row; an ``agent.elapsed_time.Keeper``.

    Args:
        file: Where it is.
    """

    def __init__(self, file: RecordsFile) -> None:
        self._file = file

    def kept(self) -> Kept:
        """Read it; zero: there is none.

        Raises:
            StateError: The disk refused.
        """
        with self._file.reading() as connection:
            row = connection.execute(
                "SELECT elapsed_s, boot_id, since_boot_s, believed_wall_s, believed_elapsed_s, "
                "believed_boot_id FROM elapsed_time"
            ).fetchone()
        if row is None:
            return Kept()
        elapsed_s, boot_id, since_boot_s, *belief = row
        is_whole = None not in belief
        return Kept(elapsed_s, boot_id, since_boot_s, Belief(*belief) if is_whole else None)

    def keep(self, kept: Kept) -> None:
        """Write it.

        Raises:
            StateError: The disk refused; nothing changed.
        """
        belief = kept.belief
        with self._file.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO elapsed_time VALUES (1, ?, ?, ?, ?, ?, ?)",
                (
                    kept.elapsed_s,
                    kept.boot_id,
                    kept.since_boot_s,
                    *(
                        (None, None, None)
                        if belief is None
                        else (belief.wall_s, belief.elapsed_s, belief.boot_id)
                    ),
                ),
            )
