"""The journal's file: locked for one daemon, put aside when damaged, changed by transactions.

Knows no table; ``journal_reader`` and ``journal`` have the statements.
"""

import contextlib
import fcntl
import logging
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from edge_runtime.errors import StorageError
from edge_runtime.failpoints import failpoint
from edge_runtime.private_folder import PRIVATE_MODE, sync
from edge_runtime.release import journal_checks as checks
from edge_runtime.release.journal_schema import DAMAGED, DAMAGED_MAX, DATABASE, LOCK, SIDE

_log = logging.getLogger(__name__)

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_ROOT: Final = 0

Values = Mapping[str, Any]
Row = dict[str, Any]


class Done(NamedTuple):
    """What a statement did: how many rows it changed, and the number of the one it made."""

    changed: int
    made: int


class Change:
    """A transaction under way."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, statement: str, values: Values) -> Done:
        """Change something."""
        cursor = self._connection.execute(statement, values)
        return Done(cursor.rowcount, cursor.lastrowid or 0)

    def rows(self, statement: str, values: Values) -> list[Row]:
        """Read something, as it is within the transaction."""
        return _rows(self._connection, statement, values)


Read = Callable[[str, Values], list[Row]]
"""Runs a SELECT with named parameters."""

Check = Callable[[Read], object]
"""Reads what must be readable, and raises ``ValueError`` where it makes no sense."""

Answer = TypeVar("Answer")


class JournalFile:
    """The file. Any thread may use it; one at a time gets in, the others wait.

    Args:
        path: The file; its folder is the state directory.
        check: Looks whether the rows make sense.

    Attributes:
        path: The file.
        damage: What was lost when it was opened, as a sentence; empty: nothing.
        problem: Why nothing can be changed, as a sentence; empty: the last change went well.
    """

    def __init__(self, path: Path, check: Check) -> None:
        self.path = path
        self.damage = ""
        self.problem = ""
        self._check = check
        self._one = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._is_copy = False
        self._is_for_reading = False
        self._lock: int | None = None

    # -- opening and closing -------------------------------------------------------------------

    def open(self) -> None:
        """Open the file, or make it; put a damaged one aside.

        Where it cannot be written, what is in it can still be read; ``problem`` says why then, and
        each change tries again.

        Raises:
            StorageError: Another daemon has it, a newer program wrote it, others may write to its
                folder, or it can neither be written nor read.
        """
        with self._one:
            try:
                self._open_for_writing()
            except (sqlite3.Error, OSError) as error:
                self._unlock()
                self.problem = checks.storage_error(error).message
                _log.error("%s; nothing can be released until then", self.problem)
                self._open_a_copy()
            except BaseException:
                self._unlock()
                raise

    def open_to_read(self) -> None:
        """Read the file into memory, whoever has it; nothing is created and nothing changed.

        Raises:
            StorageError: There is none, it is damaged, or a newer program wrote it.
        """
        with self._one:
            try:
                connection = checks.copied(self.path)
            except (sqlite3.Error, OSError) as error:
                if not self.path.exists():
                    raise StorageError(
                        f"there is no release journal {DATABASE} there: either nothing was ever "
                        "released, or it is not a state directory"
                    ) from error
                raise checks.storage_error(error) from error
            try:
                self._believe(connection)
            except (checks.DamagedError, sqlite3.Error) as error:
                connection.close()
                raise checks.damaged(error) from error
            except BaseException:
                connection.close()
                raise
            self._take(connection, is_copy=True)
            self._is_for_reading = True
            self.problem = f"the release journal {DATABASE} was opened for reading only"

    def close(self) -> None:
        """Close it and let others in; may be called again."""
        with self._one:
            self._take(None)
            self._unlock()

    # -- using ---------------------------------------------------------------------------------

    def read(self, question: Callable[[Read], Answer]) -> Answer:
        """Read something; nothing changes while it is read.

        Args:
            question: Runs SELECT statements with what it is given.

        Raises:
            StorageError: It cannot be read, or what is there makes no sense.
        """
        with self._one:
            try:
                return question(partial(_rows, self._connected()))
            except (sqlite3.Error, OSError) as error:
                raise checks.storage_error(error) from error
            except ValueError as error:
                raise checks.damaged(error) from error

    @contextmanager
    def changing(self) -> Iterator[Change]:
        """Make one transaction: all of it is on the disk at the end, or nothing happened.

        Raises:
            StorageError: It cannot be written; nothing changed.
            ValueError: The tables refuse the values; nothing changed.
        """
        with self._one:
            try:
                connection = self._writable()
                failpoint("journal.begin")
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield Change(connection)
                    failpoint("journal.commit")
                    connection.execute("COMMIT")
                except BaseException:
                    self._undo(connection)
                    raise
            except sqlite3.IntegrityError as error:
                raise ValueError(f"the release journal refuses this: {error}") from error
            except (sqlite3.Error, OSError) as error:
                problem = checks.storage_error(error)
                self.problem = problem.message
                if checks.is_read_only(error) and not self._is_copy:
                    self._take(None)  # it stays so for a connection, whatever becomes of the disk
                raise problem from error
            self.problem = ""

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        if self._lock is None:
            raise RuntimeError("the journal is not open")
        try:
            connection = self._believed()
        except checks.DamagedError as error:
            raise checks.damaged(error) from error
        self._take(connection)
        return connection

    def _writable(self) -> sqlite3.Connection:
        if self._is_for_reading:
            raise StorageError(self.problem)
        if self._is_copy:
            try:
                self._open_for_writing()
            except BaseException:
                self._unlock()
                raise
        return self._connected()

    def _undo(self, connection: sqlite3.Connection) -> None:
        """Take back what was not committed; if even that fails, SQLite does it at the next use."""
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._take(None)

    def _take(self, connection: sqlite3.Connection | None, *, is_copy: bool = False) -> None:
        """Use a connection from now on, and let the last one go."""
        last, self._connection, self._is_copy = self._connection, connection, is_copy
        if last is not None:
            with contextlib.suppress(sqlite3.Error):  # it was no use any more
                last.close()

    # -- for writing ---------------------------------------------------------------------------

    def _open_for_writing(self) -> None:
        checks.check_library()
        self.path.parent.mkdir(mode=PRIVATE_MODE, parents=True, exist_ok=True)
        _refuse_shared(self.path.parent)
        if self._lock is None:
            self._lock = _locked(self.path.with_name(LOCK))
        self._make_if_missing()
        try:
            connection = self._believed()
        except (checks.DamagedError, sqlite3.Error) as error:
            if isinstance(error, sqlite3.Error) and not checks.is_damage(error):
                raise
            self._put_aside(str(error))
            checks.create(self.path)
            connection = self._believed()
        self._take(connection)
        self.problem = ""

    def _make_if_missing(self) -> None:
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            # What is left of another file would be taken for a part of the new one.
            self._put_aside("the file is missing, and a part of it is there", sides_only=True)
            checks.create(self.path)
            return
        if not stat.S_ISREG(found.st_mode):
            raise StorageError(f"the release journal {DATABASE} is not a plain file; move it away")
        newer = checks.is_newer(self.path)
        if newer:
            raise checks.newer_schema(newer)
        if stat.S_IMODE(found.st_mode) & _OTHERS:
            self.path.chmod(checks.FILE_MODE)

    def _believed(self) -> sqlite3.Connection:
        connection = checks.connect(self.path)
        try:
            self._believe(connection)
            if checks.restore_guards(connection):
                _log.warning("%s: indexes or triggers were not as they should be", DATABASE)
        except BaseException:
            connection.close()
            raise
        return connection

    def _believe(self, connection: sqlite3.Connection) -> None:
        checks.check(connection)
        try:
            self._check(partial(_rows, connection))
        except ValueError as error:
            raise checks.DamagedError(str(error)) from error

    def _put_aside(self, why: str, *, sides_only: bool = False) -> None:
        """Rename the file and what SQLite left beside it, and say so loudly."""
        side = self.path.with_name(self.path.name + SIDE)
        if sides_only and not side.exists():
            return
        numbers = _kept_numbers(self.path)
        kept = self.path.with_name(f"{self.path.name}{DAMAGED}{(numbers or [0])[-1] + 1}")
        if not sides_only:
            self.path.rename(kept)  # first: without the other it must not look whole
        if side.exists():
            side.rename(kept.with_name(kept.name + SIDE))
        sync(self.path.parent)
        for number in numbers[: 1 - DAMAGED_MAX]:
            old = self.path.with_name(f"{self.path.name}{DAMAGED}{number}")
            old.unlink(missing_ok=True)
            old.with_name(old.name + SIDE).unlink(missing_ok=True)
        self.damage = (
            f"the release journal {DATABASE} was damaged ({why}); it is kept as {kept.name}, and "
            "a new one was begun: what was released here before is not known any more"
        )
        _log.error("%s", self.damage)

    def _unlock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    # -- for reading ---------------------------------------------------------------------------

    def _open_a_copy(self) -> None:
        """Read what can be read while nothing can be written."""
        try:
            connection = checks.copied(self.path) if self.path.exists() else checks.empty()
            try:
                self._believe(connection)
            except BaseException:
                connection.close()
                raise
        except (checks.DamagedError, sqlite3.Error) as error:
            if isinstance(error, sqlite3.Error) and not checks.is_damage(error):
                raise checks.storage_error(error) from error
            self.damage = (
                f"the release journal {DATABASE} is damaged ({error}) and cannot be put aside: "
                "what was released here before is not known any more"
            )
            _log.error("%s", self.damage)
            connection = checks.empty()
        except OSError as error:
            raise checks.storage_error(error) from error
        self._take(connection, is_copy=True)


def _rows(connection: sqlite3.Connection, statement: str, values: Values) -> list[Row]:
    cursor = connection.execute(statement, values)
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def _refuse_shared(folder: Path) -> None:
    found = folder.stat()
    if found.st_uid not in {os.geteuid(), _ROOT} or found.st_mode & _OTHERS_WRITE:
        raise StorageError(
            "others may write to the state directory, so they could decide what runs here; make "
            f"it the daemon's own (mode {PRIVATE_MODE:04o})"
        )


def _locked(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    lock = os.open(path, flags, checks.FILE_MODE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if isinstance(error, BlockingIOError):
            raise StorageError(
                f"another daemon uses the release journal {DATABASE}: stop it, or give this one "
                "a state directory of its own"
            ) from error
        raise
    return lock


def _kept_numbers(path: Path) -> list[int]:
    """Find the numbers of the files that were put aside, in order."""
    prefix = f"{path.name}{DAMAGED}"
    ends = [each.name.removeprefix(prefix) for each in path.parent.glob(f"{prefix}*")]
    return sorted({int(end) for end in (end.removesuffix(SIDE) for end in ends) if end.isdecimal()})
