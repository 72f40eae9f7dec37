"""What is cleared stays cleared, whatever state the file is in."""

import sqlite3
from pathlib import Path

import pytest

from edge_runtime.cache import store
from edge_runtime.cache.folder import Folder
from edge_runtime.cache.index import fingerprint
from edge_runtime.cache.schema import DATABASE, DIRECTORY, LOCK
from edge_runtime.cache.subject import Identity
from edge_runtime.cache.worker import (
    PAUSE_S,
    Outcome,
)
from tests.caching import (
    POLICY,
    Make,
    Seen,
    TurnableClock,
    kept,
    key,
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
    assert worker.forget(subject().identity, for_good=False) == (set(), Outcome.FAILED)
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


def _lock(database: Path) -> sqlite3.Connection:
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_BUSY_S", 0.01)


@pytest.mark.parametrize("identity", [subject().identity, ("m", "", "", "")])
def test_what_cannot_be_cleared_while_the_file_is_locked_is_owed_until_it_can(
    make: Make, seen: Seen, database: Path, time: TurnableClock, identity: Identity
) -> None:
    worker = make()
    write(worker, *range(1, 600))
    other = _lock(database)
    assert worker.forget(identity, for_good=False)[1] is Outcome.FAILED
    assert "locked" in worker.problem
    assert seen.opened[-1] is None, "nothing is found any more"
    assert worker.go_on(identity) == (set(), Outcome.FAILED), "not before the pause is over"
    other.execute("ROLLBACK")
    other.close()
    time.pass_(PAUSE_S)
    assert worker.go_on(identity)[1] is Outcome.DONE
    assert seen.entries == 0
    assert write(worker, 1000)
    assert worker.go_on(identity) == (set(), Outcome.DONE)
    assert kept(worker, 1000), "what was kept since is nobody's debt"


def test_what_cannot_be_cleared_on_a_read_only_disk_is_owed_and_leaves_before_others_come(
    make: Make, time: TurnableClock
) -> None:
    worker = make()
    write(worker, 1, 2)
    connection = worker._store._connection  # type: ignore[union-attr]
    connection.execute("PRAGMA query_only = ON")
    identity = subject().identity
    assert worker.forget(identity, for_good=False)[1] is Outcome.FAILED
    assert "nothing is written" in worker.problem
    connection.execute("PRAGMA query_only = OFF")
    time.pass_(PAUSE_S)
    written = worker.write([row(3)])
    assert written is not None
    assert written.gone == {fingerprint(key(1)), fingerprint(key(2))}
    assert worker.go_on(identity) == (set(), Outcome.DONE)
    assert not kept(worker, 1)
    assert kept(worker, 3)


def test_what_is_owed_at_the_end_is_cleared_before_the_file_is_closed(
    make: Make, database: Path
) -> None:
    worker = make()
    write(worker, 1)
    other = _lock(database)
    assert worker.forget(subject().identity, for_good=True)[1] is Outcome.FAILED
    other.close()
    worker.close()
    assert not kept(make(), 1)


def test_a_version_that_comes_back_while_it_is_forgotten_is_forgotten_and_kept_anew(
    make: Make,
) -> None:
    worker = make()
    write(worker, *range(1, 600))
    identity = subject().identity
    assert worker.forget(identity, for_good=True)[1] is Outcome.MORE
    worker.describe(subject(), POLICY)
    outcome = Outcome.MORE
    while outcome is Outcome.MORE:
        outcome = worker.go_on(identity)[1]
    assert outcome is Outcome.DONE
    assert not any(kept(worker, number) for number in range(1, 600))
    assert write(worker, 1000)
    assert kept(worker, 1000)


def test_a_file_that_cannot_be_removed_is_removed_before_it_is_opened(
    make: Make, database: Path, time: TurnableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make()
    write(worker, 1)

    def fails(_: Folder) -> None:
        raise OSError("read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "remove", fails)
        assert not worker.clear()
        assert "read-only" in worker.problem
        time.pass_(PAUSE_S)
        assert not worker.retry_clear()
    time.pass_(2 * PAUSE_S)
    assert worker.retry_clear()
    assert database.exists()
    assert not kept(worker, 1)


def test_a_model_that_is_cleared_is_kept_anew_and_others_stay(make: Make) -> None:
    worker = make()
    write(worker, *range(1, 600))
    worker.describe(subject("n"), POLICY)
    worker.write([row(1000, subject("n"))])
    every = ("m", "", "", "")
    gone, outcome = worker.forget(every, for_good=False)
    while outcome is Outcome.MORE:
        more, outcome = worker.go_on(every)
        gone |= more
    assert outcome is Outcome.DONE
    assert len(gone) == 599
    assert kept(worker, 1000)
    assert write(worker, 1)
    assert kept(worker, 1)
