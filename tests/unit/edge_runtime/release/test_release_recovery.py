"""What a start does with the releases that it finds."""

import pytest

from edge_runtime.release.records import Previous, Release
from edge_runtime.release.recovery import has_crashed, recovered
from edge_runtime.release.states import Cause, Event, State


def _release(state: str, crashes: int = 0) -> Release:
    return Release(
        id=1,
        model="digits",
        version=2,
        manifest_sha256="0" * 64,
        state=state,
        crashes=crashes,
        created_s=0.0,
        updated_s=0.0,
    )


@pytest.mark.parametrize(
    ("previous", "crashed"),
    [
        (Previous(boot_id="this", was_clean=False), True),
        (Previous(boot_id="this", was_clean=True), False),
        (Previous(boot_id="another", was_clean=False), False),  # the power was cut
        (Previous(), False),  # the first start
    ],
)
def test_only_a_death_in_this_boot_is_a_crash(previous: Previous, *, crashed: bool) -> None:
    assert has_crashed(previous, "this") is crashed


@pytest.mark.parametrize("state", [State.CANARY, State.PROBATION])
def test_a_version_under_which_the_daemon_died_is_rolled_back(state: State) -> None:
    kept, outcome = recovered(_release(state), 1, has_crashed=True)
    assert kept.crashes == 1
    assert outcome is not None
    assert (outcome.event, outcome.cause) == (Event.ROLL_BACK, Cause.CRASHED)
    assert "daemon died under it" in outcome.reason


@pytest.mark.parametrize("state", [State.CANARY, State.PROBATION])
def test_a_power_cut_counts_against_nobody(state: State) -> None:
    release = _release(state)
    assert recovered(release, 1, has_crashed=False) == (release, None)


def test_crashes_are_forgiven_up_to_the_limit() -> None:
    kept, outcome = recovered(_release(State.CANARY, crashes=1), 3, has_crashed=True)
    assert (kept.crashes, outcome) == (2, None)
    _, outcome = recovered(kept, 3, has_crashed=True)
    assert outcome is not None
    assert "3 times" in outcome.reason


def test_a_state_that_nobody_knows_is_rolled_back() -> None:
    _, outcome = recovered(_release("levitating"), 1, has_crashed=False)
    assert outcome is not None
    assert (outcome.event, outcome.cause) == (Event.ROLL_BACK, Cause.UNKNOWN_STATE)
    assert "levitating" in outcome.reason


def test_a_rollback_that_was_begun_is_finished_however_often_the_daemon_died() -> None:
    _, outcome = recovered(_release(State.ROLLING_BACK, crashes=9), 1, has_crashed=True)
    assert outcome is None
