"""The tables of a release's states: frozen names, no dead ends, and what a start does."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.release.states import (
    CRASHES_MORE,
    FINAL,
    RECOVERY,
    SERVES_TRAFFIC,
    TRANSITIONS,
    UNFINISHED,
    Cause,
    Event,
    Recovery,
    Resumption,
    State,
    diagram,
    next_state,
    recovery,
)
from edge_runtime.state_table import IllegalTransitionError


def test_the_stored_names_never_change() -> None:
    assert {state.name: state.value for state in State} == {
        "INSTALLED": "installed",
        "SELF_TESTING": "self-testing",
        "STAGED": "staged",
        "SHADOWING": "shadowing",
        "CANARY": "canary",
        "PROBATION": "probation",
        "COMMITTED": "committed",
        "ROLLING_BACK": "rolling-back",
        "ROLLED_BACK": "rolled-back",
        "FAILED": "failed",
    }
    assert [event.value for event in Event] == [
        "begin",
        "first",
        "passed",
        "failed",
        "promote",
        "no-room",
        "roll-back",
        "done",
        "error",
    ]
    assert [cause.value for cause in Cause] == [
        "verdict",
        "self-test",
        "errors",
        "deadline",
        "aborted",
        "operator",
        "reverted",
        "superseded",
        "crashed",
        "unknown-state",
        "disk",
        "load",
        "internal",
    ]


def test_the_groups_are_what_they_say() -> None:
    assert {"committed", "rolled-back", "failed"} == FINAL
    assert set(State) == FINAL | UNFINISHED
    assert not FINAL & UNFINISHED
    assert {"canary", "probation"} == SERVES_TRAFFIC


def test_every_state_can_be_reached_from_installed() -> None:
    reached = {State.INSTALLED}
    for _ in State:
        reached |= {after for (before, _), after in TRANSITIONS.items() if before in reached}
    assert reached == set(State)


@pytest.mark.parametrize("state", State)
def test_a_final_state_is_reached_from_every_state(state: State) -> None:
    reached = {state}
    for _ in State:
        reached |= {after for (before, _), after in TRANSITIONS.items() if before in reached}
    assert reached & FINAL


@pytest.mark.parametrize("state", sorted(UNFINISHED - {State.ROLLING_BACK} | {State.COMMITTED}))
def test_what_is_not_rolled_back_yet_can_be(state: State) -> None:
    assert next_state(state, Event.ROLL_BACK) is State.ROLLING_BACK


@pytest.mark.parametrize("state", [State.ROLLED_BACK, State.FAILED])
def test_nothing_leaves_where_a_release_ended(state: State) -> None:
    assert not [event for event in Event if (state, event) in TRANSITIONS]


def test_only_probation_leads_to_committed() -> None:
    assert {before for (before, _), after in TRANSITIONS.items() if after == "committed"} == {
        "probation"
    }


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_what_is_not_in_the_table_is_refused_and_said(state: State, event: Event) -> None:
    if (state, event) in TRANSITIONS:
        assert next_state(state.value, event) is TRANSITIONS[state, event]
        return
    with pytest.raises(IllegalTransitionError) as refusal:
        next_state(state, event)
    assert state.value in str(refusal.value)
    assert event.value in str(refusal.value)


@pytest.mark.parametrize("event", Event)
def test_an_unknown_state_can_only_be_rolled_back(event: Event) -> None:
    if event is Event.ROLL_BACK:
        assert next_state("of-a-newer-program", event) is State.ROLLING_BACK
        return
    with pytest.raises(IllegalTransitionError):
        next_state("of-a-newer-program", event)


def test_every_state_has_a_recovery_row() -> None:
    assert RECOVERY.keys() == set(State)
    assert Recovery.ROLL_BACK not in RECOVERY.values()
    assert {state for state, row in RECOVERY.items() if row is Recovery.WATCHED} == SERVES_TRAFFIC
    assert {state for state, row in RECOVERY.items() if row is Recovery.NOTHING} == FINAL


@pytest.mark.parametrize(
    ("stored", "crashes", "expected"),
    [
        ("installed", 0, Resumption(Recovery.BEGIN_AGAIN)),
        ("installed", 1, Resumption(Recovery.BEGIN_AGAIN)),
        ("self-testing", 0, Resumption(Recovery.BEGIN_AGAIN)),
        ("self-testing", 2, Resumption(Recovery.BEGIN_AGAIN)),
        ("self-testing", 3, Resumption(Recovery.ROLL_BACK, Cause.INTERNAL)),
        ("staged", 0, Resumption(Recovery.GO_ON)),
        ("shadowing", 2, Resumption(Recovery.GO_ON)),
        ("shadowing", 3, Resumption(Recovery.ROLL_BACK, Cause.INTERNAL)),
        ("canary", 0, Resumption(Recovery.GO_ON)),
        ("canary", 1, Resumption(Recovery.ROLL_BACK, Cause.CRASHED)),
        ("probation", 0, Resumption(Recovery.GO_ON)),
        ("probation", 7, Resumption(Recovery.ROLL_BACK, Cause.CRASHED)),
        ("rolling-back", 0, Resumption(Recovery.FINISH)),
        ("rolling-back", 9, Resumption(Recovery.FINISH)),
        ("committed", 9, Resumption(Recovery.NOTHING)),
        ("rolled-back", 9, Resumption(Recovery.NOTHING)),
        ("failed", 9, Resumption(Recovery.NOTHING)),
        ("warming-up", 0, Resumption(Recovery.ROLL_BACK, Cause.UNKNOWN_STATE)),
        ("", 0, Resumption(Recovery.ROLL_BACK, Cause.UNKNOWN_STATE)),
        ("CANARY", 0, Resumption(Recovery.ROLL_BACK, Cause.UNKNOWN_STATE)),
    ],
)
def test_a_start_does_what_the_table_says(stored: str, crashes: int, expected: Resumption) -> None:
    assert recovery(stored, crashes, crashes_max=1) == expected


@given(st.text() | st.sampled_from([state.value for state in State]), st.integers(1, 9))
def test_a_crash_loop_ends_and_only_known_states_go_on(stored: str, crashes_max: int) -> None:
    actions = [recovery(stored, n, crashes_max) for n in range(crashes_max + CRASHES_MORE + 1)]
    for action in actions:
        assert action.action is not Recovery.WATCHED
        assert (action.cause is not None) == (action.action is Recovery.ROLL_BACK)
    if stored in UNFINISHED - {State.ROLLING_BACK}:
        cause = Cause.CRASHED if stored in SERVES_TRAFFIC else Cause.INTERNAL
        assert actions[-1] == Resumption(Recovery.ROLL_BACK, cause)
    if stored not in set(State):
        assert set(actions) == {Resumption(Recovery.ROLL_BACK, Cause.UNKNOWN_STATE)}


def test_the_diagram_shows_every_row_of_the_tables() -> None:
    text = diagram()
    lines = text.splitlines()
    assert lines[0] == "stateDiagram-v2"
    assert "    [*] --> installed" in lines
    for (before, event), after in TRANSITIONS.items():
        arrow = f"    {before} --> {after} : ".replace("-", "_").replace(" __> ", " --> ")
        (line,) = [line for line in lines if line.startswith(arrow)]
        assert event.value in line.removeprefix(arrow).split(" or ")
    assert sum(line.count(" or ") + 1 for line in lines if " --> " in line and " : " in line) == (
        len(TRANSITIONS)
    )
    for state in State:
        name = state.value.replace("-", "_")
        assert f"    {name} : {state.value}" in lines
        assert (f"    {name} --> [*]" in lines) == (state in FINAL)
        restart = f"    {name} : after a restart, {RECOVERY[state].value}"
        assert (restart in lines) == (state in UNFINISHED)
