"""Whatever kills the writer or fills its disk: what it said is stored is, and nothing is torn."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from edge_runtime.errors import StorageError
from edge_runtime.failpoints import VARIABLE
from edge_runtime.release.journal import Journal
from edge_runtime.release.journal_reader import JournalReader
from edge_runtime.release.journal_schema import DATABASE
from edge_runtime.release.records import Slots

_NOBODY = 65534


def writer(path: Path, *options: str, failpoints: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.journal_writer", str(path), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **({VARIABLE: failpoints} if failpoints else {})},
    )


def run(path: Path, *options: str, failpoints: str = "") -> tuple[list[str], int]:
    """Let it write until it ends; what it said, and how it ended."""
    with writer(path, *options, failpoints=failpoints) as child:
        output, errors = child.communicate(timeout=60)
    assert "Traceback" not in errors, errors
    return output.splitlines(), child.returncode


def check_whole(journal: JournalReader, at_least: int, at_most: int | None = None) -> int:
    """Look whether release, slots and history tell the same, from first to last."""
    (found,) = journal.releases("digits")
    number = int(found.state.removeprefix("state-"))
    assert found.looks == number
    assert at_least <= number <= (at_least if at_most is None else at_most)
    assert journal.slots("digits").active == (number or None)
    told = [(each.from_state, each.to_state) for each in reversed(journal.history("digits"))]
    assert told == [(f"state-{n - 1}", f"state-{n}") for n in range(1, number + 1)]
    return number


def last_of(said: list[str]) -> int:
    numbers = [int(line.removeprefix("state-")) for line in said if line.startswith("state-")]
    return max(numbers, default=0)


# The third transaction is the second move: the first makes the release.
@pytest.mark.parametrize("failpoint", ["journal.begin", "journal.commit"])
def test_the_old_state_is_whole_after_a_kill_at(tmp_path: Path, failpoint: str) -> None:
    path = tmp_path / DATABASE
    said, code = run(path, failpoints=f"{failpoint}=kill@3")
    assert (said, code) == (["ready ", "state-1"], -signal.SIGKILL)
    with Journal.read(path) as reader:
        check_whole(reader, 1)
    with Journal(path).open() as journal:
        assert (journal.damage, journal.problem) == ("", "")
        check_whole(journal, 1)
    said, _ = run(path, "times=2")
    assert said == ["ready ", "state-2", "state-3"]


@pytest.mark.parametrize("failpoint", ["journal.begin", "journal.commit"])
@pytest.mark.parametrize("action", ["error", "full"])
def test_a_disk_that_fails_refuses_one_change_and_takes_the_next(
    tmp_path: Path, failpoint: str, action: str
) -> None:
    path = tmp_path / DATABASE
    said, code = run(path, "times=3", failpoints=f"{failpoint}={action}@3")
    assert [line.partition(":")[0] for line in said] == ["ready ", "state-1", "refused", "state-3"]
    assert "release journal runtime.db failed" in said[2]
    assert code == 0
    with Journal(path).open() as journal:
        (found,) = journal.releases()
        told = [(each.from_state, each.to_state) for each in journal.history()]
        assert found.state == "state-3"
        assert told == [("state-1", "state-3"), ("state-0", "state-1")]


@pytest.mark.parametrize("after", [1, 2, 3, 5, 8, 13, 21, 34])
def test_what_was_said_to_be_stored_is_there_after_a_kill_at_any_moment(
    tmp_path: Path, after: int
) -> None:
    path = tmp_path / DATABASE
    with writer(path) as child:
        assert child.stdout is not None
        said = [child.stdout.readline().strip() for _ in range(after + 1)]
        child.kill()
        said += child.stdout.read().splitlines()
    if said[-1] and not re.fullmatch(r"state-\d+", said[-1]):
        said.pop()  # half a line
    stored = last_of(said)
    with Journal.read(path) as reader:
        number = check_whole(reader, stored, stored + 1)
    with Journal(path).open() as journal:
        assert journal.damage == ""
        check_whole(journal, number)


def test_a_change_that_was_cut_off_on_the_disk_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / DATABASE
    run(path, "times=200")
    # So many pages in so little memory that they reach the file before the end.
    code = (
        "import os, signal, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('PRAGMA cache_size = 1'); c.execute('PRAGMA cache_spill = 1');"
        "c.execute('BEGIN'); c.execute('DROP TRIGGER history_no_update');"
        "c.execute(\"UPDATE history SET reason = 'nothing happened', boot_id = 'x'\");"
        "c.execute('UPDATE slots SET active = 1'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    before = path.read_bytes()
    with Journal.read(path) as reader:
        history = reader.history()
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    torn = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    assert torn[DATABASE] != before
    assert torn[f"{DATABASE}-journal"]
    with Journal.read(path) as reader:
        check_whole(reader, 200)
        assert reader.history() == history
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == torn
    with Journal(path).open() as journal:
        assert journal.damage == ""
        check_whole(journal, 200)
        assert journal.history() == history


def test_a_disk_without_room_refuses_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / DATABASE
    Journal(path).open().close()
    limit = path.stat().st_size + 40_000
    said, code = run(path, f"bytes={limit}", "times=120")
    refused = [line for line in said if line.startswith("refused")]
    assert code == 0
    assert refused
    assert all("release journal runtime.db failed" in line for line in refused)
    stored = last_of(said)
    assert 0 < stored < 120
    with Journal(path).open() as journal:
        check_whole(journal, stored)
        assert journal.damage == ""


def test_a_full_disk_is_named_and_the_next_change_goes_well(tmp_path: Path) -> None:
    path = tmp_path / DATABASE
    run(path, "times=5")
    with Journal(path).open() as journal:
        connection = journal._file._connection
        assert connection is not None
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
        said = []
        for number in range(50):
            slots = Slots(model="m" * 100 + str(number), disabled="x" * 900)
            try:
                journal.set_slots(slots)
            except StorageError as error:
                said.append(error.message)
        kept = len(journal.all_slots())
        assert said
        assert "the disk is full" in said[0]
        assert journal.problem == said[-1]
        assert kept == 51 - len(said)
        connection.execute("PRAGMA max_page_count = 1000000").fetchall()
        journal.set_slots(Slots(model="m"))
        assert journal.problem == ""
        check_whole(journal, 5)


def test_a_disk_that_cannot_be_written_is_read_and_no_change_is_lost(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become a user who may read and not write")
    path = folder / DATABASE
    run(path, "times=3")
    for each in (folder, path):
        os.chown(each, _NOBODY, _NOBODY)
    (folder / "runtime.lock").unlink()
    folder.chmod(0o500)
    before = {each.name: each.read_bytes() for each in folder.iterdir()}
    said, code = run(path, "times=2", f"uid={_NOBODY}")
    assert code == 0
    assert "Permission denied" in said[0]
    assert [line.partition(":")[0] for line in said[1:]] == ["refused", "refused"]
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == before
    folder.chmod(0o700)
    (folder / f"{DATABASE}-journal").unlink()
    said, _ = run(path, "times=1", f"uid={_NOBODY}")
    assert said == ["ready ", "state-4"]


def test_a_journal_opened_without_room_heals_by_itself(tmp_path: Path) -> None:
    path = tmp_path / DATABASE
    run(path, "times=3")
    lock = path.with_name("runtime.lock")
    lock.unlink()
    lock.mkdir()  # stands for a disk that takes no new file
    with Journal(path).open() as journal:
        assert journal.problem
        check_whole(journal, 3)
        with pytest.raises(StorageError, match="release journal"):
            journal.next_order()
        check_whole(journal, 3)
        lock.rmdir()
        assert journal.next_order() == 1
        assert journal.problem == ""
        check_whole(journal, 3)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT orders FROM daemon").fetchone() == (1,)
