"""Keeps the file going on its thread: opens it, mends it, gives up for a while, tries again.

Nothing here raises. A broken file is put aside and begun anew; a full or read-only disk stops the
writing for a while and not the reading; anything else closes the file for a while.
"""

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeVar

from edge_runtime.cache.debt import Debt
from edge_runtime.cache.entry import CorruptEntryError, Entry
from edge_runtime.cache.fault import Fault, fault
from edge_runtime.cache.folder import Folder, FolderError, InUseError
from edge_runtime.cache.index import KeyIndex
from edge_runtime.cache.life import Clock, Policy
from edge_runtime.cache.store import (
    ForeignSchemaError,
    OlderSchemaError,
    Row,
    Store,
    Written,
)
from edge_runtime.cache.subject import Identity, Subject
from edge_runtime.cache.wear import Wear
from edge_runtime.settings import Cache

if TYPE_CHECKING:
    from edge_runtime.cache.eviction import Held

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

PAUSE_S: Final = 30.0
PAUSE_S_MAX: Final = 3600.0
CORRUPT_ROWS_MAX: Final = 16  # with more, the file as a whole is not believed
BROKEN_FILES_MAX: Final = 3  # within an hour of each other; the next is not begun at once


class Outcome(Enum):
    """How far forgetting has come."""

    DONE = "done"
    MORE = "more"  # to remove
    FAILED = "failed"  # for now: it is still owed


@dataclass(frozen=True, slots=True)
class Opened:
    """What was found when the file was opened.

    Attributes:
        index: Every question that has an answer in it.
        subjects: The versions that have answers in it.
        retired: Versions whose answers are for nobody.
    """

    index: KeyIndex
    subjects: list[Subject]
    retired: list[Identity]


class Worker:
    """What the thread of the cache does. Attributes may be read from other threads.

    Args:
        folder: Where the file is.
        settings: Its limits.
        clock: What time it is.
        opened: Called with what was found whenever the file was opened, and with ``None`` when it
            was closed.

    Attributes:
        problem: Why there is no file, or why nothing is written; empty if all is well.
        debt: What is to be cleared, now or when that can be done again.
        errors: Failures so far.
        quarantined: Files that were put aside.
        held: What is kept of each version; replaced, never changed.
        used_bytes: Pages in use.
        wear: The budget of written bytes.
    """

    def __init__(
        self,
        folder: Folder,
        settings: Cache,
        clock: Clock,
        opened: Callable[[Opened | None], None],
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._clock = clock
        self._opened = opened
        self._store: Store | None = None
        self._wanted: dict[Identity, tuple[Subject, Policy]] = {}  # one of each version
        self._is_anothers = False  # the folder: another daemon's
        self.debt = Debt(folder)
        self._is_moved = False  # the file: what lies beside its name is not of what lies there
        self._corrupt_rows = 0
        self._broken_in_a_row = 0
        self._broken_s = float("-inf")
        self._pause_s = PAUSE_S
        self._retry_s = float("-inf")
        self.problem = ""
        self.errors = 0
        self.quarantined = 0
        self.held: dict[Identity, Held] = {}
        self.used_bytes = 0
        self.wear = Wear(settings.written_bytes_per_hour)

    @property
    def is_paused(self) -> bool:
        """Whether nothing will be written for a while."""
        return self._clock.monotonic_s() < self._retry_s

    @property
    def retry_in_s(self) -> float:
        """Seconds until something will be written again; 0: now."""
        return max(0.0, self._retry_s - self._clock.monotonic_s())

    def open(self) -> None:
        """Open the file, unless that failed a short while ago."""
        if self._store is not None or self.is_paused:
            return
        try:
            self._folder.take()
            self.debt.load()
            if self.debt.everything:
                self._folder.remove()
                self._folder.take()
                self.debt.drop()
                self.debt.note()
            elif self._is_moved:
                self._folder.remove_sides()
            self._is_moved = False
            store = self._open_store()
            try:
                found = self._begin(store)
            except BaseException:
                store.close()
                raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the cache goes on in memory
            self._failed(error)
            return
        self._store = store
        self._is_well()
        self._opened(found)

    def _begin(self, store: Store) -> Opened:
        """Do what is owed to a file that was just opened, and look what is in it."""
        self._pay(store, self.debt.identities.copy())
        for subject, policy in self._wanted.values():
            store.describe(subject, policy)
        index = KeyIndex(self._settings.disk_answers)
        index.add_all(store.fingerprints())
        found = Opened(index, store.subjects(), store.retired())
        self._look(store)
        return found

    def read(self, key: bytes) -> Entry | None:
        """Find an answer; ``None``: there is none, or it cannot be read."""
        try:
            return self._attempt(lambda store: store.read(key), None)
        except CorruptEntryError as error:
            self.errors += 1
            self._corrupt_rows += 1
            _log.warning("the cache dropped an answer: %s", error)
            if self._corrupt_rows > CORRUPT_ROWS_MAX:
                self._failed(ForeignSchemaError("too many answers are broken"))
            else:
                self._attempt(lambda store: store.discard(key), None)
            return None

    def write(self, rows: Sequence[Row]) -> Written | None:
        """Write a batch; ``None``: nothing was written."""
        self._check_place()
        self.open()
        if self._store is None or self.is_paused:
            return None
        if not self.wear.allows(self._clock.monotonic_s()):
            self.problem = "as much was written in this hour as may be"
            return None
        written = self._attempt(lambda store: self._write(store, rows), None)
        if written is not None:
            self._attempt(self._look, None)
            self._is_well()
        return written

    def _write(self, store: Store, rows: Sequence[Row]) -> Written:
        models = {row.subject.model for row in rows}
        # What is owed first: it must not take the new answers along.
        gone = self._pay(store, {it for it in self.debt.identities if it[0] in models})
        written = store.write(rows, self._clock.wall_s())
        written.gone |= gone.difference(written.added)
        return written

    def describe(self, subject: Subject, policy: Policy) -> list[Identity]:
        """Take note of a version, now and whenever the file is opened.

        Returns:
            Versions whose answers are for nobody now.
        """
        for identity in [it for it in self._wanted if it[:2] == subject.identity[:2]]:
            del self._wanted[identity]
        self._wanted[subject.identity] = subject, policy
        self._attempt(lambda store: store.describe(subject, policy), None)
        return self._attempt(lambda store: store.retired(), [])

    def forget(self, identity: Identity, *, for_good: bool) -> tuple[set[int], Outcome]:
        """Remove some answers of a version, and owe the rest.

        Args:
            identity: The version; with an empty number: every version of the model.
            for_good: Whether it may be forgotten that there was such a version.

        Returns:
            Fingerprints that are gone, and whether there is more to remove.
        """
        if for_good:
            self._wanted.pop(identity, None)
        if not identity[1]:
            self._retry_s = float("-inf")  # somebody asks: a pause may as well end here
        self.debt.identities.add(identity)
        if not identity[1]:
            self.debt.note()  # an operator asks: not even a crash half-way may bring it back
        return self.go_on(identity)

    def go_on(self, identity: Identity) -> tuple[set[int], Outcome]:
        """Remove some more of what is owed; as ``forget``."""
        self._check_place()
        self.open()  # which does what is owed, too
        if self._store is None and self._is_anothers:
            self.debt.drop()  # what is not ours is not ours to clear
        gone: set[int] = set()
        if identity in self.debt.identities and not self.is_paused:
            gone = self._attempt(lambda store: self._forget(store, identity), gone)
            self._attempt(self._look, None)
        if identity not in self.debt.identities:
            return gone, Outcome.DONE
        if gone:
            return gone, Outcome.MORE
        self.debt.note()
        return gone, Outcome.FAILED

    def clear(self) -> bool:
        """Remove the file with all that was in it and beside it, and begin a new one.

        Returns:
            Whether it is removed; else it will be before it is opened.
        """
        self._check_place()
        self._close_store()
        self._opened(None)
        self.debt.everything = True
        self._retry_s = float("-inf")  # somebody asks: a pause may as well end here
        self.debt.note()
        self.open()
        return not self.debt.everything

    def retry_clear(self) -> bool:
        """Remove the file if it is still to be removed; as ``clear``."""
        self.open()
        return not self.debt.everything

    def close(self) -> None:
        """Do what is owed if that is possible, close the file and let other daemons have it."""
        if self.debt.identities or self.debt.everything:
            self._check_place()
            self._retry_s = float("-inf")
            self.open()
            self._attempt(lambda store: self._pay(store, self.debt.identities.copy()), None)
        self._close_store()
        self._folder.release()

    def _pay(self, store: Store, owed: set[Identity]) -> set[int]:
        """Forget all that is owed of these; fingerprints that are gone."""
        gone: set[int] = set()
        for identity in owed:
            while identity in self.debt.identities:
                gone |= self._forget(store, identity)
        return gone

    def _forget(self, store: Store, identity: Identity) -> set[int]:
        """Remove some of what is owed; fingerprints that are gone."""
        versions = [identity] if identity[1] else store.identities(identity[0])
        for each in versions:
            gone, _ = store.forget(each)
            if gone:
                return gone
        for each, (subject, policy) in self._wanted.items():
            if each == identity or (each[0] == identity[0] and not identity[1]):
                store.describe(subject, policy)
        self.debt.identities.discard(identity)
        self.debt.note()
        return set()

    def _check_place(self) -> None:
        """Let go of a file that is not where it was: somebody removed or replaced it."""
        if self._store is None or self._store.is_in_place():
            return
        self.errors += 1
        _log.warning("the cache's file was removed or replaced while in use; it is opened anew")
        self._close_store()
        self._opened(None)
        self._is_moved = True
        self._folder.release()  # the lock may be gone with it

    def _open_store(self) -> Store:
        path = self._folder.database
        try:
            return Store.open(path, self._settings)
        except OlderSchemaError:
            is_new = path.stat().st_size == 0
        try:
            self._folder.migrate()
            return Store.open(path, self._settings)
        except (FolderError, OlderSchemaError) as error:
            if is_new:
                raise OSError(str(error)) from error
            raise ForeignSchemaError(str(error)) from error

    def _attempt(self, work: Callable[[Store], _T], otherwise: _T) -> _T:
        if self._store is None:
            return otherwise
        try:
            return work(self._store)
        except CorruptEntryError:
            raise
        except Exception as error:  # noqa: BLE001 - judged, counted, logged
            self._failed(error)
            return otherwise

    def _look(self, store: Store) -> None:
        self.held = store.held()
        self.used_bytes = store.used_bytes()
        self.wear.spend(store.take_written_bytes())

    def _failed(self, error: Exception) -> None:
        self.errors += 1
        kind = fault(error)
        said = str(error) or type(error).__name__
        if kind is Fault.NOT_WRITABLE and self._store is not None:
            self._pause(f"nothing is written: {said}")
            return
        self._is_anothers = isinstance(error, InUseError)
        was_open = self._store is not None
        self._close_store()
        if was_open:
            self._opened(None)
        if kind is Fault.BROKEN and self._put_aside(said):
            self.open()
        elif self._is_anothers:
            self.debt.drop()  # what is not ours is not ours to clear
            self._pause(f"answers are kept in memory only: {said}")
        else:
            self._pause(f"answers are kept in memory only for a while: {said}")

    def _put_aside(self, said: str) -> bool:
        """Quarantine the file; whether a new one is to be begun at once."""
        try:
            self._folder.quarantine()
        except OSError:
            return False
        self.quarantined += 1
        self._corrupt_rows = 0
        now_s = self._clock.monotonic_s()
        self._broken_in_a_row = 1 + self._broken_in_a_row * (now_s - self._broken_s < PAUSE_S_MAX)
        self._broken_s = now_s
        _log.warning("the cache put a broken file aside and begins anew: %s", said)
        return self._broken_in_a_row <= BROKEN_FILES_MAX

    def _pause(self, problem: str) -> None:
        if problem != self.problem:
            _log.warning("the cache goes on without its file; %s", problem)
        self.problem = problem
        self._retry_s = self._clock.monotonic_s() + self._pause_s
        self._pause_s = min(2 * self._pause_s, PAUSE_S_MAX)

    def _is_well(self) -> None:
        if self.problem:
            _log.info("the cache writes its file again")
        self.problem = ""
        self._pause_s = PAUSE_S
        self._retry_s = float("-inf")

    def _close_store(self) -> None:
        store, self._store = self._store, None
        self.held, self.used_bytes = {}, 0
        if store is not None:
            with contextlib.suppress(sqlite3.Error):
                store.close()
