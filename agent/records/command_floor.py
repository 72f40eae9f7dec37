"""The highest counter of a command that this device has obeyed: none comes twice."""

from typing import Final

from agent.records.file import RecordsFile

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS command_floor (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    counter INTEGER NOT NULL
);
"""


class CommandFloor:
    """The floor; a new command key goes on where the old one stopped.

    Args:
        file: agent.db.
    """

    def __init__(self, file: RecordsFile) -> None:
        self._file = file

    def rise(self, counter: int) -> bool:
        """Raise the floor to a command's counter; durable when this returns.

        Args:
            counter: Its counter.

        Returns:
            Whether it was above the floor; if not, nothing changed.

        Raises:
            StateError: The disk refused; nothing changed.
        """
        with self._file.transaction() as db:
            changed = db.execute(
                "INSERT INTO command_floor VALUES (1, ?) ON CONFLICT (only) "
                "DO UPDATE SET counter = excluded.counter WHERE excluded.counter > counter",
                (counter,),
            )
            return changed.rowcount == 1
