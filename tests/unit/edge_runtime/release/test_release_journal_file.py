"""The journal's file: private, one daemon's, put aside when damaged, readable by others."""

import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from edge_runtime.errors import StorageError
from edge_runtime.release.journal import Journal
from edge_runtime.release.journal_schema import DAMAGED_MAX, DATABASE, SCHEMA_VERSION
from edge_runtime.release.records import Slots
from tests.release_records import note, release

SLOTS = Slots(model="m", active=2, active_source="store")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal that says that version 2 is active."""
    path = tmp_path / DATABASE
    with Journal(path).open() as journal:
        journal.set_slots(SLOTS, note("m"))
        journal.insert(release("m"))
    return path


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def state(folder: Path) -> dict[str, bytes]:
    """Everything that is in a folder."""
    return {each.name: each.read_bytes() for each in folder.iterdir()}


# -- where it lies ---------------------------------------------------------------------------------


def test_the_folder_is_made_and_everything_is_private(tmp_path: Path) -> None:
    path = tmp_path / "state" / "deeper" / DATABASE
    with Journal(path).open() as journal:
        journal.set_slots(SLOTS)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        for each in path.parent.iterdir():
            assert stat.S_IMODE(each.stat().st_mode) == 0o600, each.name


def test_a_file_that_others_could_read_is_made_private_again(path: Path) -> None:
    path.chmod(0o644)
    with Journal(path).open() as journal:
        assert journal.slots("m") == SLOTS
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_folder_that_others_may_write_to_is_refused(path: Path, mode: int) -> None:
    path.parent.chmod(mode)
    before = state(path.parent)
    with pytest.raises(StorageError, match="others may write to the state directory"):
        Journal(path).open()
    assert state(path.parent) == before


def test_a_link_in_its_place_is_refused(path: Path) -> None:
    target = path.rename(path.with_name("elsewhere"))
    path.symlink_to(target)
    before = target.read_bytes()
    with pytest.raises(StorageError, match="not a plain file"):
        Journal(path).open()
    assert target.read_bytes() == before


def test_an_odd_folder_name_is_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "a b?mode=memory#%41" / DATABASE
    with Journal(path).open() as journal:
        journal.set_slots(SLOTS)
    with Journal.read(path) as reader:
        assert reader.slots("m") == SLOTS


def test_a_start_that_was_cut_off_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / DATABASE
    path.with_name(f"{DATABASE}.new").write_bytes(b"half")
    with Journal(path).open() as journal:
        assert journal.damage == ""
        journal.set_slots(SLOTS)
    assert not path.with_name(f"{DATABASE}.new").exists()


# -- a second daemon -------------------------------------------------------------------------------


def test_a_second_daemon_is_refused_and_changes_nothing(path: Path) -> None:
    with Journal(path).open() as journal:
        before = state(path.parent)
        with pytest.raises(StorageError, match="another daemon uses the release journal"):
            Journal(path).open()
        assert state(path.parent) == before
        journal.next_order()
    Journal(path).open().close()


def test_the_next_daemon_gets_in_after_one_that_could_not_open(path: Path) -> None:
    change(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(StorageError):
        Journal(path).open()
    change(path, f"PRAGMA user_version = {SCHEMA_VERSION}")
    with Journal(path).open() as journal:
        assert journal.slots("m") == SLOTS


def test_somebody_elses_transaction_stops_a_change_and_not_the_daemon(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.release.journal_checks.BUSY_S", 0.05)
    other = sqlite3.connect(path, isolation_level=None)
    with Journal(path).open() as journal, closing(other):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="another program has it open"):
            journal.set_slots(Slots(model="m"))
        assert "another program" in journal.problem
        assert journal.slots("m") == SLOTS
        other.execute("COMMIT")
        other.execute("BEGIN")
        other.execute("SELECT * FROM slots").fetchone()  # a reader that stays
        with pytest.raises(StorageError, match="another program has it open"):
            journal.set_slots(Slots(model="m"))
        other.execute("COMMIT")
        assert journal.slots("m") == SLOTS
        journal.set_slots(Slots(model="m"))
        assert (journal.slots("m"), journal.problem) == (Slots(model="m"), "")


@pytest.mark.parametrize("replace", [False, True])
def test_a_file_that_was_taken_away_is_noticed_before_the_next_change(
    path: Path, *, replace: bool
) -> None:
    with Journal(path).open() as journal:
        path.rename(path.with_name("gone"))
        if replace:
            path.write_bytes(b"")
        with pytest.raises(StorageError):
            journal.set_slots(Slots(model="m"))
        assert journal.problem


# -- other programs' files -------------------------------------------------------------------------


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 2**31 - 1])
def test_a_newer_programs_file_is_refused_and_untouched(path: Path, version: int) -> None:
    change(path, "PRAGMA journal_mode = WAL", f"PRAGMA user_version = {version}")
    path.chmod(0o640)
    before, mode = path.read_bytes(), path.stat().st_mode
    with pytest.raises(
        StorageError, match=f"schema {version}, and this program knows {SCHEMA_VERSION}"
    ):
        Journal(path).open()
    assert (path.read_bytes(), path.stat().st_mode) == (before, mode)
    with pytest.raises(
        StorageError, match=f"schema {version}, and this program knows {SCHEMA_VERSION}"
    ):
        Journal.read(path)
    assert path.read_bytes() == before


def test_a_file_with_a_log_becomes_one_without(path: Path) -> None:
    change(path, "PRAGMA journal_mode = WAL")
    with Journal(path).open() as journal:
        journal.next_order()
        assert not path.with_name(f"{DATABASE}-wal").exists()


# -- damage ----------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_within_a_page(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def hole(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(bytes(8192))


def header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"GARBAGE!")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut in half": cut,
    "cut within a page": cut_within_a_page,
    "no bytes at all": lambda path: path.write_bytes(b""),
    "one byte": lambda path: path.write_bytes(b"x"),
    "garbage": lambda path: path.write_bytes(os.urandom(10_000)),
    "zeros": zeros,
    "zeros for two pages": hole,
    "another header": header,
    "text": lambda path: path.write_text("no database\n" * 500),
    "another program's database": lambda path: change(
        path, "PRAGMA user_version = 0", "DROP TABLE slots"
    ),
    "another table": lambda path: change(path, "DROP TABLE overrides"),
    "one table too many": lambda path: change(path, "CREATE TABLE more (a)"),
    "slots that make no sense": lambda path: change(
        path, "PRAGMA ignore_check_constraints = ON", "UPDATE slots SET active_source = 'x'"
    ),
    "weights that make no sense": lambda path: change(path, "UPDATE releases SET weights = '[5'"),
    "a split of no model": lambda path: change(path, "INSERT INTO traffic VALUES ('x', 1, 5)"),
    "no word on the last daemon": lambda path: change(path, "DELETE FROM daemon"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_puts_aside_and_keeps(
    path: Path, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    damage(path)
    broken = path.read_bytes()
    before = state(path.parent)
    with pytest.raises(StorageError, match="damaged"):
        Journal.read(path)
    assert state(path.parent) == before
    with Journal(path).open() as journal:
        assert f"kept as {DATABASE}.damaged-1" in journal.damage
        assert journal.damage in caplog.text
        assert (journal.all_slots(), journal.releases(), journal.history()) == ([], [], [])
        journal.set_slots(Slots(model="m", active=5, active_source="store"))
    assert path.with_name(f"{DATABASE}.damaged-1").read_bytes() == broken
    with Journal(path).open() as journal:
        assert (journal.damage, journal.slots("m").active) == ("", 5)


def test_only_the_latest_damaged_files_are_kept(path: Path) -> None:
    for number in range(1, DAMAGED_MAX + 3):
        path.write_text(str(number))
        Journal(path).open().close()
    kept = {each.name: each.read_text() for each in path.parent.glob("*.damaged-*")}
    wanted = range(3, DAMAGED_MAX + 3)
    assert kept == {f"{DATABASE}.damaged-{number}": str(number) for number in wanted}


def test_what_is_left_of_a_file_that_is_gone_does_not_reach_the_new_one(path: Path) -> None:
    path.unlink()
    path.with_name(f"{DATABASE}-journal").write_bytes(b"of another file")
    with Journal(path).open() as journal:
        assert "the file is missing" in journal.damage
        journal.set_slots(SLOTS)
    kept = path.with_name(f"{DATABASE}.damaged-1-journal")
    assert kept.read_bytes() == b"of another file"


# -- reading while others write, or nobody does ----------------------------------------------------


def test_reading_creates_nothing_and_changes_nothing(path: Path) -> None:
    path.with_name("runtime.lock").unlink()
    path.with_name(f"{DATABASE}-journal").unlink()
    before = state(path.parent)
    with Journal.read(path) as reader:
        assert reader.slots("m") == SLOTS
        assert len(reader.history("m")) == len(reader.releases()) == 1
        assert state(path.parent) == before
    assert state(path.parent) == before


def test_reading_where_there_is_nothing_says_so_and_makes_nothing(tmp_path: Path) -> None:
    for path in (tmp_path / DATABASE, tmp_path / "nowhere" / DATABASE):
        with pytest.raises(StorageError, match="there is no release journal"):
            Journal.read(path)
    assert list(tmp_path.iterdir()) == []


def test_reads_while_a_daemon_runs_and_is_not_in_its_way(path: Path) -> None:
    with Journal(path).open() as journal, Journal.read(path) as reader:
        journal.set_slots(Slots(model="m"))
        assert reader.slots("m") == SLOTS  # as it was
        journal.next_order()


def test_what_is_opened_for_reading_cannot_change_anything(path: Path) -> None:
    with Journal.read(path) as reader:
        assert not isinstance(reader, Journal)
        with pytest.raises(StorageError, match="for reading only"), reader._file.changing():
            pytest.fail("changed")
