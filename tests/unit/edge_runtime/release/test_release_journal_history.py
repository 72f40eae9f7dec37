"""The history cannot be rewritten through SQL, and everything that grows is bounded."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from edge_runtime.release.journal import Journal
from edge_runtime.release.journal_schema import (
    BAD_MAX,
    DATABASE,
    GUARDS,
    HISTORY_MAX,
    RELEASES_MAX,
)
from edge_runtime.release.records import BadDigest, Slots
from edge_runtime.release.states import FINAL
from tests.release_records import NOW_S, note, release, transition

INSERT = (
    "INSERT INTO history SELECT :id, release_id, :model, version, from_state, to_state, event,"
    " cause, reason, digest, numbers, wall_s, awake_s, boot_id FROM history WHERE id = 1"
)
REWRITES = {
    "update": "UPDATE history SET reason = 'nothing happened' WHERE id = 2",
    "update of a number": "UPDATE history SET id = 99 WHERE id = 2",
    "update or replace": "UPDATE OR REPLACE history SET id = 1 WHERE id = 2",
    "delete of the oldest": "DELETE FROM history WHERE id = 1",
    "delete of the newest": "DELETE FROM history WHERE id = 3",
    "delete of all": "DELETE FROM history",
    "replace": f"REPLACE {INSERT.removeprefix('INSERT ')}".replace(":id", "2"),
    "insert or replace": INSERT.replace("INSERT", "INSERT OR REPLACE").replace(":id", "2"),
    "a row in the past": INSERT.replace(":id", "0"),
    "an upsert": f"{INSERT} ON CONFLICT (id) DO UPDATE SET reason = ''".replace(":id", "2"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / DATABASE


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of somebody else, to a journal with three rows in its history."""
    with Journal(path).open() as journal:
        for number in range(3):
            journal.set_slots(Slots(model="m"), note("m", reason=str(number)))
    with closing(sqlite3.connect(path, isolation_level=None)) as opened:
        yield opened


def ids(connection: sqlite3.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT id FROM history ORDER BY id")]


@pytest.mark.parametrize("statement", REWRITES.values(), ids=REWRITES)
@pytest.mark.parametrize("recursive", ["ON", "OFF"])
def test_the_history_cannot_be_rewritten_by(
    connection: sqlite3.Connection, statement: str, recursive: str
) -> None:
    connection.execute(f"PRAGMA recursive_triggers = {recursive}")
    before = list(connection.execute("SELECT * FROM history"))
    with pytest.raises(sqlite3.IntegrityError, match="only added to"):
        connection.execute(statement, {"model": "m"})
    assert list(connection.execute("SELECT * FROM history")) == before


def test_guards_that_were_dropped_are_put_back(path: Path, connection: sqlite3.Connection) -> None:
    connection.execute("DROP TRIGGER history_no_update")
    connection.execute("DROP INDEX history_by_model")
    connection.execute('CREATE TRIGGER "odd "" name" AFTER INSERT ON slots BEGIN SELECT 1; END')
    connection.close()
    with Journal(path).open() as journal:
        assert (journal.damage, len(journal.history())) == ("", 3)
    with closing(sqlite3.connect(path)) as again:
        with pytest.raises(sqlite3.IntegrityError, match="only added to"):
            again.execute(REWRITES["update"])
        names = {row[0] for row in again.execute("SELECT name FROM sqlite_schema")}
    assert "history_by_model" in names
    assert 'odd " name' not in names


def test_the_limits_are_what_they_are_said_to_be() -> None:
    for table, most in (
        ("history", HISTORY_MAX),
        ("releases", RELEASES_MAX),
        ("bad_digests", BAD_MAX),
    ):
        assert f"AFTER INSERT ON {table}\nWHEN (SELECT count(*)" in GUARDS
        assert f"FROM {table}) > {most}\nBEGIN" in GUARDS
    assert f"FROM history) <= {HISTORY_MAX} OR old.id <> (" in GUARDS


def test_the_states_at_an_end_are_those_of_the_table() -> None:
    words = ", ".join(f"'{state}'" for state in ("committed", "rolled-back", "failed"))
    assert {"committed", "rolled-back", "failed"} == set(FINAL)
    assert f"state IN ({words})" in GUARDS


COPIES = """
WITH RECURSIVE numbers (number) AS (
    SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < :rows
)
"""


def fill(connection: sqlite3.Connection, model: str, rows: int) -> None:
    copies = INSERT.replace(":id", "NULL").replace("FROM history", "FROM history, numbers")
    connection.execute(f"{COPIES}{copies}", {"model": model, "rows": rows})


def test_a_model_that_fails_in_a_loop_pushes_out_its_own_past_only(
    path: Path, connection: sqlite3.Connection
) -> None:
    fill(connection, "loop", HISTORY_MAX - 3)
    assert len(ids(connection)) == HISTORY_MAX
    with pytest.raises(sqlite3.IntegrityError, match="only added to"):
        connection.execute("DELETE FROM history WHERE id = 4")
    connection.close()
    with Journal(path).open() as journal:
        for number in range(5):
            journal.set_slots(Slots(model="loop"), note("loop", reason=f"new {number}"))
        found = journal.history()
        assert len(found) == HISTORY_MAX
        assert [each.id for each in journal.history("m")] == [3, 2, 1]
        assert [each.reason for each in found[:5]] == [
            f"new {number}" for number in (4, 3, 2, 1, 0)
        ]
        assert min(each.id for each in journal.history("loop")) == 9


def test_old_releases_go_but_not_what_is_under_way_or_in_a_slot(path: Path) -> None:
    with Journal(path).open() as journal:
        under_way = journal.insert(release(version=1, state="shadowing"))
        active = journal.insert(release(version=2, state="committed"))
        previous = journal.insert(release(version=3, state="committed"))
        other = journal.insert(release("other", version=2, state="committed"))
        slots = Slots(
            model="digits", active=2, active_source="store", previous=3, previous_source="store"
        )
        journal.set_slots(slots)
    with closing(sqlite3.connect(path)) as connection, connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(releases)")]
        quoted = ", ".join(f'"{name}"' for name in columns if name != "id")
        connection.execute(
            f"{COPIES} INSERT INTO releases ({quoted})"  # noqa: S608 - the file's own columns
            f" SELECT {quoted} FROM releases, numbers WHERE id = 4",
            {"rows": RELEASES_MAX + 100},
        )
    with Journal(path).open() as journal:
        newest = journal.insert(release(version=4, state="failed"))
        found = journal.releases()
        assert len(found) == RELEASES_MAX
        assert found[0] == newest
        assert all(kept in found for kept in (under_way, active, previous))
        assert other not in found
        # What is gone can still be told of, and what is under way can still move.
        after = msgspec.structs.replace(under_way, state="canary")
        journal.move(after, transition(under_way, after))


def test_the_oldest_of_too_many_bad_digests_is_forgotten(path: Path) -> None:
    with Journal(path).open() as journal:
        first = journal.insert(release())
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO bad_digests VALUES (?, 'm', 1, '', 'errors', '', ?, ?)",
            ((f"{number:064x}", number, NOW_S) for number in range(1, BAD_MAX + 1)),
        )
    with Journal(path).open() as journal:
        bad = BadDigest.of(first, NOW_S)  # of the lowest order, and the newest
        after = msgspec.structs.replace(first, state="failed")
        journal.move(after, transition(first, after), bad=bad)
        assert len(journal.all_bad()) == BAD_MAX
        assert journal.bad(first.manifest_sha256) == bad
        assert journal.bad(f"{1:064x}") is None
        assert journal.bad(f"{2:064x}") is not None
