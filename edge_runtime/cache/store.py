"""Answers in a SQLite file. With ``eviction``, all SQL of the daemon's cache. Blocking; one thread.

A row is believed only if its checksum fits its key, its times and its payload.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, Self

from edge_runtime.cache.entry import (
    Entry,
    checksum,
    decode_checked,
    encode,
    in_memory_bytes,
)
from edge_runtime.cache.eviction import Eviction, Held, Version, pragma, used_bytes
from edge_runtime.cache.index import fingerprint
from edge_runtime.cache.life import Policy
from edge_runtime.cache.schema import SCHEMA_VERSION
from edge_runtime.cache.subject import Identity, Subject, described
from edge_runtime.settings import Cache

ROW_BYTES: Final = 200  # what a row takes beside its payload, indexes included
WAL_BYTES: Final = 1_048_576  # a longer log is written back into the file
WAL_BYTES_MAX: Final = 16_777_216  # a reader that stays keeps the log from being written back
RESERVED_BYTES: Final = 4_194_304  # of `disk_bytes`: for the log, and for one batch too much
_BUSY_S: Final = 1.0
_CACHE_KIB: Final = 512
_VACUUM_PAGES: Final = 256


class OlderSchemaError(Exception):
    """The file must be migrated first."""


class ForeignSchemaError(Exception):
    """The file is of a newer program, or no cache at all."""


class LogTooLongError(OSError):
    """The write-ahead log cannot be written back."""


class Row(NamedTuple):
    """An answer on its way to the file."""

    subject: Subject
    key: bytes
    entry: Entry


@dataclass(slots=True)
class Written:
    """What a change did.

    Attributes:
        added: Fingerprints that came.
        gone: Fingerprints that are not there any more, perhaps some of those too.
        evicted: How many of those had belonged to each version.
        refused: Versions of answers that could not be written down.
    """

    added: list[int] = field(default_factory=list)
    gone: set[int] = field(default_factory=set)
    evicted: dict[Identity, int] = field(default_factory=dict)
    refused: list[Identity] = field(default_factory=list)


class _Values(NamedTuple):
    fingerprint: int
    created_ms: int
    run_ns: int
    key: bytes
    checksum: bytes
    payload: bytes


class Store:
    """An open file. Everything may raise ``sqlite3.Error`` and ``OSError``.

    Args:
        connection: In autocommit mode.
        path: The file.
        settings: Its limits.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, settings: Cache) -> None:
        self._connection = connection
        self._path = path
        self._place: tuple[int, int] | None = None  # never in place
        self._log = f"{path}-wal"
        reserved = min(settings.disk_bytes // 2, RESERVED_BYTES)
        self._most_bytes = settings.disk_bytes - reserved
        self._most_entries = settings.disk_answers
        self._versions: dict[int, Version] = {}
        self._ids: dict[Identity, int] = {}
        self._log_bytes = self._log_size()
        self._written_bytes = 0
        self._read_versions()
        rows = connection.execute(
            "SELECT version, count(*), sum(size) FROM answers GROUP BY version"
        )
        self._held = {version: Held(count, size) for version, count, size in rows}
        if not self._held.keys() <= self._versions.keys():
            raise ForeignSchemaError("there are answers of no version")

    @classmethod
    def open(cls, path: Path, settings: Cache) -> Self:
        """Open a file that exists.

        Args:
            path: The file; an empty one has an older schema.
            settings: Its limits.

        Raises:
            OlderSchemaError: It must be migrated.
            ForeignSchemaError: It is of a newer program.
        """
        place = _place(path)  # before: if it is replaced meanwhile, this does not fit any more
        connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
        try:
            version = pragma(connection, "user_version")
            if version < SCHEMA_VERSION:
                raise OlderSchemaError(f"schema {version}, wanted {SCHEMA_VERSION}")  # noqa: TRY301
            if version > SCHEMA_VERSION:
                raise ForeignSchemaError(f"schema {version} is of a newer program")  # noqa: TRY301
            _prepare(connection)
            store = cls(connection, path, settings)
        except BaseException:
            connection.close()
            raise
        store._place = place
        return store

    def close(self) -> None:
        """Write the log back and close the file."""
        self._connection.close()

    def is_in_place(self) -> bool:
        """Say whether the file's name still leads to the file that is open."""
        return _place(self._path) == self._place is not None

    # -- what is there -------------------------------------------------------------------------

    def identities(self, model: str) -> list[Identity]:
        """List the versions of a model, those without answers too."""
        return [identity for identity in self._ids if identity[0] == model]

    def fingerprints(self) -> Iterator[int]:
        """List the fingerprint of every row."""
        # From the covering index: no answer is read.
        for row in self._connection.execute("SELECT fingerprint FROM answers ORDER BY version, id"):
            yield row[0]

    def subjects(self) -> list[Subject]:
        """List the versions that have answers here; what makes no sense is left out."""
        found = []
        for row in self._connection.execute(
            "SELECT model, version, digest, engine, described FROM versions WHERE retired = 0"
        ):
            try:
                found.append(described(*row))
            except ValueError:
                continue
        return found

    def retired(self) -> list[Identity]:
        """List the versions whose answers are for nobody: others took their place."""
        return [version.identity for version in self._versions.values() if version.retired]

    def held(self) -> dict[Identity, Held]:
        """Count the answers of each version."""
        return {self._versions[id_].identity: held for id_, held in self._held.items()}

    def used_bytes(self) -> int:
        """Measure the pages that are in use."""
        return used_bytes(self._connection)

    def take_written_bytes(self) -> int:
        """Measure what was written since the last time, to the log and from there to the file."""
        self._measure_log()
        written, self._written_bytes = self._written_bytes, 0
        return written

    # -- answers -------------------------------------------------------------------------------

    def read(self, key: bytes) -> Entry | None:
        """Find an answer.

        Args:
            key: The question.

        Returns:
            The answer, whatever its age; ``None``: there is none, or another question's.

        Raises:
            CorruptEntryError: The row is not what was written.
        """
        row = self._connection.execute(
            "SELECT key, created_ms, run_ns, checksum, payload FROM answers WHERE fingerprint = ?",
            (fingerprint(key),),
        ).fetchone()
        if row is None or row[0] != key:
            return None
        _, created_ms, run_ns, wanted, payload = row
        tensors = decode_checked(key, created_ms, run_ns, wanted, payload)
        return Entry(tensors, created_ms / 1000, run_ns, in_memory_bytes(tensors))

    def write(self, rows: Sequence[Row], now_s: float) -> Written:
        """Write a batch, all or nothing; what is too old or too much leaves.

        Args:
            rows: The answers; those of versions that were forgotten are left out.
            now_s: Seconds since the epoch.

        Raises:
            LogTooLongError: Somebody reads for so long that nothing can be written back.
        """
        if self._log_size() > WAL_BYTES_MAX:
            raise LogTooLongError("the write-ahead log cannot be written back: somebody reads")
        written = Written()
        with self._changing(written) as eviction:
            eviction.expire(round(now_s * 1000))
            models = set()
            for subject, key, entry in rows:
                id_ = self._ids.get(subject.identity)
                if id_ is None:
                    continue
                try:
                    values = _values(key, entry)
                except UnicodeEncodeError:
                    written.refused.append(subject.identity)
                    continue
                eviction.discard(values.fingerprint)
                eviction.count(id_, 1, self._insert(id_, values))
                written.added.append(values.fingerprint)
                eviction.gone.discard(values.fingerprint)  # an older answer was
                models.add(subject.model)
            for model in models:
                eviction.limit_model(model)
            eviction.limit_all(self._most_bytes, self._most_entries)
        return written

    def discard(self, key: bytes) -> None:
        """Remove an answer, if it is there."""
        with self._changing(Written()) as eviction:
            eviction.discard(fingerprint(key))

    def _insert(self, version: int, values: _Values) -> int:
        size = len(values.payload) + ROW_BYTES
        self._connection.execute(
            "INSERT INTO answers (version, size, fingerprint, created_ms, run_ns, key, checksum,"
            " payload) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (version, size, *values),
        )
        return size

    # -- versions ------------------------------------------------------------------------------

    def describe(self, subject: Subject, policy: Policy) -> None:
        """Take note of a version; any other digest or engine of it retires.

        Args:
            subject: The version.
            policy: Of its model.
        """
        model, version, digest, engine = subject.identity
        keep_ms, max_bytes = round(policy.keep_s * 1000), policy.max_bytes
        description = subject.describe()
        wanted = Version(subject.identity, keep_ms, max_bytes, description, retired=False)
        id_ = self._ids.get(subject.identity)
        if id_ is not None and self._versions[id_] == wanted:
            return
        execute = self._connection.execute
        with self._changing(Written()):
            execute(
                "INSERT INTO versions (model, version, digest, engine, described, keep_ms,"
                " max_bytes, retired) VALUES (?, ?, ?, ?, ?, 0, 0, 0)"
                " ON CONFLICT (model, version, digest, engine)"
                " DO UPDATE SET described = excluded.described",
                (*subject.identity, description),
            )
            execute(
                "UPDATE versions SET keep_ms = ?, max_bytes = ? WHERE model = ?",
                (keep_ms, max_bytes, model),
            )
            execute(
                "UPDATE versions SET retired = (digest <> ? OR engine <> ?)"
                " WHERE model = ? AND version = ?",
                (digest, engine, model, version),
            )
        self._read_versions()

    def forget(self, identity: Identity) -> tuple[set[int], bool]:
        """Remove some answers of a version, and in the end the version itself.

        Returns:
            Fingerprints that are gone, and whether there is more to remove.
        """
        id_ = self._ids.get(identity)
        if id_ is None:
            return set(), False
        written = Written()
        with self._changing(written) as eviction:
            more = eviction.forget(id_)
            if not more:
                eviction.held.pop(id_, None)
                self._connection.execute("DELETE FROM versions WHERE id = ?", (id_,))
        if not more:
            self._read_versions()
        return written.gone, more

    def _read_versions(self) -> None:
        rows = self._connection.execute(
            "SELECT id, model, version, digest, engine, keep_ms, max_bytes, described, retired"
            " FROM versions"
        )
        self._versions = {
            id_: Version((model, version, digest, engine), keep_ms, max_bytes, said, bool(retired))
            for id_, model, version, digest, engine, keep_ms, max_bytes, said, retired in rows
        }
        self._ids = {version.identity: id_ for id_, version in self._versions.items()}

    # -- the file ------------------------------------------------------------------------------

    @contextmanager
    def _changing(self, written: Written) -> Iterator[Eviction]:
        """Make one transaction; what is counted follows the file only once it is committed."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            eviction = Eviction(connection, self._versions, self._held)
            yield eviction
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._held = eviction.held
        written.gone, written.evicted = eviction.gone, eviction.evicted
        self._tidy()

    def _tidy(self) -> None:
        """Write a long log back; give pages back that nothing needs."""
        free = pragma(self._connection, "freelist_count")
        if free > max(_VACUUM_PAGES, pragma(self._connection, "page_count") // 4):
            # A script, because a plain statement would stop after its first page.
            self._connection.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
        self._measure_log()
        if self._log_bytes > WAL_BYTES:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._log_bytes = self._log_size()

    def _measure_log(self) -> None:
        before, self._log_bytes = self._log_bytes, self._log_size()
        # What is in the log is written a second time, into the file.
        self._written_bytes += 2 * max(0, self._log_bytes - before)

    def _log_size(self) -> int:
        try:
            return os.stat(self._log).st_size  # noqa: PTH116 - half of pathlib's time
        except FileNotFoundError:
            return 0


def _place(path: Path) -> tuple[int, int] | None:
    """Tell a file from every other; by its name, as closing a second opening drops all locks."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _prepare(connection: sqlite3.Connection) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise OSError(f"the file system does not allow SQLite's write-ahead log ({mode})")
    for setting in (
        "synchronous = NORMAL",  # a power cut may lose the last batches, and breaks nothing
        "wal_autocheckpoint = 0",  # done in ``_tidy``, where it is counted
        f"cache_size = -{_CACHE_KIB}",
        "temp_store = MEMORY",
        "trusted_schema = OFF",
        "cell_size_check = ON",
    ):
        connection.execute(f"PRAGMA {setting}")


def _values(key: bytes, entry: Entry) -> _Values:
    payload = encode(entry.tensors)
    created_ms = round(entry.created_s * 1000)
    made = checksum(key, created_ms, entry.run_ns, payload)
    return _Values(fingerprint(key), created_ms, entry.run_ns, key, made, payload)
