"""Which orders of the fleet are kept out, and how it is told who ordered what."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import ConflictError, ForbiddenError
from edge_runtime.release.fleet_orders import check_no_override, check_own, check_revertible
from edge_runtime.release.records import Override, Slots
from edge_runtime.release_orders import FLEET, asked_by, rollout_of
from tests.release_records import NOW_S, release

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@given(st.integers(0, 2**32), NAMES | st.just(""))
def test_who_ordered_is_read_back_as_it_was_written(uid: int, rollout: str) -> None:
    assert rollout_of(asked_by(uid, rollout)) == rollout


def test_of_whom_the_kernel_says_nothing_is_told_apart_too() -> None:
    assert rollout_of(asked_by(None, "r-17")) == "r-17"
    assert rollout_of(asked_by(None, FLEET)) == FLEET
    assert rollout_of(asked_by(None)) == ""
    assert rollout_of("") == ""
    assert rollout_of("fleetingly") == ""


@pytest.mark.parametrize(
    ("ordered_by", "ends", "may"),
    [
        ("", "", True),
        ("r-1", "", True),
        (FLEET, "", True),
        ("r-1", "r-1", True),
        ("r-1", FLEET, True),
        (FLEET, "r-1", True),
        (FLEET, FLEET, True),
        ("r-1", "r-2", False),
        ("", "r-1", False),
        ("", FLEET, False),
    ],
)
def test_a_rollout_ends_what_the_fleet_ordered_and_a_person_everything(
    ordered_by: str, ends: str, *, may: bool
) -> None:
    under_way = release(source=asked_by(1000, ordered_by))
    if may:
        check_own(under_way, ends)
    else:
        with pytest.raises(ConflictError, match="it goes on"):
            check_own(under_way, ends)


def test_a_local_decision_keeps_the_fleet_out() -> None:
    check_no_override("m", None)
    override = Override(model="m", kind="hold", reason="a demo today", created_s=NOW_S)
    with pytest.raises(ForbiddenError, match=r"a local hold of 'm' stands \(a demo today\)"):
        check_no_override("m", override)


def slots(previous: int | None) -> Slots:
    present = Slots(model="m", active=3, active_source="store")
    return (
        present
        if previous is None
        else msgspec.structs.replace(present, previous=previous, previous_source="store")
    )


def test_a_revert_leads_where_it_was_meant_to_or_nowhere() -> None:
    check_revertible(slots(2), 2, is_newest=True)
    check_revertible(slots(2), None, is_newest=False)
    with pytest.raises(ConflictError, match="before version 3 of 'm' comes version 2, and not"):
        check_revertible(slots(2), 1, is_newest=True)
    with pytest.raises(ConflictError, match="comes none, and not version 2"):
        check_revertible(slots(None), 2, is_newest=True)


def test_a_revert_that_comes_twice_does_not_leave_nothing() -> None:
    check_revertible(slots(None), None, is_newest=True)  # a first release: disabled, as rollback
    with pytest.raises(ConflictError, match="may be done already"):
        check_revertible(slots(None), None, is_newest=False)
