"""The file of the prediction journal: begun whole, read by others at any moment."""

import resource
import signal
import sqlite3
import threading
from pathlib import Path

import pytest

from edge_runtime.errors import ArtifactError, StorageError
from edge_runtime.observation.journal_file import JournalFile
from edge_runtime.observation.journal_record import Facts

FACTS = Facts("digits", "1", "sha256:0", 1, "sampled")
RECORD = b"x" * 100


def read_until(stopped: threading.Event, path: Path, errors: list[Exception]) -> None:
    """Open and read, again and again, from the moment that the file has its name."""
    while not stopped.is_set():
        if path.exists():
            try:
                file = JournalFile.open(path)
                list(file.rows())
                file.close()
            except (StorageError, ArtifactError) as error:
                errors.append(error)


def test_readers_are_never_refused_while_a_journal_begins(tmp_path: Path) -> None:
    errors: list[Exception] = []
    for number in range(50):
        path = tmp_path / f"journal-{number}.db"
        stopped = threading.Event()
        readers = [
            threading.Thread(target=read_until, args=(stopped, path, errors)) for _ in range(2)
        ]
        for reader in readers:
            reader.start()
        file = JournalFile.create(path)
        file.append([(FACTS, False, RECORD)])
        file.close()
        stopped.set()
        for reader in readers:
            reader.join()
    assert errors == []


def test_what_a_kill_left_of_a_beginning_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    for name in ("journal.db.new", "journal.db.new-wal", "journal.db.new-shm", "journal.db-wal"):
        (tmp_path / name).write_bytes(b"half of something")
    file = JournalFile.create(path)
    file.append([(FACTS, False, RECORD)])
    assert [row.record for row in file.rows()] == [RECORD]
    file.close()
    assert [found.name for found in tmp_path.iterdir()] == ["journal.db"]


def test_a_file_that_nobody_finished_is_said_to_be_so(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.touch()
    with pytest.raises(ArtifactError, match="never finished"):
        JournalFile.open(path)
    assert path.read_bytes() == b""


def test_opening_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="SQLITE_CANTOPEN"):
        JournalFile.open(tmp_path / "journal.db")
    assert list(tmp_path.iterdir()) == []


def test_a_newer_programs_journal_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    JournalFile.create(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ArtifactError, match="newer program"):
        JournalFile.open(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    ["DROP TABLE journal", "DELETE FROM journal", "PRAGMA user_version = 0"],
)
def test_what_can_be_opened_and_is_no_journal_is_called_damaged(
    tmp_path: Path, damage: str
) -> None:
    # Only what is called so is set aside: else nothing would ever be kept again.
    path = tmp_path / "journal.db"
    JournalFile.create(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(damage)
    connection.close()
    with pytest.raises(ArtifactError):
        JournalFile.open(path)


def test_a_disk_that_refuses_at_any_page_leaves_no_half_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    refused = 0
    try:
        for size_bytes in range(0, 65_536, 2048):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limit[1]))
            try:
                JournalFile.create(path).close()
            except StorageError:
                refused += 1
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            if path.exists():
                JournalFile.open(path).close()  # it is whole
                path.unlink()
        JournalFile.create(path).close()
    finally:
        signal.signal(signal.SIGXFSZ, ignored)
    assert refused > 4
