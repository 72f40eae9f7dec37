"""What could not be cleared is noted, so that a daemon that is killed forgets none of it."""

import sqlite3
from pathlib import Path

import pytest

from edge_runtime.cache import store
from edge_runtime.cache.folder import Folder
from edge_runtime.cache.schema import DEBT
from edge_runtime.cache.subject import Identity
from edge_runtime.cache.worker import Outcome, Worker
from tests.caching import POLICY, Make, kept, row, subject, write

EVERY: Identity = ("m", "", "", "")


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_BUSY_S", 0.01)


def die(worker: Worker) -> None:
    """Leave as a killed process does: with its locks, and without doing anything."""
    worker._folder.release()
    worker._store = None
    worker.debt.drop()


def locked(database: Path) -> sqlite3.Connection:
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


@pytest.mark.parametrize("identity", [EVERY, subject().identity], ids=["model", "version"])
def test_what_could_not_be_cleared_is_cleared_by_the_next_daemon_before_it_answers(
    make: Make, database: Path, identity: Identity
) -> None:
    worker = make()
    worker.describe(subject("n"), POLICY)
    write(worker, *range(1, 300))
    worker.write([row(1000, subject("n"))])
    other = locked(database)
    assert worker.forget(identity, for_good=False)[1] is Outcome.FAILED
    assert (database.parent / DEBT).exists()
    assert not worker.debt.problem
    die(worker)
    other.close()
    following = make()
    assert not any(kept(following, number) for number in range(1, 300))
    assert kept(following, 1000), "what others keep stays"
    assert not (database.parent / DEBT).exists()
    assert write(following, 1)
    die(following)
    assert kept(make(), 1), "a debt is paid once"


def test_a_clear_of_everything_that_failed_is_done_by_the_next_daemon(
    make: Make, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make()
    write(worker, 1)

    def fails(_: Folder) -> None:
        raise OSError("read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "remove", fails)
        assert not worker.clear()
    die(worker)
    assert not kept(make(), 1)
    assert not (database.parent / DEBT).exists()


def test_a_clear_that_a_crash_interrupts_half_way_is_finished(make: Make) -> None:
    worker = make()
    write(worker, *range(1, 600))
    assert worker.forget(EVERY, for_good=False)[1] is Outcome.MORE
    die(worker)
    following = make()
    assert not any(kept(following, number) for number in range(1, 600))


def test_a_clear_that_is_done_leaves_no_note(make: Make, database: Path) -> None:
    worker = make()
    write(worker, 1)
    assert worker.clear()
    write(worker, 2)
    while worker.forget(EVERY, for_good=False)[1] is Outcome.MORE:
        pass
    assert not (database.parent / DEBT).exists()


@pytest.mark.parametrize("text", [b'{"identities": [["m"', b'{"identities": [["\xff","","",""]]}'])
def test_a_note_that_nobody_can_read_clears_everything(
    make: Make, database: Path, text: bytes
) -> None:
    worker = make()
    write(worker, 1)
    die(worker)
    (database.parent / DEBT).write_bytes(text)
    assert not kept(make(), 1)
    assert not (database.parent / DEBT).exists()


def test_where_not_even_a_note_can_be_written_that_is_told(make: Make, database: Path) -> None:
    worker = make()
    write(worker, 1)
    (database.parent / DEBT).mkdir()  # what cannot be replaced by a file
    other = locked(database)
    worker.forget(EVERY, for_good=False)
    assert "nor can that be noted" in worker.debt.problem
    other.close()
    (database.parent / DEBT).rmdir()


def test_nothing_is_noted_in_the_folder_of_another_daemon(make: Make, database: Path) -> None:
    first, second = make(), make()
    write(first, 1)
    second.clear()
    second.forget(EVERY, for_good=False)
    assert not (database.parent / DEBT).exists()
    assert not second.debt.problem
