"""An agent.db that an earlier edge-agent wrote: what guards the device goes on guarding it."""

import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.assembly import SCHEMAS
from agent.records.file import RecordsFile
from agent.records.floors import Floors, VersionFloor
from agent.records.old_schema import DAY_S, OLD
from agent.records.updates import Updates

OLD_TABLES = """
CREATE TABLE stage_sights (
    model TEXT NOT NULL,
    version INTEGER NOT NULL,
    rollout TEXT NOT NULL,
    stage INTEGER NOT NULL,
    first_seen_s REAL NOT NULL,
    is_trusted INTEGER NOT NULL,
    PRIMARY KEY (model, version, rollout, stage)
) STRICT;
CREATE TABLE version_changes (
    update_id INTEGER PRIMARY KEY,
    model TEXT NOT NULL,
    at_s REAL NOT NULL
) STRICT;
CREATE TABLE time_floor (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    seconds REAL NOT NULL
) STRICT;
CREATE TABLE version_floors (
    role TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    authority TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE bad_manifests (
    model TEXT NOT NULL,
    manifest_sha256 TEXT NOT NULL,
    version INTEGER NOT NULL,
    reason TEXT NOT NULL,
    at_s REAL NOT NULL,
    PRIMARY KEY (model, manifest_sha256)
) STRICT;
PRAGMA user_version = 1;
"""
POISON_S = 9e9


def old_file(path: Path, changes: Iterable[float]) -> None:
    """Write one as the agent did that counted guard-rails by the time of day."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(OLD_TABLES)
    remember(connection, changes)
    connection.execute("INSERT INTO version_floors VALUES ('timestamp', 7, 'keys')")
    connection.execute("INSERT INTO bad_manifests VALUES ('m', 'ab', 2, 'no', 1.0)")
    connection.close()


def remember(connection: sqlite3.Connection, changes: Iterable[float]) -> None:
    connection.executemany(
        "INSERT INTO version_changes (model, at_s) VALUES ('m', ?)", ((at_s,) for at_s in changes)
    )
    connection.execute("INSERT OR REPLACE INTO time_floor VALUES (1, ?)", (POISON_S,))
    connection.execute("INSERT INTO stage_sights VALUES ('m', 2, 'r', 0, 5.0, 1)")


def tables(file: RecordsFile) -> set[str]:
    with file.reading() as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.db"


def test_changes_of_the_last_day_count_for_a_whole_day_more(path: Path) -> None:
    now_s = time.time()
    old_file(path, (now_s - 2 * DAY_S, now_s - 0.9 * DAY_S, now_s - 5.0))
    file = RecordsFile(path, SCHEMAS)
    times = Updates(file).times
    assert times.changes("m", 100.0) == (100.0, 100.0)
    assert times.changes("m", 200.0) == (100.0, 100.0)
    file.close()


def test_stages_begin_anew_and_a_time_that_somebody_signed_does_not_stay(path: Path) -> None:
    old_file(path, ())
    file = RecordsFile(path, SCHEMAS)
    assert Updates(file).times.see_stage("m", 2, "r", 0, 50.0) == {0: 50.0}
    assert Floors(file).time_s() == 0.0
    assert tables(file).isdisjoint(OLD)
    file.close()


def test_what_has_kept_its_form_is_as_it_was_and_nothing_is_lost(path: Path) -> None:
    old_file(path, ())
    file = RecordsFile(path, SCHEMAS)
    assert Floors(file).versions() == {"timestamp": VersionFloor(7, "keys")}
    assert Updates(file).bad("m") == {"ab": "no"}
    assert file.loss() is None
    assert not file.began_anew
    file.close()


def test_it_is_done_once(path: Path) -> None:
    old_file(path, (time.time(),))
    RecordsFile(path, SCHEMAS).close()
    file = RecordsFile(path, SCHEMAS)
    Floors(file).keep_time(1000.0)
    assert Updates(file).times.changes("m", 100.0) == (100.0,)
    file.close()
    file = RecordsFile(path, SCHEMAS)
    assert Floors(file).time_s() == 1000.0
    assert Updates(file).times.changes("m", 300.0) == (100.0,)
    file.close()


def test_it_is_done_again_after_the_earlier_program_ran_in_between(path: Path) -> None:
    file = RecordsFile(path, SCHEMAS)
    with file.transaction() as connection:
        connection.execute("INSERT INTO versions_changed VALUES (1, 'm', 40.0)")
    file.close()
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in OLD_TABLES.split(";")[:2]:
        connection.execute(statement)
    connection.execute("INSERT INTO version_changes VALUES (1, 'm', ?)", (time.time() - 9.0,))
    remember(connection, (time.time(),))
    connection.close()
    file = RecordsFile(path, SCHEMAS)
    assert Updates(file).times.changes("m", 100.0) == (40.0, 100.0)
    assert Floors(file).time_s() == 0.0
    file.close()


def test_what_was_carried_over_is_copied_at_once(path: Path) -> None:
    old_file(path, (time.time(),))
    RecordsFile(path, SCHEMAS).close()
    path.unlink()
    file = RecordsFile(path, SCHEMAS)
    assert Updates(file).times.changes("m", 100.0) == (100.0,)
    assert Floors(file).versions() == {"timestamp": VersionFloor(7, "keys")}
    file.close()


@settings(max_examples=20, deadline=None)
@given(
    # Whole seconds: moments of today, as floats, tell less than a microsecond from none.
    ages_s=st.lists(st.integers(0, 3 * int(DAY_S)), min_size=1, max_size=5),
    wrong_s=st.sampled_from([0.0, -1e9, 1e9]),
)
def test_no_change_of_the_last_day_is_lost_however_wrong_the_clock_is_at_the_first_opening(
    tmp_path_factory: pytest.TempPathFactory, ages_s: list[int], wrong_s: float
) -> None:
    path = tmp_path_factory.mktemp("db") / "agent.db"
    # A wrong system clock is the same as moments that are wrong by as much the other way.
    true_s = time.time() - wrong_s
    old_file(path, [true_s - age_s for age_s in ages_s])
    file = RecordsFile(path, SCHEMAS)
    found = Updates(file).times.changes("m", 100.0)
    assert len(found) >= sum(age_s < DAY_S for age_s in ages_s)
    assert set(found) == {100.0}
    file.close()
