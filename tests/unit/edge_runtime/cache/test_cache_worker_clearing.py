"""What is cleared stays cleared, whatever state the file is in."""

from pathlib import Path

from edge_runtime.cache.schema import DATABASE, DIRECTORY, LOCK
from edge_runtime.cache.worker import (
    PAUSE_S,
)
from tests.caching import (
    POLICY,
    Make,
    Seen,
    TurnableClock,
    kept,
    quarantined,
    row,
    subject,
    write,
)


def test_clearing_removes_the_file_and_the_broken_ones_beside_it(
    make: Make, seen: Seen, database: Path
) -> None:
    database.parent.mkdir(mode=0o700)
    database.write_bytes(b"broken" * 1000)
    worker = make()
    write(worker, 1)
    assert quarantined(database)
    worker.clear()
    assert not quarantined(database)
    assert seen.entries == 0
    assert not kept(worker, 1)
    assert write(worker, 2)
    assert kept(worker, 2)
    assert sorted(path.name for path in database.parent.iterdir() if path.stat().st_size) == [
        DATABASE,
        f"{DATABASE}-shm",
        f"{DATABASE}-wal",
    ]
    assert (database.parent / LOCK).exists()


def test_what_is_cleared_while_there_is_no_file_is_gone_when_it_is_back(
    make: Make, folder: Path, time: TurnableClock
) -> None:
    first = make()
    write(first, *range(1, 600))
    first.describe(subject(version="2"), POLICY)
    first.write([row(1000, subject(version="2"))])
    first.close()
    (folder / DIRECTORY).rename(folder / "away")
    (folder / DIRECTORY).write_text("a file where the folder should be")
    worker = make()
    assert "memory only" in worker.problem
    assert worker.forget(subject().identity, for_good=False) == (set(), False)
    (folder / DIRECTORY).unlink()
    (folder / "away").rename(folder / DIRECTORY)
    time.pass_(PAUSE_S)
    assert write(worker, 1001)
    assert not kept(worker, 1)
    assert not kept(worker, 599)
    assert kept(worker, 1000, 1001)


def test_all_that_is_cleared_while_there_is_no_file_is_gone_when_it_is_back(
    make: Make, folder: Path, time: TurnableClock
) -> None:
    first = make()
    write(first, 1)
    first.close()
    (folder / DIRECTORY).rename(folder / "away")
    (folder / DIRECTORY).write_text("a file where the folder should be")
    worker = make()
    worker.clear()
    (folder / DIRECTORY).unlink()
    (folder / "away").rename(folder / DIRECTORY)
    time.pass_(2 * PAUSE_S)
    assert write(worker, 2)
    assert not kept(worker, 1)
    assert kept(worker, 2)


def test_what_another_daemon_keeps_is_not_ours_to_clear(make: Make, time: TurnableClock) -> None:
    first, second = make(), make()
    write(first, 1)
    second.clear()
    second.forget(subject().identity, for_good=False)
    first.close()
    time.pass_(2 * PAUSE_S)
    second.open()
    assert kept(second, 1)
