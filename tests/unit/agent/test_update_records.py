"""What agent.db keeps about updates and plans."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import StateError
from agent.records.file import RecordsFile
from agent.records.updates import SCHEMA, UPDATES_MAX, Update, Updates
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
