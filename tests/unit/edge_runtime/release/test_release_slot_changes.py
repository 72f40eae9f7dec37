"""What a change of a release makes of the slots."""

from typing import Any

import pytest

from edge_runtime.release.records import Slots
from edge_runtime.release.slot_changes import slots_after
from tests.release_records import release

MODEL = "m"


def after_commit(slots: Slots, **more: Any) -> Slots:  # noqa: ANN401 - of ``Release``
    before = release(MODEL, 3, state="probation", digest="d3", **more)
    after = release(MODEL, 3, state="committed", digest="d3", **more)
    found = slots_after(slots, before, after, installed=lambda: (3,), is_active_there=False)
    assert found is not None
    return found


def test_the_configurations_version_is_the_previous_one_after_the_first_commit() -> None:
    found = after_commit(Slots(model=MODEL), active=1, active_source="seed")
    assert (found.active, found.previous, found.previous_source) == (3, 1, "seed")


@pytest.mark.parametrize("source", ["store", "seed"])
def test_what_was_taken_back_meanwhile_is_not_the_previous_one(source: str) -> None:
    disabled = Slots(model=MODEL, disabled="version 2 was rolled back")
    found = after_commit(disabled, active=2, active_source=source)
    assert (found.active, found.previous, found.disabled) == (3, None, "")


def test_what_the_slots_name_is_the_previous_one_whatever_it_was_compared_with() -> None:
    slots = Slots(model=MODEL, active=1, active_source="store", active_digest="d1")
    found = after_commit(slots, active=2, active_source="store")
    assert (found.active, found.previous, found.previous_digest) == (3, 1, "d1")
