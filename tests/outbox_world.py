"""An outbox for tests: opened, crashed and opened again, on a disk that can be full."""

from pathlib import Path
from typing import Any

import pytest

from agent.errors import StateError
from agent.records.outbox_rows import Priority, Row
from tests.linked_device import metrics, outbox_in, status

IN_FLIGHT = 4


class Turnable:
    """Seconds that rise when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        """Tell them."""
        return self.now_s


class World:
    """An outbox, closed and opened again on the same files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Turnable()
        self._settings: dict[str, Any] = {}
        self.open()

    def rows_on_flash(self) -> int:
        """Count the rows of the file."""
        with self.file.reading() as db:
            (count,) = db.execute("SELECT count(*) FROM outbox").fetchone()
        return int(count)

    def open(self, **changes: Any) -> None:  # noqa: ANN401 - of the outbox
        """Open it, with these settings from now on."""
        self._settings |= changes
        settings = {"now_s": self.clock, "in_flight_max": IN_FLIGHT, **self._settings}
        self.file, self.outbox = outbox_in(self.folder, **settings)

    def reopen(self, **changes: Any) -> None:  # noqa: ANN401
        """Close it well and open it again."""
        self.outbox.close()
        self.file.close()
        self.open(**changes)

    def crash(self, **changes: Any) -> None:  # noqa: ANN401
        """Lose what is in memory and open it again."""
        self.file.close()
        self.open(**changes)

    def add(self, priority: Priority, number: int = 0, topic: str = "t") -> int:
        """Put a message in; gives its number."""
        payload = metrics(number) if priority is Priority.METRICS else status(step=str(number))
        return self.outbox.add(topic, payload, priority)

    def drained(self) -> list[Row]:
        """Let everything arrive."""
        found: list[Row] = []
        while rows := self.outbox.take(IN_FLIGHT):
            found += rows
            for row in rows:
                self.outbox.arrived(row.key)
            self.outbox.settle()
        return found


class FullDisk:
    """The disk is full until ``empty``: the file may not become larger."""

    def __init__(self, world: World) -> None:
        self._world = world
        with world.file.transaction() as db:
            db.execute("CREATE TABLE filler (data BLOB)")
        with world.file.reading() as db:
            (pages,) = db.execute("PRAGMA page_count").fetchone()
            db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StateError):
            self._write()

    def _write(self) -> None:
        while True:
            with self._world.file.transaction() as db:
                db.execute("INSERT INTO filler VALUES (zeroblob(1000))")

    def empty(self) -> None:
        """Make room."""
        with self._world.file.reading() as db:
            db.execute("PRAGMA max_page_count = 1000000")
