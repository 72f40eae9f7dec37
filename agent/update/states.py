"""The states of an update, as literal tables: what may follow what, and what a start does.

The rules of this file:

1. Everything that decides which state follows stands in ``TRANSITIONS``; a pair that is not there
   is refused and nothing moves.
2. The names are stored on devices and sent to fleets: they never change, and none is ever used for
   something else.
3. Every state has a row in ``RECOVERY``. A stored state that this program does not know is
   canceled, and the runtime is told to let go of it: a newer program wrote it, or the disk lies.
4. What the runtime may have taken ends only with its word: such an update goes through
   ``canceling``, and if the runtime has committed it meanwhile, it has succeeded.
5. A state is stored before it is acted on, and what is done in a state can be done twice.

The diagram in the documents is drawn from these tables.
"""

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import Final

from edge_runtime import state_table
from edge_runtime.state_table import IllegalTransitionError, following


class State(StrEnum):
    """Where an update stands; the values are stored."""

    PLANNED = "planned"
    DOWNLOADING = "downloading"
    VERIFIED = "verified"
    HANDING_OVER = "handing-over"
    FOLLOWING = "following"
    """The runtime has it and judges it."""
    CANCELING = "canceling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELED = "canceled"
    TIMED_OUT = "timed-out"
    FELL_BACK = "fell-back"
    """It had succeeded, and does not run any more."""


class Event(StrEnum):
    """What happens to an update."""

    BEGIN = "begin"
    FETCHED = "fetched"
    ADMITTED = "admitted"
    """The plan was looked at once more and still wants it now."""
    HELD = "held"
    LOST = "lost"
    """What was downloaded is not there any more, or not right."""
    STAGED = "staged"
    REFUSED = "refused"
    REJECT = "reject"
    """This device must not take it, says a second look at the plan."""
    COMMITTED = "committed"
    ROLLED_BACK = "rolled-back"
    CANCEL = "cancel"
    DEADLINE = "deadline"
    LET_GO = "let-go"
    """The runtime has nothing of it any more; it ends as canceled."""
    LAPSED = "lapsed"
    """The same; it ends as timed out."""
    FALL_BACK = "fall-back"


class Recovery(Enum):
    """What a start does with an update that it finds, in words for a person."""

    GO_ON = "go on"
    RESUME = "resume the download"
    CHECK = "check the files, look at the plan again"
    ASK = "ask the runtime what it has"
    ORDER_AGAIN = "tell the runtime again to let go"
    NOTHING = "nothing"
    CANCEL = "cancel it"


TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = {
    (State.PLANNED, Event.BEGIN): State.DOWNLOADING,
    # A way back needs no download.
    (State.PLANNED, Event.ADMITTED): State.HANDING_OVER,
    (State.PLANNED, Event.REJECT): State.REJECTED,
    (State.PLANNED, Event.CANCEL): State.CANCELED,
    (State.PLANNED, Event.DEADLINE): State.TIMED_OUT,
    (State.DOWNLOADING, Event.FETCHED): State.VERIFIED,
    (State.DOWNLOADING, Event.REFUSED): State.FAILED,
    (State.DOWNLOADING, Event.REJECT): State.REJECTED,
    (State.DOWNLOADING, Event.CANCEL): State.CANCELED,
    (State.DOWNLOADING, Event.DEADLINE): State.TIMED_OUT,
    (State.VERIFIED, Event.ADMITTED): State.HANDING_OVER,
    (State.VERIFIED, Event.LOST): State.DOWNLOADING,
    (State.VERIFIED, Event.REJECT): State.REJECTED,
    (State.VERIFIED, Event.CANCEL): State.CANCELED,
    (State.VERIFIED, Event.DEADLINE): State.TIMED_OUT,
    (State.HANDING_OVER, Event.STAGED): State.FOLLOWING,
    (State.HANDING_OVER, Event.REFUSED): State.FAILED,
    # The runtime has nothing of it yet, and the plan has changed its mind.
    (State.HANDING_OVER, Event.HELD): State.VERIFIED,
    (State.HANDING_OVER, Event.LOST): State.DOWNLOADING,
    (State.HANDING_OVER, Event.REJECT): State.REJECTED,
    (State.HANDING_OVER, Event.CANCEL): State.CANCELING,
    (State.HANDING_OVER, Event.DEADLINE): State.CANCELING,
    (State.FOLLOWING, Event.COMMITTED): State.SUCCEEDED,
    (State.FOLLOWING, Event.ROLLED_BACK): State.FAILED,
    (State.FOLLOWING, Event.CANCEL): State.CANCELING,
    (State.FOLLOWING, Event.DEADLINE): State.CANCELING,
    (State.CANCELING, Event.COMMITTED): State.SUCCEEDED,
    (State.CANCELING, Event.ROLLED_BACK): State.FAILED,
    (State.CANCELING, Event.LET_GO): State.CANCELED,
    (State.CANCELING, Event.LAPSED): State.TIMED_OUT,
    (State.SUCCEEDED, Event.FALL_BACK): State.FELL_BACK,
}

RECOVERY: Final[Mapping[State, Recovery]] = {
    State.PLANNED: Recovery.GO_ON,
    State.DOWNLOADING: Recovery.RESUME,
    State.VERIFIED: Recovery.CHECK,
    # Whether the order arrived is not known.
    State.HANDING_OVER: Recovery.ASK,
    State.FOLLOWING: Recovery.ASK,
    State.CANCELING: Recovery.ORDER_AGAIN,
    State.SUCCEEDED: Recovery.NOTHING,
    State.FAILED: Recovery.NOTHING,
    State.REJECTED: Recovery.NOTHING,
    State.CANCELED: Recovery.NOTHING,
    State.TIMED_OUT: Recovery.NOTHING,
    State.FELL_BACK: Recovery.NOTHING,
}

FINAL: Final = frozenset(
    {
        State.SUCCEEDED,
        State.FAILED,
        State.REJECTED,
        State.CANCELED,
        State.TIMED_OUT,
        State.FELL_BACK,
    }
)
"""The update is over; of these only one that succeeded can still fall back."""
UNFINISHED: Final = frozenset(State) - FINAL
HANDED_OVER: Final = frozenset({State.HANDING_OVER, State.FOLLOWING, State.CANCELING})
"""The runtime has it, or may have it."""
DOWNLOADED: Final = frozenset({State.VERIFIED, State.HANDING_OVER, State.FOLLOWING})
UNSUCCESSFUL: Final = frozenset({State.FAILED, State.TIMED_OUT, State.FELL_BACK})
"""The same plan is not tried again. (What was rejected had not begun.)"""

STATUS: Final[Mapping[State, str]] = {
    State.PLANNED: "queued",
    State.DOWNLOADING: "in_progress",
    State.VERIFIED: "in_progress",
    State.HANDING_OVER: "in_progress",
    State.FOLLOWING: "in_progress",
    State.CANCELING: "in_progress",
    State.SUCCEEDED: "succeeded",
    State.FAILED: "failed",
    State.REJECTED: "rejected",
    State.CANCELED: "canceled",
    State.TIMED_OUT: "timed_out",
    State.FELL_BACK: "failed",
}
"""What the fleet calls it: the words of AWS IoT jobs."""


def next_state(state: str, event: Event) -> State:
    """Look up what an event leads to.

    Args:
        state: As it is stored.
        event: What happens. An unknown state can be canceled and nothing else.

    Raises:
        IllegalTransitionError: The table has no such row.
    """
    canceled = {Event.CANCEL: State.CANCELING}
    after = following(TRANSITIONS, known(state), event, canceled)
    if after is None:
        raise IllegalTransitionError(f"an update that is {state!r} cannot take the event {event!r}")
    return after


def recovery(stored: str) -> Recovery:
    """Say what a start does with an update.

    Args:
        stored: Its state as the disk has it.
    """
    state = known(stored)
    return Recovery.CANCEL if state is None else RECOVERY[state]


def known(stored: str) -> State | None:
    """Give a stored state; ``None``: this program does not know it."""
    return state_table.known(State, stored)


def diagram() -> str:
    """Draw the tables as a Mermaid ``stateDiagram-v2``."""
    return state_table.diagram([State.PLANNED, State.REJECTED], TRANSITIONS, RECOVERY, FINAL)
