"""What a start does with the releases that it finds."""

import pytest

from edge_runtime.release.records import Previous, Release
from edge_runtime.release.recovery import (
    Crash,
    awake_at_death,
    counts_against,
    crash_of,
    has_crashed,
    recovered,
    suspects,
)
from edge_runtime.release.run_record import Run
from edge_runtime.release.states import SERVES_TRAFFIC, UNFINISHED, Cause, Event, State

DIED = Previous(boot_id="this", was_clean=False)
TRIED = sorted(UNFINISHED - SERVES_TRAFFIC - {State.ROLLING_BACK})


def _release(state: str, crashes: int = 0, model: str = "digits") -> Release:
    return Release(
        id=1,
        model=model,
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


def test_how_a_daemon_died_is_known_from_a_record_of_the_same_boot_only() -> None:
    run = Run("this", 5.0, frozenset({("digits", 2)}))
    assert crash_of(DIED, run, "this", 8.0) == Crash(run.loaded, 3.0)
    assert crash_of(DIED, run._replace(boot_id="another"), "this", 8.0) == Crash()
    assert crash_of(DIED, None, "this", 8.0) == Crash()
    assert crash_of(Previous(boot_id="this", was_clean=True), run, "this", 8.0) is None
    assert crash_of(DIED, run, "the next", 8.0) is None, "the power was cut"


@pytest.mark.parametrize("state", sorted(SERVES_TRAFFIC))
def test_only_who_was_in_memory_is_a_suspect(state: State) -> None:
    here, there = _release(state), _release(state, model="faces")
    crash = Crash(frozenset({("digits", 2)}), 1.0)
    assert suspects([here, there], crash) == [here]
    assert suspects([here, there], Crash()) == [here, there], "nobody can tell"
    assert suspects([here, there], None) == []


@pytest.mark.parametrize("state", TRIED)
def test_a_release_in_processes_of_its_own_is_no_suspect(state: State) -> None:
    release, other = _release(state), _release("canary", model="faces")
    assert suspects([release], Crash()) == []
    assert not counts_against(release, Crash(), [other]), "somebody else is"
    assert counts_against(release, Crash(), []), "its trial may not begin for ever"
    assert not counts_against(release, None, [])
    _, outcome = recovered(_release(state, crashes=2), 1, has_crashed=True)
    assert outcome is not None
    assert outcome.cause is Cause.INTERNAL, "and so it is not remembered as bad"
    assert "not to blame" in outcome.reason


def test_what_cannot_be_told_apart_goes_back_and_is_not_called_bad() -> None:
    _, outcome = recovered(_release("canary"), 1, has_crashed=True, others=["faces version 3"])
    assert outcome is not None
    assert (outcome.cause, outcome.is_sure) == (Cause.CRASHED, False)
    assert "it may have been faces version 3" in outcome.reason
    _, alone = recovered(_release("canary"), 1, has_crashed=True)
    assert alone is not None
    assert alone.is_sure


@pytest.mark.parametrize(
    ("run", "crash", "awake_s"),
    [
        (Run("this", 5.0, awake_s=90.0), Crash(frozenset(), 50.0), 140.0),
        (Run("this", 5.0, awake_s=90.0), Crash(frozenset(), 5.0), 100.0),
        (Run("this", 5.0), Crash(frozenset(), 50.0), 100.0),
        (Run("this", 5.0, awake_s=90.0), None, 100.0),
        (None, Crash(), 100.0),
    ],
    ids=["it idled", "it was stored since", "an older program ran", "it stopped", "not known"],
)
def test_the_awake_clock_goes_on_from_where_the_last_daemon_died(
    run: Run | None, crash: Crash | None, awake_s: float
) -> None:
    stored = Previous(boot_id="this", was_clean=False, awake_s=100.0)
    assert awake_at_death(stored, run, crash) == awake_s
