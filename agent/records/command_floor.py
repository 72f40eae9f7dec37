"""The highest counter of a command of each key that this device has obeyed: none comes twice.

Each key has a floor of its own: a stolen one that gave the highest of all counters must not make
the device deaf to the key that follows it.
"""

from collections.abc import Collection
from typing import Final

from agent.records.file import RecordsFile

#: The first is of earlier versions, which had one floor; it is empty once that was taken over.
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS command_floor (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    counter INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS command_floors (
    key_id TEXT NOT NULL PRIMARY KEY,
    counter INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""


class CommandFloor:
    """The floors; a new command key begins at 0.

    Args:
        file: agent.db.
        keys: Ids of the keys that may command now: a floor that an earlier version wrote is theirs.

    Raises:
        StateError: The disk refused.
    """

    def __init__(self, file: RecordsFile, keys: Collection[str] = ()) -> None:
        self._file = file
        if keys:
            self._take_over(keys)

    def rise(self, key_id: str, counter: int) -> bool:
        """Raise the floor of a key to a command's counter; durable when this returns.

        Args:
            key_id: Of the key that signed the command.
            counter: The command's counter.

        Returns:
            Whether it was above the floor; if not, nothing changed.

        Raises:
            StateError: The disk refused; nothing changed.
        """
        with self._file.transaction() as db:
            changed = db.execute(
                "INSERT INTO command_floors VALUES (?, ?) ON CONFLICT (key_id) "
                "DO UPDATE SET counter = excluded.counter WHERE excluded.counter > counter",
                (key_id, counter),
            )
            return changed.rowcount == 1

    def _take_over(self, keys: Collection[str]) -> None:
        with self._file.reading() as db:
            old = db.execute("SELECT counter FROM command_floor").fetchone()
        if old is None:
            return
        for key_id in keys:
            self.rise(key_id, old[0])
        with self._file.transaction() as db:
            db.execute("DELETE FROM command_floor")
