"""The file agent.db: opened, checked, and changed one transaction at a time.

Tables and their SQL are in the neighbours; each gives its ``SCHEMA``. A file that is not a whole
database is set aside, never deleted, and a new one is begun: the agent must go on. What guards the
device comes back from a copy then, see ``guards``, and that it happened is noted in the new one.

All that is done at the start. Damage that shows later is only noted, and whoever runs the agent is
told: it ends, and its next start does the rest.
"""

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from agent.errors import StateError
from agent.records import guards, old_schema
from agent.records.guards import GuardCopy, RecordsLoss

_log = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 1
FILE_MODE: Final = 0o600
BUSY_S: Final = 5.0
WAL_BYTES_MAX: Final = 4 * 1024 * 1024
ASIDE: Final = ".damaged"
"""Ends the name of a file that was set aside; an older one of this name is replaced."""
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PRIMARY: Final = 0xFF
"""What of an error code of SQLite is the primary one."""


class RecordsFile:
    """A database file that several threads use, one at a time.

    Args:
        path: The file; its folder must be there.
        schemas: ``CREATE TABLE IF NOT EXISTS`` statements of every group of tables.

    Attributes:
        aside: Where a damaged one is put.
        began_anew: Whether it had to begin anew when it was opened.
        damage: What shows that it was damaged since; empty: nothing does.

    Raises:
        StateError: The file cannot be opened or made, or a newer program wrote it.
    """

    def __init__(self, path: Path, schemas: Iterable[str]) -> None:
        self._path = path
        self._lock = threading.RLock()
        self.aside = path.with_name(path.name + ASIDE)
        self.damage = ""
        self._on_damage: Callable[[], None] = lambda: None
        self._copy = GuardCopy(path)
        text = "".join((guards.SCHEMA, *schemas))
        try:
            self._connection, self.began_anew = _opened(path, text, self._copy)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            # The latter where the error's own text quotes bytes of the damaged schema.
            if isinstance(error, sqlite3.OperationalError):
                raise StateError(f"cannot open {path}: {error}") from error
            _log.error("%s is damaged (%s): it is set aside, and a new one is begun", path, error)
            try:
                _set_aside(path, self.aside)
                self._connection, self.began_anew = _opened(
                    path, text, self._copy, f"it was damaged: {error}"
                )
            except (OSError, UnicodeDecodeError, sqlite3.DatabaseError) as again:
                raise StateError(f"cannot replace the damaged {path}: {again}") from again

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Change the file as a whole or not at all; durable when the block is left.

        Raises:
            StateError: The disk refused; nothing changed.
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):
                        self._connection.execute("ROLLBACK")
                    raise
                self._copy.follow(self._connection)
            except sqlite3.Error as error:
                self._note(error)
                raise StateError(f"cannot write to {self._path}: {error}") from error

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read.

        Raises:
            StateError: The disk refused.
        """
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as error:
                self._note(error)
                raise StateError(f"cannot read {self._path}: {error}") from error

    def heed_damage(self, on_damage: Callable[[], None]) -> None:
        """Have somebody told when damage shows; at once where it has.

        Args:
            on_damage: Called once, on whatever thread finds it; may not block.
        """
        with self._lock:
            self._on_damage = on_damage
            if self.damage:
                on_damage()

    def loss(self) -> RecordsLoss | None:
        """Say what was lost when the file had to begin anew; ``None``: it never had to.

        Raises:
            StateError: The disk refused.
        """
        with self.reading() as connection:
            return guards.read_loss(connection)

    def loss_is_told(self) -> None:
        """Note that the fleet has been told of the loss.

        Raises:
            StateError: The disk refused; nothing changed.
        """
        with self.transaction() as connection:
            connection.execute("UPDATE records_loss SET is_told = 1")

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._connection.close()

    def _note(self, error: sqlite3.Error) -> None:
        # An error that Python's module raises by itself has no code.
        if not self.damage and getattr(error, "sqlite_errorcode", 0) & _PRIMARY in _DAMAGE:
            self.damage = f"{self._path} is damaged: {error}"
            self._on_damage()


def _opened(
    path: Path, schema: str, copy: GuardCopy, reason: str = ""
) -> tuple[sqlite3.Connection, bool]:
    """Open the file, and tell whether what it holds had to begin anew."""
    has_begun_anew = False
    path.touch(FILE_MODE)
    connection = sqlite3.connect(
        path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_MAX}")
        # The whole check, indexes too: else what ends the agent might be passed over at each start.
        if connection.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("its pages contradict each other")  # noqa: TRY301
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StateError(  # noqa: TRY301
                f"{path} was written by a newer edge-agent (schema {version}, this one reads "
                f"{SCHEMA_VERSION}); install that one again, or move the file away"
            )
        connection.executescript(schema)
        if version == 0:
            # In one step: a file that was begun and killed has nothing yet, and begins again.
            connection.execute("BEGIN IMMEDIATE")
            has_begun_anew = guards.restore(connection, reason, copy.read()) is not None
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute("COMMIT")
        old_schema.carry_over(connection)
        copy.watch(connection)
    except BaseException:
        connection.close()
        raise
    return connection, has_begun_anew


def _set_aside(path: Path, aside: Path) -> None:
    path.replace(aside)
    for more in ("-wal", "-shm"):
        path.with_name(path.name + more).unlink(missing_ok=True)
