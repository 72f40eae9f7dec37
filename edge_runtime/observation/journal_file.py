"""The file journal.db: rows of predictions that were kept, and their numbers.

A row's number is never given twice, so whoever collects them can tell what is missing. The name of
the journal changes when the file begins anew.
"""

import sqlite3
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple, Self
from urllib.parse import quote

from edge_runtime.errors import ArtifactError, StorageError
from edge_runtime.observation.journal_record import Facts

SCHEMA_VERSION: Final = 1
FILE_MODE: Final = 0o600
BUSY_S: Final = 5.0
ROW_BYTES: Final = 160
"""What a row takes besides its record."""
_UNFINISHED: Final = ".new"

_SCHEMA: Final = """
CREATE TABLE journal (name TEXT NOT NULL);
CREATE TABLE predictions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    reason TEXT NOT NULL,
    is_encrypted INTEGER NOT NULL,
    record BLOB NOT NULL
);
CREATE INDEX by_model ON predictions (model, number);
"""
_COLUMNS: Final = "number, model, version, digest, at_ms, reason, is_encrypted, record"


class Row(NamedTuple):
    """One prediction that was kept.

    Attributes:
        number: Rises with every row, and is never given twice.
        facts: What the row says in the open.
        is_encrypted: Whether the record is.
        record: See ``journal_record``.
    """

    number: int
    facts: Facts
    is_encrypted: bool
    record: bytes


class Held(NamedTuple):
    """What is kept of one model.

    Attributes:
        model: Its name.
        rows: How many.
        size_bytes: What they take.
        oldest_ms: When the oldest was kept.
    """

    model: str
    rows: int
    size_bytes: int
    oldest_ms: int


class JournalFile:
    """The open file. Not for several threads at once; several processes may have it open.

    Args:
        connection: To a file with the schema.
        path: Its path, for messages.
        name: Of this journal; another one when the file begins anew.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, name: str) -> None:
        self._connection = connection
        self._path = path
        self.name = name

    @classmethod
    def create(cls, path: Path) -> Self:
        """Begin a journal, and open it.

        The file gets its name when it is whole: turning one into a write-ahead log while another
        connection opens it fails now and then ("database is locked", "disk I/O error").

        Args:
            path: Where it is to be; what is there is replaced. Only one may create at a time.

        Raises:
            StorageError: The disk refuses.
        """
        unfinished = path.with_name(path.name + _UNFINISHED)
        try:
            for file in _with_sides(unfinished):
                file.unlink(missing_ok=True)
            unfinished.touch(FILE_MODE)
            with closing(_connected(unfinished)) as connection:
                connection.executescript(_SCHEMA)
                connection.execute("INSERT INTO journal VALUES (?)", (uuid.uuid4().hex,))
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                # Last: closing writes a log back, and does not say when the disk refuses that.
                connection.execute("PRAGMA journal_mode = WAL")
            for file in _with_sides(path)[1:]:
                file.unlink(missing_ok=True)
            unfinished.replace(path)
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"cannot begin the journal {path}: {_said(error)}") from error
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a journal that is there.

        Never opens the file in another way than by SQLite: closing such a second descriptor would
        drop the locks of every connection in this process (POSIX, ``fcntl``).

        Raises:
            StorageError: The disk refuses.
            ArtifactError: The file is damaged, or a newer program's.
        """
        try:
            connection = _connected(path)
        except sqlite3.Error as error:
            raise StorageError(f"cannot open the journal {path}: {_said(error)}") from error
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise ArtifactError(  # noqa: TRY301 - closes the file first
                    f"the journal {path} was written by a newer program (schema {version})"
                )
            if version == 0:
                raise ArtifactError(f"the journal {path} was never finished")  # noqa: TRY301
            row = connection.execute("SELECT name FROM journal").fetchone()
            if row is None:
                raise ArtifactError(f"the journal {path} has no name")  # noqa: TRY301
            connection.execute("PRAGMA synchronous = NORMAL")
            return cls(connection, path, str(row[0]))
        except sqlite3.OperationalError as error:
            connection.close()
            if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:  # a table is missing
                raise ArtifactError(f"the journal {path} is damaged: {error}") from error
            raise StorageError(f"cannot open the journal {path}: {_said(error)}") from error
        except sqlite3.DatabaseError as error:
            connection.close()
            raise ArtifactError(f"the journal {path} is damaged: {error}") from error
        except BaseException:
            connection.close()
            raise

    def append(self, rows: Iterable[tuple[Facts, bool, bytes]]) -> None:
        """Keep rows, all or none; they may be lost with the power.

        Raises:
            StorageError: The disk refuses; nothing was kept.
        """
        with self._changing() as connection:
            connection.executemany(
                "INSERT INTO predictions (model, version, digest, at_ms, reason, is_encrypted,"
                " record) VALUES (?, ?, ?, ?, ?, ?, ?)",
                ((*facts, is_encrypted, record) for facts, is_encrypted, record in rows),
            )

    def trim(self, model: str, *, max_bytes: int, before_ms: int) -> int:
        """Remove what is too old or too much of one model, the oldest first.

        Args:
            model: Its name.
            max_bytes: What its rows may take.
            before_ms: Rows from before this moment go.

        Returns:
            Rows removed.

        Raises:
            StorageError: The disk refuses.
        """
        with self._changing() as connection:
            old = connection.execute(
                "DELETE FROM predictions WHERE model = ? AND at_ms < ?", (model, before_ms)
            )
            many = connection.execute(
                "DELETE FROM predictions WHERE model = ?1 AND number <="
                " (SELECT MAX(number) FROM"
                " (SELECT number, SUM(length(record) + ?2) OVER (ORDER BY number DESC) AS newer"
                " FROM predictions WHERE model = ?1) WHERE newer > ?3)",
                (model, ROW_BYTES, max_bytes),
            )
            return old.rowcount + many.rowcount

    def rows(self, *, after: int = 0, model: str = "", newest: bool = False) -> Iterator[Row]:
        """Give rows in the order of their numbers, or the newest first.

        Args:
            after: Only rows with a larger number.
            model: Only of this model; empty: of all.
            newest: The newest first.

        Raises:
            StorageError: The disk refuses.
        """
        order = "DESC" if newest else "ASC"
        with self._translated("read"):
            for row in self._connection.execute(
                f"SELECT {_COLUMNS} FROM predictions WHERE number > ?1"  # noqa: S608 - our words
                f" AND (?2 = '' OR model = ?2) ORDER BY number {order}",
                (after, model),
            ):
                number, *facts, is_encrypted, record = row
                yield Row(number, Facts(*facts), bool(is_encrypted), record)

    def remove(self, *, through: int | None = None, model: str = "") -> int:
        """Remove rows: those that were collected, or those that somebody wants gone.

        Args:
            through: Up to this number; ``None``: all.
            model: Only of this model; empty: of all.

        Returns:
            Rows removed.

        Raises:
            StorageError: The disk refuses; nothing was removed.
        """
        with self._changing() as connection:
            return connection.execute(
                "DELETE FROM predictions WHERE (?1 IS NULL OR number <= ?1)"
                " AND (?2 = '' OR model = ?2)",
                (through, model),
            ).rowcount

    def shrink(self) -> None:
        """Give the space of removed rows back, and overwrite what was in it.

        Raises:
            StorageError: The disk refuses.
        """
        with self._translated("shrink"):
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def held(self) -> list[Held]:
        """Say what is kept, by model.

        Raises:
            StorageError: The disk refuses.
        """
        with self._translated("read"):
            found = self._connection.execute(
                "SELECT model, COUNT(*), SUM(length(record) + ?), MIN(at_ms) FROM predictions"
                " GROUP BY model ORDER BY model",
                (ROW_BYTES,),
            ).fetchall()
        return [Held(*row) for row in found]

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._translated("write to"):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            said = _said(error)
            raise StorageError(f"cannot {verb} the journal {self._path}: {said}") from error


def _connected(path: Path) -> sqlite3.Connection:
    """Connect to a file that is there."""
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw",
        uri=True,
        timeout=BUSY_S,
        isolation_level=None,
        check_same_thread=False,
    )


def _with_sides(path: Path) -> list[Path]:
    """Give the file, and those that SQLite keeps beside it."""
    return [path, *(path.with_name(path.name + side) for side in ("-wal", "-shm"))]


def _said(error: OSError | sqlite3.Error) -> str:
    """Give an error's words, with SQLite's name for it: one sentence stands for thirty errors."""
    name = getattr(error, "sqlite_errorname", None)
    return f"{error} ({name})" if name else str(error)
