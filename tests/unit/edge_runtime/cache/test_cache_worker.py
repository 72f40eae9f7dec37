"""Whatever happens to the file, the cache goes on: mended, without it, or with it again."""

import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runtime.cache.fault import Fault, fault
from edge_runtime.cache.folder import QUARANTINED_MAX, FolderError, InUseError
from edge_runtime.cache.schema import DIRECTORY, SCHEMA_VERSION
from edge_runtime.cache.store import ForeignSchemaError, LogTooLongError
from edge_runtime.cache.worker import (
    BROKEN_FILES_MAX,
    CORRUPT_ROWS_MAX,
    PAUSE_S,
    PAUSE_S_MAX,
)
from tests.caching import (
    Make,
    Seen,
    TurnableClock,
    kept,
    key,
    make_database,
    quarantined,
    write,
)


def test_a_new_file_is_made_private_in_a_private_folder(
    make: Make, folder: Path, database: Path
) -> None:
    old = os.umask(0)
    try:
        worker = make(migrated=False)
    finally:
        os.umask(old)
    assert write(worker, 1)
    assert kept(worker, 1)
    for path in database.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE((folder / DIRECTORY).stat().st_mode) == 0o700


def test_a_folder_that_others_could_enter_is_closed(make: Make, folder: Path) -> None:
    make_database(folder)
    (folder / DIRECTORY).chmod(0o777)
    worker = make()
    assert write(worker, 1)
    assert stat.S_IMODE((folder / DIRECTORY).stat().st_mode) == 0o700


def test_a_folder_in_one_that_others_may_write_to_is_not_used(make: Make, folder: Path) -> None:
    folder.chmod(0o777)
    worker = make()
    assert not write(worker, 1)
    assert f"others may write to {folder}" in worker.problem
    folder.chmod(0o700)


def test_a_link_is_not_followed(make: Make, folder: Path, time: TurnableClock) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (folder / DIRECTORY).symlink_to(elsewhere)
    worker = make()
    assert not write(worker, 1)
    assert "not a folder of this user" in worker.problem
    assert not list(elsewhere.iterdir())
    (folder / DIRECTORY).unlink()
    make_database(folder)
    time.pass_(PAUSE_S)
    assert write(worker, 1)
    assert not worker.problem


def test_a_second_daemon_goes_on_in_memory_until_the_first_one_ends(
    make: Make, time: TurnableClock
) -> None:
    first = make()
    second = make()
    assert write(first, 1)
    assert not write(second, 2)
    assert "another daemon" in second.problem
    assert not kept(second, 1)
    first.close()
    assert not write(second, 2), "it does not try at every turn"
    time.pass_(PAUSE_S)
    assert write(second, 2)
    assert kept(second, 1, 2)
    assert not second.problem


BROKEN: dict[str, Callable[[Path], object]] = {
    "no database": lambda path: path.write_bytes(b"not a database at all, I am afraid" * 200),
    "text in the middle": lambda path: path.write_bytes(
        path.read_bytes()[:100] + b"\xff" * 3996 + path.read_bytes()[4096:]
    ),
    "of the future": lambda path: _execute(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}"),
    "somebody else's": lambda path: _execute(path, "DROP TABLE answers"),
    "an older one that is none": lambda path: _execute(path, "PRAGMA user_version = 0"),
}


def _execute(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_file_is_put_aside_and_begun_anew(
    make: Make, seen: Seen, database: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = make()
    write(first, 1)
    first.close()
    BROKEN[how](database)
    worker = make()
    assert seen.entries == 0
    assert write(worker, 2)
    assert kept(worker, 2)
    assert not kept(worker, 1)
    assert (worker.quarantined, worker.errors) == (1, 1)
    assert len(quarantined(database)) == 1
    assert "put a broken file aside" in caplog.text


def test_only_the_latest_broken_files_are_kept(
    make: Make, database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for turn in range(QUARANTINED_MAX + 2):
        make().close()
        database.write_bytes(f"broken for the {turn}th time".encode() * 100)
    make()
    assert [path.read_bytes()[:20] for path in quarantined(database)] == [
        f"broken for the {turn}th time".encode()[:20] for turn in range(2, QUARANTINED_MAX + 2)
    ]
    assert len(caplog.records) == QUARANTINED_MAX + 2


def test_a_file_that_breaks_while_it_is_open_is_replaced(
    make: Make, seen: Seen, database: Path
) -> None:
    worker = make()
    for start in range(0, 2000, 200):
        assert write(worker, *range(start, start + 200), size=500)
    _execute(database, "PRAGMA wal_checkpoint(TRUNCATE)")
    pages = database.stat().st_size // 4096
    with database.open("r+b") as file:
        file.seek(4096 * 4)
        file.write(os.urandom(4096 * (pages - 4)))
    # A new connection sees the file and not what the old one remembers of it.
    worker._store._connection.execute("PRAGMA cache_size = 0")  # type: ignore[union-attr]
    for number in range(2000):
        worker.read(key(number))
    write(worker, 5000)
    assert worker.quarantined == 1
    assert seen.opened[-2] is None
    assert seen.entries == 0
    assert write(worker, 5001)
    assert kept(worker, 5001)


def test_a_row_that_is_broken_is_dropped_and_the_file_stays(make: Make, database: Path) -> None:
    worker = make()
    write(worker, 1, 2)
    _execute(database, "UPDATE answers SET payload = zeroblob(40) WHERE run_ns = 1")
    assert not kept(worker, 1)
    assert kept(worker, 2)
    assert (worker.errors, worker.quarantined) == (1, 0)
    assert not kept(worker, 1)
    assert worker.errors == 1


def test_a_file_with_too_many_broken_rows_is_not_believed_any_more(
    make: Make, database: Path
) -> None:
    worker = make()
    write(worker, *range(1, CORRUPT_ROWS_MAX + 10))
    _execute(database, "UPDATE answers SET checksum = zeroblob(16)")
    for number in range(1, CORRUPT_ROWS_MAX + 10):
        assert not kept(worker, number)
    assert worker.quarantined == 1
    assert write(worker, 1)
    assert kept(worker, 1)


def test_a_disk_that_is_full_stops_the_writing_and_not_the_reading(
    make: Make, time: TurnableClock
) -> None:
    worker = make()
    assert write(worker, 1)
    connection = worker._store._connection  # type: ignore[union-attr]
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    assert not write(worker, *range(2, 40), size=9000)
    assert "nothing is written" in worker.problem
    assert worker.is_paused
    assert kept(worker, 1)
    connection.execute("PRAGMA max_page_count = 1000000")
    assert not write(worker, 2), "not before the pause is over"
    time.pass_(PAUSE_S)
    assert write(worker, 2)
    assert not worker.problem


def test_pauses_grow_up_to_an_hour_and_begin_anew_after_a_success(
    make: Make, folder: Path, time: TurnableClock
) -> None:
    (folder / DIRECTORY).write_text("a file where the folder should be")
    worker = make(migrated=False)
    pauses: list[float] = []
    while not pauses or pauses[-1] < PAUSE_S_MAX:
        start = time.monotonic_s
        while worker.is_paused:
            time.pass_(5)
        pauses.append(time.monotonic_s - start)
        assert not write(worker, 1)
    assert pauses == [min(PAUSE_S * 2**turn, PAUSE_S_MAX) for turn in range(len(pauses))]
    (folder / DIRECTORY).unlink()
    make_database(folder)
    time.pass_(PAUSE_S_MAX)
    assert write(worker, 1)
    assert worker._pause_s == PAUSE_S


def test_what_cannot_be_told_apart_from_damage_counts_as_damage() -> None:
    def sqlite(code: int | None, kind: type[sqlite3.Error] = sqlite3.OperationalError) -> Fault:
        error = kind("text")
        if code is not None:
            error.sqlite_errorcode = code
        return fault(error)

    assert sqlite(sqlite3.SQLITE_CORRUPT, sqlite3.DatabaseError) is Fault.BROKEN
    assert sqlite(sqlite3.SQLITE_NOTADB) is Fault.BROKEN
    assert sqlite(sqlite3.SQLITE_ERROR) is Fault.BROKEN
    assert sqlite(None) is Fault.BROKEN
    assert sqlite(sqlite3.SQLITE_FULL) is Fault.NOT_WRITABLE
    assert sqlite(sqlite3.SQLITE_READONLY_DBMOVED) is Fault.NOT_WRITABLE
    assert sqlite(sqlite3.SQLITE_IOERR_WRITE) is Fault.NOT_WRITABLE
    assert sqlite(sqlite3.SQLITE_IOERR_READ) is Fault.PASSING
    assert sqlite(sqlite3.SQLITE_BUSY) is Fault.PASSING
    assert sqlite(sqlite3.SQLITE_CANTOPEN) is Fault.PASSING
    assert fault(LogTooLongError()) is Fault.NOT_WRITABLE
    assert fault(ForeignSchemaError()) is Fault.BROKEN
    assert fault(InUseError()) is Fault.PASSING
    assert fault(FolderError()) is Fault.PASSING
    assert fault(MemoryError()) is Fault.PASSING
    assert fault(TypeError()) is Fault.BROKEN


def test_a_file_that_breaks_again_and_again_is_left_alone_for_a_while(
    make: Make, database: Path, time: TurnableClock
) -> None:
    worker = make()
    for turn in range(1, BROKEN_FILES_MAX + 2):
        worker._failed(ForeignSchemaError("broken"))
        assert worker.quarantined == turn
    assert worker.is_paused
    time.pass_(PAUSE_S)
    assert write(worker, 1)
    assert len(quarantined(database)) == QUARANTINED_MAX


def test_a_migration_that_fails_on_a_new_file_is_tried_again_later(
    make: Make, time: TurnableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    worker = make(migrated=False)
    assert not write(worker, 1)
    assert "the migration failed" in worker.problem
    assert worker.quarantined == 0
    monkeypatch.undo()
    time.pass_(PAUSE_S)
    assert write(worker, 1)
