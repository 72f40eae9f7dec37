"""Making a journal's file, telling whether one can be believed, and what SQLite's errors mean."""

import logging
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from edge_runtime.errors import StorageError
from edge_runtime.private_folder import sync
from edge_runtime.release.journal_migration import migrate
from edge_runtime.release.journal_schema import (
    DATABASE,
    GUARDS,
    SCHEMA_VERSION,
    SIDE,
    SQLITE_MIN,
    TABLES,
)

_log = logging.getLogger(__name__)

FILE_MODE: Final = 0o600
BUSY_S: Final = 2.0
"""How long somebody else's transaction is waited for."""

_NEW: Final = ".new"
_CACHE_KIB: Final = 256
_HEADER: Final = b"SQLite format 3\x00"
_USER_VERSION: Final = slice(60, 64)  # of the header, big-endian
_DAMAGE_CODES: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PRIMARY: Final = 0xFF  # an extended error code has the primary one in its last byte

_MEANINGS: Final = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_READONLY: "it cannot be written; make the disk writable, or start the daemon "
    "again if the file was moved",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check the state directory and its disk",
    sqlite3.SQLITE_PERM: "it cannot be opened; check who owns the state directory",
    sqlite3.SQLITE_BUSY: "another program has it open in a transaction; end that program",
    sqlite3.SQLITE_LOCKED: "another program has it open in a transaction; end that program",
    sqlite3.SQLITE_IOERR: "its disk fails or has no room; check the disk",
    sqlite3.SQLITE_CORRUPT: "it is damaged; start the daemon again, which puts it aside",
    sqlite3.SQLITE_NOTADB: "it is damaged; start the daemon again, which puts it aside",
}


class DamagedError(Exception):
    """The file is there, and is no journal that can be believed."""


def is_damage(error: sqlite3.Error) -> bool:
    """Tell whether an error says that the file is broken, not that the disk is."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY in _DAMAGE_CODES


def is_read_only(error: sqlite3.Error | OSError) -> bool:
    """Tell whether SQLite may only read the file."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY == sqlite3.SQLITE_READONLY


def damaged(why: Exception) -> StorageError:
    """Say that the file cannot be believed."""
    return StorageError(
        f"the release journal {DATABASE} is damaged ({why}): start the daemon again, which puts "
        "it aside"
    )


def storage_error(error: sqlite3.Error | OSError) -> StorageError:
    """Say what an error means for whoever has to act; pure.

    Args:
        error: What SQLite or the system said.
    """
    if isinstance(error, OSError):
        said = error.strerror or str(error)
        meaning = "its disk fails, is full or read-only; check the state directory"
    else:
        said = str(error)
        code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY
        meaning = _MEANINGS.get(code, "this is not expected; check the disk")
    return StorageError(f"the release journal {DATABASE} failed ({said}): {meaning}")


def check_library() -> None:
    """Refuse an SQLite that does not know the tables' form.

    Raises:
        StorageError: It is too old.
    """
    if sqlite3.sqlite_version_info < SQLITE_MIN:
        wanted = ".".join(map(str, SQLITE_MIN))
        raise StorageError(
            f"releases need SQLite {wanted} or later, and this is {sqlite3.sqlite_version}: "
            "use a Python that was built with a newer one"
        )


def connect(path: Path) -> sqlite3.Connection:
    """Open a file that is there, for reading and writing, as the journal wants it.

    Args:
        path: The file.

    Raises:
        sqlite3.Error: It cannot be opened.
    """
    connection = _connect(path, "rw")
    try:
        for setting in (
            # See ``journal`` for why. Reads the file, so that a broken one shows here.
            "journal_mode = TRUNCATE",
            "synchronous = FULL",
            "fullfsync = ON",  # macOS: a plain fsync stops at the drive's own memory
            "foreign_keys = ON",
            "recursive_triggers = ON",  # REPLACE asks the triggers too
            "temp_store = MEMORY",
            "trusted_schema = OFF",
            "cell_size_check = ON",
            f"cache_size = -{_CACHE_KIB}",
        ):
            connection.execute(f"PRAGMA {setting}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def create(path: Path) -> None:
    """Put an empty journal in place, whole or not at all, and durably.

    Args:
        path: The file, which must not be there, nor anything of SQLite beside it.

    Raises:
        sqlite3.Error: It cannot be written.
        OSError: The same.
    """
    new = path.with_name(path.name + _NEW)
    new.unlink(missing_ok=True)  # of a start that was cut off
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(new, flags, FILE_MODE))
    connection = _connect(new, "rw")
    try:
        # Nobody else sees it yet: what is cut off here is thrown away.
        connection.execute("PRAGMA journal_mode = OFF").fetchall()
        _fill(connection)
    finally:
        connection.close()
    sync(new)
    new.rename(path)
    sync(path.parent)


def empty() -> sqlite3.Connection:
    """Make an empty journal in memory."""
    connection = _in_memory()
    _fill(connection)
    return connection


def copied(path: Path) -> sqlite3.Connection:
    """Copy a journal into memory; nothing is created or changed beside it.

    What a daemon that was killed left half done is rolled back in a copy elsewhere.

    Args:
        path: The file.

    Raises:
        sqlite3.Error: It cannot be read.
        OSError: There is no room for the copy.
    """
    memory = _in_memory()
    try:
        _copy(_connect(path, "ro"), memory)
    except sqlite3.OperationalError as error:
        memory.close()
        if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
            raise
        return _rolled_back(path)
    except BaseException:
        memory.close()
        raise
    return memory


def is_newer(path: Path) -> int:
    """Read from a file's header alone which newer schema it has; 0: it is not newer.

    Nothing else may have the file open in this process: closing it drops SQLite's locks.

    Args:
        path: The file.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        header = file.read(_USER_VERSION.stop)
    if len(header) < _USER_VERSION.stop or not header.startswith(_HEADER):
        return 0
    found = int.from_bytes(header[_USER_VERSION], "big", signed=True)
    return found if found > SCHEMA_VERSION else 0


def newer_schema(found: int) -> StorageError:
    """Say that a newer program wrote the file."""
    return StorageError(
        f"the release journal {DATABASE} has schema {found}, and this program knows "
        f"{SCHEMA_VERSION}: a newer edge-runtime wrote it. Install that one again, or move the "
        "file away to begin anew"
    )


def check(connection: sqlite3.Connection) -> None:
    """Look whether a journal can be believed; one of an earlier version is brought up to date.

    Args:
        connection: An open one.

    Raises:
        StorageError: It is of a newer program.
        DamagedError: It cannot be believed.
        sqlite3.Error: It cannot be read.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise newer_schema(version)
    if version < 1:
        raise DamagedError(f"it has schema {version}, which no journal has")
    found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise DamagedError(" ".join(str(found).split()))
    for table, _, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        raise DamagedError(f"a row of {table} belongs to nothing in {parent}")
    if version < SCHEMA_VERSION:
        _bring_up_to_date(connection, version)
    else:
        _check_tables(connection)


def _bring_up_to_date(connection: sqlite3.Connection, version: int) -> None:
    """Migrate whole or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        try:
            migrate(connection)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                raise  # the disk's
            raise DamagedError(f"it is no journal of schema {version}: {error}") from error
        except sqlite3.IntegrityError as error:
            raise DamagedError(f"a row of schema {version} makes no sense: {error}") from error
        _check_tables(connection)
        with closing(empty()) as wanted:
            for _, _, sql in _guards(wanted):
                connection.execute(sql)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    _log.info(
        "the release journal %s had schema %d and has %d now", DATABASE, version, SCHEMA_VERSION
    )


def _check_tables(connection: sqlite3.Connection) -> None:
    wanted = empty()
    try:
        if _tables(connection) != _tables(wanted):
            raise DamagedError("its tables are not those of a journal")
    finally:
        wanted.close()
    if connection.execute("SELECT count(*) FROM daemon").fetchone()[0] != 1:
        raise DamagedError("it does not say how the last daemon ended")


def restore_guards(connection: sqlite3.Connection) -> bool:
    """Make the indexes and triggers what they should be.

    Args:
        connection: A journal that was checked.

    Returns:
        Whether they were something else.

    Raises:
        sqlite3.Error: It cannot be written.
    """
    wanted = empty()
    try:
        if _guards(connection) == _guards(wanted):
            return False
    finally:
        wanted.close()
    names = [(kind, name.replace('"', '""')) for kind, name, _ in _guards(connection)]
    drops = "".join(f'DROP {kind} "{name}";' for kind, name in names)
    try:
        connection.executescript(f"BEGIN IMMEDIATE;{drops}{GUARDS}COMMIT;")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return True


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    name = str(path.absolute())
    for sign in "%?#":  # what means something in an address; `%` first
        name = name.replace(sign, f"%{ord(sign):02x}")
    return sqlite3.connect(
        f"file://{name}?mode={mode}",
        uri=True,
        timeout=BUSY_S,
        isolation_level=None,
        check_same_thread=False,  # ``JournalFile`` lets in one at a time
    )


def _in_memory() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)


def _fill(connection: sqlite3.Connection) -> None:
    script = f"{TABLES}{GUARDS}PRAGMA user_version = {SCHEMA_VERSION};"
    connection.executescript(f"BEGIN;{script}COMMIT;")


def _copy(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Copy a whole database and close it."""
    try:
        # The lock is taken here, with a time limit; `backup` alone would wait for ever.
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        source.backup(target)
    finally:
        source.close()


def _rolled_back(path: Path) -> sqlite3.Connection:
    from tempfile import TemporaryDirectory  # noqa: PLC0415 - only after a crash

    with TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        shutil.copyfile(path, copy)
        shutil.copyfile(f"{path}{SIDE}", f"{copy}{SIDE}")
        memory = _in_memory()
        try:
            _copy(_connect(copy, "rw"), memory)
        except BaseException:
            memory.close()
            raise
        return memory


def _tables(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    return set(
        connection.execute(
            "SELECT name, sql FROM sqlite_schema WHERE type IN ('table', 'view')"
            " AND name NOT LIKE 'sqlite^_%' ESCAPE '^'"
        )
    )


def _guards(connection: sqlite3.Connection) -> set[tuple[str, str, str]]:
    return set(
        connection.execute(
            "SELECT type, name, sql FROM sqlite_schema WHERE type IN ('index', 'trigger')"
            " AND sql IS NOT NULL"
        )
    )
