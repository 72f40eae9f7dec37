"""What agent.db keeps about the moments from which guard-rails count."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.records.file import RecordsFile
from agent.records.guard_times import CHANGES_MAX, ROLLOUTS_MAX
from agent.records.updates import SCHEMA, Update, Updates
from agent.update.states import State


@pytest.fixture
def updates(tmp_path: Path) -> Iterator[Updates]:
    file = RecordsFile(tmp_path / "agent.db", [SCHEMA])
    yield Updates(file)
    file.close()


def _update() -> Update:
    return Update(model="digits", version=2, rollout="digits-2", sequence=1, state=State.PLANNED)


def test_an_update_is_one_change_at_its_last_moment(updates: Updates) -> None:
    first, second = updates.add(_update()), updates.add(_update())
    updates.store(first, change_at_s=100)
    updates.store(first, change_at_s=105)
    updates.store(second, change_at_s=109)
    assert updates.times.changes("digits", 110) == (105, 109)
    assert updates.times.changes("other", 110) == ()


def test_a_change_that_a_power_cut_put_into_the_future_becomes_one_of_now(updates: Updates) -> None:
    updates.store(updates.add(_update()), change_at_s=500)
    assert updates.times.changes("digits", 200) == (200,)
    assert updates.times.changes("digits", 260) == (200,)


def test_changes_and_rollouts_that_are_remembered_are_bounded(updates: Updates) -> None:
    with updates._file.transaction() as connection:
        connection.executemany(
            "INSERT INTO versions_changed VALUES (?, 'digits', ?)",
            [(n + 1000, n) for n in range(CHANGES_MAX)],
        )
    made = updates.add(_update())
    updates.store(dataclasses.replace(made, id=999_999), change_at_s=2000)
    found = updates.times.changes("digits", 3000)
    assert len(found) == CHANGES_MAX
    assert found[-1] == 2000
    for n in range(ROLLOUTS_MAX + 10):
        updates.times.see_stage("digits", 2, f"r{n}", 1, n)
    with updates._file.reading() as connection:
        (count,) = connection.execute("SELECT count(DISTINCT rollout) FROM stages_seen").fetchone()
    assert count == ROLLOUTS_MAX
    # A rollout is never forgotten while it is looked at.
    old = updates.times.see_stage("digits", 2, "r-old", 1, 1)
    assert updates.times.see_stage("digits", 2, "r-old", 1, 9) == old


def test_a_stage_is_seen_once_and_what_was_jumped_over_with_it(updates: Updates) -> None:
    see = updates.times.see_stage
    assert see("digits", 2, "r", 0, 10) == {0: 10}
    later = see("digits", 2, "r", 2, 70)
    assert later == {0: 10, 1: 70, 2: 70}
    assert see("digits", 2, "r", 1, 100) == later
    assert see("digits", 2, "other", 0, 100) == {0: 100}


def test_stages_begin_anew_after_an_abort(updates: Updates) -> None:
    updates.times.see_stage("digits", 2, "r", 1, 10)
    updates.times.forget_stages("digits", 2, "r")
    assert updates.times.see_stage("digits", 2, "r", 0, 70) == {0: 70}


def test_plans_are_as_old_as_this_device_knows_them_until_others_come(updates: Updates) -> None:
    see = updates.times.see_plans
    assert see("stable", 1e9, 100) == 0
    assert see("stable", 1e9, 160) == 60
    assert see("beta", 1e9, 160) == 0
    assert see("stable", 4e9, 170) == 0
    assert see("stable", 4e9, 175) == 5
    # A power cut took more from the counter than that.
    assert see("stable", 4e9, 50) == 0
    assert see("stable", 4e9, 60) == 10


@settings(max_examples=15, deadline=None)
@given(
    moments=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 100), st.integers(0, 30)),
        min_size=1,
        max_size=8,
    )
)
def test_a_counter_that_power_cuts_set_back_never_makes_a_stage_older_than_it_is(
    tmp_path_factory: pytest.TempPathFactory, moments: list[tuple[int, int, int]]
) -> None:
    """True time passes; the counter passes with it, and loses some at each cut."""
    file = RecordsFile(tmp_path_factory.mktemp("db") / "agent.db", [SCHEMA])
    times = Updates(file).times
    true_s = counter_s = 0
    truly_seen: dict[int, int] = {}
    for stage, later_s, lost_s in moments:
        true_s += later_s
        counter_s = max(0, counter_s + later_s - lost_s)
        for each in range(stage + 1):
            truly_seen.setdefault(each, true_s)
        for each, at_s in times.see_stage("digits", 2, "r", stage, counter_s).items():
            assert 0 <= counter_s - at_s <= true_s - truly_seen[each]
    file.close()
