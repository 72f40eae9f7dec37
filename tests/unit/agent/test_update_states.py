"""The tables of an update: closed, complete, and every way ends."""

import pytest

from agent.update.states import (
    FINAL,
    HANDED_OVER,
    RECOVERY,
    TRANSITIONS,
    UNFINISHED,
    Event,
    Recovery,
    State,
    diagram,
    next_state,
    recovery,
)
from edge_runtime.state_table import IllegalTransitionError


def test_names_that_are_stored_never_change() -> None:
    assert [state.value for state in State] == [
        "planned",
        "downloading",
        "verified",
        "handing-over",
        "following",
        "canceling",
        "succeeded",
        "failed",
        "rejected",
        "canceled",
        "timed-out",
        "fell-back",
    ]


def test_every_state_has_a_row_for_a_start_and_only_final_ones_need_nothing() -> None:
    assert set(RECOVERY) == set(State)
    assert {state for state in State if RECOVERY[state] is Recovery.NOTHING} == FINAL


def test_every_event_happens_somewhere() -> None:
    assert {event for _, event in TRANSITIONS} == set(Event)


@pytest.mark.parametrize("state", sorted(UNFINISHED))
def test_every_state_can_end_by_a_plan_and_by_its_deadline(state: State) -> None:
    ends = (
        {Event.LET_GO, Event.LAPSED}
        if state is State.CANCELING
        else {
            Event.CANCEL,
            Event.DEADLINE,
        }
    )
    for event in ends:
        assert next_state(state, event) in FINAL | {State.CANCELING}


@pytest.mark.parametrize("state", sorted(HANDED_OVER - {State.CANCELING}))
def test_what_the_runtime_may_have_ends_only_with_its_word(state: State) -> None:
    for event in (Event.CANCEL, Event.DEADLINE):
        assert next_state(state, event) is State.CANCELING


def test_success_comes_only_from_the_runtime_s_word() -> None:
    into = {key for key, following in TRANSITIONS.items() if following is State.SUCCEEDED}
    assert into == {(State.FOLLOWING, Event.COMMITTED), (State.CANCELING, Event.COMMITTED)}


def test_nothing_follows_what_is_over_but_a_fall_back() -> None:
    for (state, event), following in TRANSITIONS.items():
        if state in FINAL:
            assert (state, event, following) == (
                State.SUCCEEDED,
                Event.FALL_BACK,
                State.FELL_BACK,
            )


def test_an_unknown_state_can_be_canceled_and_nothing_else() -> None:
    assert next_state("of-a-newer-agent", Event.CANCEL) is State.CANCELING
    assert recovery("of-a-newer-agent") is Recovery.CANCEL
    for event in set(Event) - {Event.CANCEL}:
        with pytest.raises(IllegalTransitionError, match="of-a-newer-agent"):
            next_state("of-a-newer-agent", event)


def test_a_pair_that_is_not_in_the_table_is_refused() -> None:
    with pytest.raises(IllegalTransitionError):
        next_state(State.PLANNED, Event.COMMITTED)


def test_the_diagram_has_every_state_and_every_arrow() -> None:
    text = diagram()
    assert all(f": {state}\n" in text for state in State)
    assert text.count(" --> ") == len({(s, to) for (s, _), to in TRANSITIONS.items()}) + 2 + len(
        FINAL
    )
