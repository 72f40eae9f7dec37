"""A damaged agent.db: what guards the device comes back from its copy, and the loss is noted."""

import random
import sqlite3
from pathlib import Path

import pytest

from agent.assembly import SCHEMAS
from agent.errors import StateError
from agent.records import guards
from agent.records.command_floor import CommandFloor
from agent.records.file import RecordsFile
from agent.records.floors import Floors, VersionFloor
from agent.records.guards import ALONG, ENDING, GUARDED, NOT_KEPT
from agent.records.updates import Update, Updates
from agent.update.states import State

FLOORS = {"timestamp": VersionFloor(7, "keys"), "root": VersionFloor(2, "")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.db"


def new_update() -> Update:
    return Update(
        model="m", version=2, rollout="r", sequence=1, state=State.PLANNED, manifest_sha256="ab"
    )


def opened(path: Path) -> RecordsFile:
    return RecordsFile(path, SCHEMAS)


def guard(file: RecordsFile) -> None:
    """Have a device remember something of each kind."""
    Floors(file).keep_time(1000.0)
    Floors(file).keep_versions(FLOORS)
    assert CommandFloor(file).rise("key", 41)
    updates = Updates(file)
    assert updates.raise_min_counter("m", 5) == 5
    update = updates.add(new_update())
    updates.store(update, change_at_s=500.0, bad_at_s=600.0)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100:] = b"\xff" * (len(data) - 100)
    path.write_bytes(data)
    path.with_name(path.name + "-wal").unlink(missing_ok=True)


def remembered(file: RecordsFile) -> tuple[object, ...]:
    updates = Updates(file)
    return (
        Floors(file).time_s(),
        Floors(file).versions(),
        updates.raise_min_counter("m", 0),
        updates.bad("m"),
        updates.times.changes("m", 9000.0),
    )


def test_what_guards_the_device_outlives_a_damaged_file(path: Path) -> None:
    file = opened(path)
    guard(file)
    before = remembered(file)
    file.close()
    damage(path)
    file = opened(path)
    assert remembered(file) == before
    assert before[:3] == (1000.0, FLOORS, 5)
    assert not CommandFloor(file).rise("key", 41)
    assert CommandFloor(file).rise("key", 42)
    loss = file.loss()
    assert loss is not None
    assert loss.reason.startswith("it was damaged")
    assert loss.kept == tuple(GUARDED.values())
    assert loss.lost == NOT_KEPT
    assert file.aside.exists()
    file.close()


def test_bytes_that_flipped_anywhere_stop_no_start(path: Path) -> None:
    file = opened(path)
    guard(file)
    file.close()
    whole = path.read_bytes()
    dice = random.Random(7)  # noqa: S311 - a test's dice
    for _ in range(40):
        data = bytearray(whole)
        first = dice.randrange(len(data) - 200)
        for place in dice.sample(range(first, first + 200), 40):
            data[place] = dice.randrange(128, 256)
        path.write_bytes(data)
        opened(path).close()
        for each in path.parent.glob("agent.db-*"):
            each.unlink()


def test_what_guards_the_device_outlives_a_file_that_is_gone(path: Path) -> None:
    file = opened(path)
    guard(file)
    before = remembered(file)
    file.close()
    for each in path.parent.glob("agent.db*"):
        if not each.name.endswith(ENDING):
            each.unlink()
    file = opened(path)
    assert remembered(file) == before
    loss = file.loss()
    assert loss is not None
    assert (loss.reason, loss.lost) == ("it was gone", NOT_KEPT)
    file.close()


def test_ids_of_updates_go_on_so_that_a_change_that_is_remembered_stays_one(path: Path) -> None:
    file = opened(path)
    guard(file)
    file.close()
    damage(path)
    file = opened(path)
    updates = Updates(file)
    update = updates.add(new_update())
    updates.store(update, change_at_s=700.0)
    assert len(updates.times.changes("m", 9000.0)) == 2
    file.close()


@pytest.mark.parametrize("harm", ["gone", "cut", "flipped", "empty", "text"])
def test_without_a_whole_copy_it_begins_anew_and_says_what_is_lost(path: Path, harm: str) -> None:
    file = opened(path)
    guard(file)
    file.close()
    damage(path)
    copy = path.with_name(path.name + ENDING)
    data = copy.read_bytes()
    if harm == "gone":
        copy.unlink()
    else:
        copy.write_bytes(
            {
                "cut": data[:-80],
                "flipped": data.replace(b"41", b"14"),
                "empty": b"",
                "text": b"no\ncopy\n",
            }[harm]
        )
    file = opened(path)
    assert Floors(file).versions() == {}
    loss = file.loss()
    assert loss is not None
    assert loss.kept == ()
    assert loss.lost == (*GUARDED.values(), *NOT_KEPT)
    guard(file)
    file.close()
    damage(path)
    again = opened(path)
    assert Floors(again).versions() == FLOORS
    again.close()


def test_the_copy_is_written_only_when_something_that_guards_has_changed(path: Path) -> None:
    file = opened(path)
    copy = path.with_name(path.name + ENDING)
    assert not copy.exists()
    guard(file)
    before = copy.stat().st_ino
    updates = Updates(file)
    for _ in range(5):
        updates.add(new_update())
        Floors(file).keep_time(900.0)
        Floors(file).keep_versions({})
        assert not CommandFloor(file).rise("key", 40)
    assert copy.stat().st_ino == before
    Floors(file).keep_time(1001.0)
    assert copy.stat().st_ino != before
    file.close()
    before = copy.stat().st_ino
    opened(path).close()
    assert copy.stat().st_ino == before


def test_a_change_that_was_killed_before_it_was_copied_is_copied_by_the_next_start(
    path: Path,
) -> None:
    file = opened(path)
    guard(file)
    file.close()
    copy = path.with_name(path.name + ENDING)
    old = copy.read_bytes()
    file = opened(path)
    assert CommandFloor(file).rise("key", 50)
    file.close()
    copy.write_bytes(old)
    opened(path).close()
    damage(path)
    file = opened(path)
    assert not CommandFloor(file).rise("key", 50)
    file.close()


def test_what_was_rolled_back_is_not_copied(path: Path) -> None:
    file = opened(path)
    guard(file)
    copy = path.with_name(path.name + ENDING)
    before = copy.read_bytes()

    def begun() -> None:
        with file.transaction() as connection:
            connection.execute("UPDATE command_floors SET counter = 99")
            connection.execute("SELECT nothing")

    with pytest.raises(StateError):
        begun()
    Updates(file).add(new_update())
    assert copy.read_bytes() == before
    file.close()


def test_a_disk_that_refuses_the_copy_stops_nothing_and_gets_it_later(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = opened(path)
    guard(file)
    blocking = path.with_name(f".{path.name}{ENDING}.new")
    blocking.mkdir()
    assert CommandFloor(file).rise("key", 60)
    assert CommandFloor(file).rise("key", 61)
    assert len([each for each in caplog.records if "is old" in each.message]) == 1
    blocking.rmdir()
    Updates(file).add(new_update())  # whatever is written next
    file.close()
    damage(path)
    file = opened(path)
    assert not CommandFloor(file).rise("key", 61)
    file.close()


def test_a_table_that_another_version_copied_is_left_out_and_the_others_come_back(
    path: Path,
) -> None:
    file = opened(path)
    guard(file)
    with file.transaction() as connection:
        connection.execute("ALTER TABLE command_floors ADD COLUMN later TEXT")
        connection.execute("UPDATE command_floors SET counter = 42")
    file.close()
    damage(path)
    file = opened(path)
    assert Floors(file).versions() == FLOORS
    loss = file.loss()
    assert loss is not None
    assert loss.lost == (GUARDED["command_floors"], *NOT_KEPT)
    file.close()


@pytest.mark.parametrize("is_empty", [False, True])
def test_a_start_that_found_the_file_gone_or_empty_says_so_and_the_next_does_not(
    path: Path, *, is_empty: bool
) -> None:
    file = opened(path)
    assert not file.began_anew
    guard(file)
    file.close()
    path.unlink()
    if is_empty:
        path.touch()
    file = opened(path)
    assert file.began_anew
    file.close()
    file = opened(path)
    assert not file.began_anew
    file.close()


def test_an_index_that_misses_a_row_is_damage_and_found_at_the_start(path: Path) -> None:
    file = opened(path)
    guard(file)
    file.close()
    connection = sqlite3.connect(path, isolation_level=None)
    found = "type = 'index' AND name = 'updates_model'"
    row = connection.execute(f"SELECT * FROM sqlite_schema WHERE {found}").fetchone()  # noqa: S608
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute(f"DELETE FROM sqlite_schema WHERE {found}")  # noqa: S608
    connection.close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(
        "INSERT INTO updates SELECT 77, model, kind, version, back_to, rollout, "
        "sequence, manifest_sha256, again, bytes_max, state, phase, ending, code, reason, used_s, "
        "waits, losses, seen_release, is_reported, created_s, updated_s FROM updates"
    )
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)", row)
    connection.close()
    file = opened(path)
    assert file.began_anew
    assert Floors(file).versions() == FLOORS
    file.close()


def test_damage_that_shows_later_is_told_once_and_the_next_start_mends_it(path: Path) -> None:
    file = opened(path)
    guard(file)
    file.close()
    file = opened(path)
    told: list[str] = []
    file.heed_damage(lambda: told.append(file.damage))
    with pytest.raises(StateError):
        _fail(file, "SELECT nothing")
    assert not told
    damage(path)
    with file.reading() as connection:
        connection.execute("PRAGMA shrink_memory")  # what is in memory hides it for a while
    for _ in range(2):
        with pytest.raises(StateError, match=r"malformed|not a database"):
            Updates(file).add(new_update())
    [reason] = told
    assert str(path) in reason
    late: list[str] = []
    file.heed_damage(lambda: late.append(file.damage))
    assert late == [reason]
    file.close()
    file = opened(path)
    assert file.began_anew
    assert not file.damage
    assert Floors(file).versions() == FLOORS
    file.close()


def _fail(file: RecordsFile, statement: str) -> None:
    with file.transaction() as connection:
        connection.execute(statement)


def test_a_loss_is_told_once_and_stays_noted(path: Path) -> None:
    file = opened(path)
    assert file.loss() is None
    file.close()
    damage(path)
    file = opened(path)
    loss = file.loss()
    assert loss is not None
    assert not loss.is_told
    file.loss_is_told()
    file.close()
    file = opened(path)
    loss = file.loss()
    assert loss is not None
    assert loss.is_told
    file.close()


def test_every_table_that_is_copied_is_one_of_the_agents(path: Path) -> None:
    opened(path).close()
    with sqlite3.connect(path) as connection:
        there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    connection.close()
    assert there.issuperset({*GUARDED, *ALONG})
    assert guards.ENDING == ".guards"
