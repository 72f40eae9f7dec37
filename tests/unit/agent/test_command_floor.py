"""The floors of commands: none comes twice, and a stolen key makes nobody deaf to the next."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.commands import Commands
from agent.envelope import write_command
from agent.messages import Command
from agent.records import command_floor, guards
from agent.records.command_floor import CommandFloor
from agent.records.file import RecordsFile
from agent.topics import Topics, parse
from tests.signing import signing_key

HIGHEST = 2**53
NOW_S = 1_800_000_000.0
OLD = "INSERT INTO command_floor VALUES (1, 41)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.db"


@pytest.fixture
def file(path: Path) -> Iterator[RecordsFile]:
    opened = RecordsFile(path, [command_floor.SCHEMA])
    yield opened
    opened.close()


def test_each_key_has_a_floor_of_its_own_that_only_rises(file: RecordsFile) -> None:
    floor = CommandFloor(file, ["one", "two"])
    assert floor.rise("one", 5)
    assert not floor.rise("one", 5)
    assert not floor.rise("one", 4)
    assert floor.rise("two", 1)
    assert not CommandFloor(file).rise("one", 5)


def test_a_stolen_key_that_gave_the_highest_counter_leaves_the_new_key_its_voice(
    file: RecordsFile,
) -> None:
    answered = []
    for name, counter in (("old", 5), ("old", HIGHEST), ("new", 6), ("new", 6), ("old", 7)):
        key = signing_key(name)
        keys = {key.key_id: key.public_key}
        commands = Commands(keys, CommandFloor(file, keys), lambda: NOW_S, lambda _: {})
        command = Command(
            fleet="test", device="dev-1", op="check-now", id="c", counter=counter,
            expires_s=NOW_S + 60.0,
        )  # fmt: skip
        topic = parse(Topics("test", "dev-1").command("check-now", "c"))
        assert topic is not None
        result = commands.receive(topic, write_command(command, key.sign))
        answered.append(result is not None)
    assert answered == [True, True, True, False, False]


def test_the_one_floor_of_an_earlier_version_holds_for_the_present_key_and_for_no_later_one(
    file: RecordsFile,
) -> None:
    with file.transaction() as db:
        db.execute(OLD)
    for _ in range(2):
        assert not CommandFloor(file, ["present"]).rise("present", 41)
    assert CommandFloor(file, ["present"]).rise("present", 42)
    assert CommandFloor(file, ["later"]).rise("later", 1)


def test_floors_of_both_versions_come_back_from_the_copy(path: Path) -> None:
    file = RecordsFile(path, [command_floor.SCHEMA])
    with file.transaction() as db:
        db.execute(OLD)
        db.execute("INSERT INTO command_floors VALUES ('other', 7)")
    file.close()
    path.write_bytes(b"no database" * 1000)
    path.with_name("agent.db-wal").unlink(missing_ok=True)
    file = RecordsFile(path, [command_floor.SCHEMA])
    floor = CommandFloor(file, ["present"])
    assert not floor.rise("present", 41)
    assert not floor.rise("other", 7)
    loss = file.loss()
    assert loss is not None
    assert loss.kept == (guards.GUARDED["command_floors"],)
    file.close()
