"""What agent.db keeps about updates and plans."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.errors import StateError
from agent.records.file import RecordsFile
from agent.records.updates import (
    CHANGES_MAX,
    ROLLOUTS_MAX,
    SCHEMA,
    UPDATES_MAX,
    Update,
    Updates,
)
from agent.update.states import FINAL, State

NOW_S = 1_800_000_000.0


@pytest.fixture
def updates(tmp_path: Path) -> Iterator[Updates]:
    file = RecordsFile(tmp_path / "agent.db", [SCHEMA])
    yield Updates(file)
    file.close()


def _update(**changes: object) -> Update:
    made = Update(model="digits", version=2, rollout="digits-2", sequence=1, state=State.PLANNED)
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def test_an_update_comes_back_as_it_was_stored(updates: Updates) -> None:
    made = updates.add(
        _update(
            kind="revert", back_to=1, again=True, bytes_max=7, manifest_sha256="ab", created_s=1.5
        )
    )
    assert made.id == 1
    assert updates.get(made.id) == made
    changed = dataclasses.replace(
        made, state=State.FOLLOWING, code="x", reason="y", used_s=2.5, seen_release=4, ending="e"
    )
    updates.store(changed)
    assert updates.get(made.id) == changed
    assert updates.get(99) is None


def test_texts_without_end_are_cut(updates: Updates) -> None:
    made = updates.add(_update(reason="x" * 100_000))
    assert len(made.reason) == 2000


def test_old_updates_are_forgotten_but_not_what_is_under_way_or_untold(updates: Updates) -> None:
    untold = updates.add(_update(state=State.FAILED))
    going = updates.add(_update(state=State.CANCELING, ending=State.CANCELED, is_reported=True))
    for _ in range(UPDATES_MAX + 20):
        updates.add(_update(state=State.CANCELED, is_reported=True))
    other = updates.add(_update(model="other", is_reported=True))
    rows = updates.of_model("digits", 10_000)
    assert len(rows) == UPDATES_MAX + 2
    assert {untold, going} <= set(rows)
    assert updates.except_in(FINAL) == [going, other]
    assert updates.unreported() == [untold]


def test_only_the_present_state_counts_as_told(updates: Updates) -> None:
    made = updates.add(_update())
    updates.reported(made.id, State.FOLLOWING)
    assert updates.unreported() == [made]
    updates.reported(made.id, State.PLANNED)
    assert updates.unreported() == []


def test_what_is_in_a_state_that_this_program_does_not_know_is_under_way(updates: Updates) -> None:
    made = updates.add(_update(state="of-a-newer-agent"))
    assert updates.except_in(FINAL) == [made]


def test_an_update_is_one_change_at_its_last_moment(updates: Updates) -> None:
    first, second = updates.add(_update()), updates.add(_update())
    updates.store(first, change_at_s=NOW_S)
    updates.store(first, change_at_s=NOW_S + 5)
    updates.store(second, change_at_s=NOW_S + 9)
    assert updates.changes("digits", NOW_S + 10, is_trusted=True) == (NOW_S + 5, NOW_S + 9)
    assert updates.changes("other", NOW_S, is_trusted=True) == ()


def test_a_change_in_the_future_becomes_one_of_now_as_soon_as_the_time_is_known(
    updates: Updates,
) -> None:
    updates.store(updates.add(_update()), change_at_s=NOW_S + 1e9)
    assert updates.changes("digits", NOW_S, is_trusted=False) == (NOW_S + 1e9,)
    assert updates.changes("digits", NOW_S, is_trusted=True) == (NOW_S,)
    assert updates.changes("digits", NOW_S + 60, is_trusted=True) == (NOW_S,)


def test_changes_and_rollouts_that_are_remembered_are_bounded(updates: Updates) -> None:
    with updates._file.transaction() as connection:
        connection.executemany(
            "INSERT INTO version_changes VALUES (?, 'digits', ?)",
            [(n + 1000, NOW_S + n) for n in range(CHANGES_MAX)],
        )
    made = updates.add(_update())
    updates.store(dataclasses.replace(made, id=999_999), change_at_s=NOW_S + 1e6)
    assert len(updates.changes("digits", NOW_S, is_trusted=False)) == CHANGES_MAX
    for n in range(ROLLOUTS_MAX + 10):
        updates.see_stage("digits", 2, f"r{n}", 1, NOW_S + n, is_trusted=True)
    with updates._file.reading() as connection:
        (count,) = connection.execute("SELECT count(DISTINCT rollout) FROM stage_sights").fetchone()
    assert count == ROLLOUTS_MAX
    # A rollout is never forgotten while it is looked at.
    old = updates.see_stage("digits", 2, "r-old", 1, NOW_S - 9, is_trusted=True)
    assert updates.see_stage("digits", 2, "r-old", 1, NOW_S, is_trusted=True) == old


def test_a_stage_is_seen_once_and_what_was_jumped_over_with_it(updates: Updates) -> None:
    assert updates.see_stage("digits", 2, "r", 0, NOW_S, is_trusted=True) == {0: NOW_S}
    later = updates.see_stage("digits", 2, "r", 2, NOW_S + 60, is_trusted=True)
    assert later == {0: NOW_S, 1: NOW_S + 60, 2: NOW_S + 60}
    assert updates.see_stage("digits", 2, "r", 1, NOW_S + 90, is_trusted=True) == later
    assert updates.see_stage("digits", 2, "other", 0, NOW_S + 90, is_trusted=True) == {
        0: NOW_S + 90
    }


def test_stages_begin_anew_after_an_abort(updates: Updates) -> None:
    updates.see_stage("digits", 2, "r", 1, NOW_S, is_trusted=True)
    updates.forget_stages("digits", 2, "r")
    assert updates.see_stage("digits", 2, "r", 0, NOW_S + 60, is_trusted=True) == {0: NOW_S + 60}


def test_a_sight_by_a_wrong_clock_is_dated_anew_by_the_first_right_one(updates: Updates) -> None:
    updates.see_stage("digits", 2, "r", 0, 1000.0, is_trusted=False)
    assert updates.see_stage("digits", 2, "r", 0, 2000.0, is_trusted=False) == {0: 1000.0}
    assert updates.see_stage("digits", 2, "r", 0, NOW_S, is_trusted=True) == {0: NOW_S}
    assert updates.see_stage("digits", 2, "r", 0, NOW_S + 60, is_trusted=True) == {0: NOW_S}


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    moments=st.lists(
        st.tuples(st.integers(0, 3), st.floats(0, 4e9), st.booleans()), min_size=1, max_size=8
    )
)
def test_clocks_that_jump_never_make_a_stage_older_than_it_is(
    tmp_path_factory: pytest.TempPathFactory, moments: list[tuple[int, float, bool]]
) -> None:
    """True time passes by a second each; what is shown may be anything."""
    file = RecordsFile(tmp_path_factory.mktemp("db") / "agent.db", [SCHEMA])
    updates = Updates(file)
    for n, (stage, shown_s, is_trusted) in enumerate(moments):
        now_s = NOW_S + n if is_trusted else shown_s
        seen = updates.see_stage("digits", 2, "r", stage, now_s, is_trusted=is_trusted)
        if is_trusted:
            assert all(NOW_S <= first_s <= now_s for first_s in seen.values())
    file.close()


def test_a_minimum_counter_only_rises(updates: Updates) -> None:
    assert updates.raise_min_counter("digits", 0) == 0
    assert updates.raise_min_counter("digits", 5) == 5
    assert updates.raise_min_counter("digits", 3) == 5
    assert updates.raise_min_counter("other", 1) == 1


def test_what_did_harm_is_remembered_until_it_is_committed(updates: Updates) -> None:
    made = updates.add(_update(manifest_sha256="ab", reason="it disagrees"))
    updates.store(made, bad_at_s=NOW_S)
    assert updates.bad("digits") == {"ab": "it disagrees"}
    assert updates.bad("other") == {}
    updates.store(made, is_good=True)
    assert updates.bad("digits") == {}


def test_the_newest_success_of_each_model_is_found(updates: Updates) -> None:
    updates.add(_update(state=State.SUCCEEDED))
    newest = updates.add(_update(state=State.SUCCEEDED))
    updates.add(_update(state=State.FAILED))
    other = updates.add(_update(model="other", state=State.SUCCEEDED))
    assert updates.latest_in(State.SUCCEEDED) == [newest, other]


def test_a_disk_that_takes_nothing_changes_nothing(tmp_path: Path) -> None:
    file = RecordsFile(tmp_path / "agent.db", [SCHEMA])
    updates = Updates(file)
    made = updates.add(_update())
    with file.reading() as connection:
        connection.execute("PRAGMA query_only = 1")
        with pytest.raises(StateError, match="cannot write"):
            updates.store(dataclasses.replace(made, state=State.DOWNLOADING))
        connection.execute("PRAGMA query_only = 0")
    assert updates.get(made.id) == made
    file.close()
