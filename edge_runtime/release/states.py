"""The states of a release, as literal tables: what may follow what, and what a start does.

The rules of this file:

1. Everything that decides which state follows stands in ``TRANSITIONS``; a pair that is not there
   is refused and nothing moves.
2. The names are stored on devices: they never change, and none is ever used for something else.
3. Every state has a row in ``RECOVERY``. A stored state that this program does not know is rolled
   back: a newer program wrote it, or the disk lies.
4. Until it is committed, a release can be rolled back from any state.

The diagram in the documents is drawn from these tables.
"""

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import Final, NamedTuple

from edge_runtime import state_table
from edge_runtime.state_table import IllegalTransitionError, following, known


class State(StrEnum):
    """Where a release stands; the values are stored."""

    INSTALLED = "installed"
    SELF_TESTING = "self-testing"
    STAGED = "staged"
    SHADOWING = "shadowing"
    CANARY = "canary"
    PROBATION = "probation"
    COMMITTED = "committed"
    ROLLING_BACK = "rolling-back"
    ROLLED_BACK = "rolled-back"
    FAILED = "failed"


class Event(StrEnum):
    """What happens to a release; the values are stored in the history."""

    BEGIN = "begin"
    FIRST = "first"
    """Nothing is active that it could be compared with, or it cannot be loaded any more."""
    PASSED = "passed"
    FAILED = "failed"
    PROMOTE = "promote"
    NO_ROOM = "no-room"
    """Memory does not hold both versions: the active one stops, then this one starts."""
    ROLL_BACK = "roll-back"
    DONE = "done"
    ERROR = "error"


class Cause(StrEnum):
    """Why a release ended without being committed; the values are stored and reported."""

    VERDICT = "verdict"
    SELF_TEST = "self-test"
    ERRORS = "errors"
    DEADLINE = "deadline"
    ABORTED = "aborted"
    OPERATOR = "operator"
    REVERTED = "reverted"
    SUPERSEDED = "superseded"
    CRASHED = "crashed"
    UNKNOWN_STATE = "unknown-state"
    DISK = "disk"
    LOAD = "load"
    INTERNAL = "internal"


class Recovery(Enum):
    """What a start does with a release that it finds, in words for a person."""

    BEGIN_AGAIN = "begin the step again"
    GO_ON = "go on with fresh evidence"
    WATCHED = "go on with fresh evidence, unless it crashed"
    FINISH = "finish it"
    NOTHING = "nothing"
    ROLL_BACK = "roll back"


class Resumption(NamedTuple):
    """What a start does with one release.

    Attributes:
        action: Any of them but ``WATCHED``, which is decided here.
        cause: Why it is rolled back; ``None`` where it is not.
    """

    action: Recovery
    cause: Cause | None = None


TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = {
    (State.INSTALLED, Event.BEGIN): State.SELF_TESTING,
    (State.INSTALLED, Event.ROLL_BACK): State.ROLLING_BACK,
    # Nothing of it has served yet, so there is nothing to roll back.
    (State.SELF_TESTING, Event.PASSED): State.STAGED,
    (State.SELF_TESTING, Event.FAILED): State.FAILED,
    (State.SELF_TESTING, Event.ROLL_BACK): State.ROLLING_BACK,
    (State.STAGED, Event.BEGIN): State.SHADOWING,
    (State.STAGED, Event.FIRST): State.PROBATION,
    (State.STAGED, Event.PROMOTE): State.PROBATION,
    (State.STAGED, Event.ROLL_BACK): State.ROLLING_BACK,
    (State.SHADOWING, Event.PASSED): State.CANARY,
    # What was active went away meanwhile: that is not this version's fault.
    (State.SHADOWING, Event.FIRST): State.PROBATION,
    (State.SHADOWING, Event.PROMOTE): State.PROBATION,
    (State.SHADOWING, Event.NO_ROOM): State.PROBATION,
    (State.SHADOWING, Event.ROLL_BACK): State.ROLLING_BACK,
    # To the next weight; after the last one it is done.
    (State.CANARY, Event.PASSED): State.CANARY,
    (State.CANARY, Event.DONE): State.PROBATION,
    (State.CANARY, Event.FIRST): State.PROBATION,
    (State.CANARY, Event.PROMOTE): State.PROBATION,
    (State.CANARY, Event.NO_ROOM): State.PROBATION,
    (State.CANARY, Event.ROLL_BACK): State.ROLLING_BACK,
    (State.PROBATION, Event.PASSED): State.COMMITTED,
    (State.PROBATION, Event.PROMOTE): State.COMMITTED,
    (State.PROBATION, Event.ROLL_BACK): State.ROLLING_BACK,
    # Only of the version that is active.
    (State.COMMITTED, Event.ROLL_BACK): State.ROLLING_BACK,
    (State.ROLLING_BACK, Event.DONE): State.ROLLED_BACK,
    (State.ROLLING_BACK, Event.ERROR): State.FAILED,
}

RECOVERY: Final[Mapping[State, Recovery]] = {
    State.INSTALLED: Recovery.BEGIN_AGAIN,
    State.SELF_TESTING: Recovery.BEGIN_AGAIN,
    State.STAGED: Recovery.GO_ON,
    State.SHADOWING: Recovery.GO_ON,
    State.CANARY: Recovery.WATCHED,
    State.PROBATION: Recovery.WATCHED,
    State.COMMITTED: Recovery.NOTHING,
    State.ROLLING_BACK: Recovery.FINISH,
    State.ROLLED_BACK: Recovery.NOTHING,
    State.FAILED: Recovery.NOTHING,
}

FINAL: Final = frozenset({State.COMMITTED, State.ROLLED_BACK, State.FAILED})
"""The release is over; of these only a committed one can still be rolled back."""
UNFINISHED: Final = frozenset(State) - FINAL
SERVES_TRAFFIC: Final = frozenset({State.CANARY, State.PROBATION})
"""The version answers requests and is not committed: a crash counts against it."""

CRASHES_MORE: Final = 2
"""Crashes forgiven beyond the limit where the version serves nothing: its trial runs in a process
of its own and is not to blame, but what ends the daemon at each start must end. Cause: internal."""


def next_state(state: str, event: Event) -> State:
    """Look up what an event leads to.

    Args:
        state: As it is stored.
        event: What happens. An unknown state can be rolled back and nothing else.

    Raises:
        IllegalTransitionError: The table has no such row.
    """
    rolled_back = {Event.ROLL_BACK: State.ROLLING_BACK}
    after = following(TRANSITIONS, known(State, state), event, rolled_back)
    if after is None:
        raise IllegalTransitionError(f"a release that is {state!r} cannot take the event {event!r}")
    return after


def recovery(stored: str, crashes: int, crashes_max: int) -> Resumption:
    """Decide what a start does with a release.

    Args:
        stored: Its state as the disk has it.
        crashes: How often the daemon died under it; a power cut is none.
        crashes_max: As many are too many where the version serves traffic.
    """
    state = known(State, stored)
    if state is None:
        return Resumption(Recovery.ROLL_BACK, Cause.UNKNOWN_STATE)
    action = RECOVERY[state]
    if action in {Recovery.FINISH, Recovery.NOTHING}:
        return Resumption(action)
    if action is Recovery.WATCHED:
        if crashes >= crashes_max:
            return Resumption(Recovery.ROLL_BACK, Cause.CRASHED)
        return Resumption(Recovery.GO_ON)
    if crashes >= crashes_max + CRASHES_MORE:
        return Resumption(Recovery.ROLL_BACK, Cause.INTERNAL)
    return Resumption(action)


def diagram() -> str:
    """Draw the tables as a Mermaid ``stateDiagram-v2``."""
    return state_table.diagram([State.INSTALLED], TRANSITIONS, RECOVERY, FINAL)
