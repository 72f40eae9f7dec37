"""What is done in each state: one thing, which can be done twice, and says what came of it.

Errors of ports end here: each becomes an event or a pause. Whatever else is raised is a bug.
"""

import dataclasses
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from agent.errors import (
    BudgetError,
    ConfigError,
    NetworkError,
    RefusedError,
    RuntimeAwayError,
    RuntimeRefusedError,
    StateError,
    TrustError,
)
from agent.records.updates import REVERT, Update
from agent.update.choices import canceled, second_look
from agent.update.following import let_go, letting_go, verdict
from agent.update.outcomes import BUDGET_S, RETRY_S, Advance, Outcome, Wait
from agent.update.points import passed
from agent.update.ports import Device, Downloads, LostError, Plans, StoppedError
from agent.update.states import Event, State

LOSSES_MAX: Final = 3
RUNTIME_AWAY: Final = "runtime-away"
RUNTIME_BUSY: Final = "runtime-busy"
RUNTIME_REFUSED: Final = "runtime-refused"
_FORBIDDEN: Final = 403
_LATER: Final = frozenset({408, 429, 503, 507})
"""Statuses by which the runtime says that another time it may."""


@dataclass(frozen=True, kw_only=True)
class Means:
    """What steps work with.

    Attributes:
        downloads: Brings files.
        device: The runtime.
        plans: The plan, looked at again.
        now_s: Seconds since 1970.
        interrupted: Set: a download is to stop soon.
    """

    downloads: Downloads
    device: Device
    plans: Plans
    now_s: Callable[[], float]
    interrupted: threading.Event


def step(update: Update, means: Means, used_s: float) -> Outcome:
    """Do what is to be done in an update's state.

    Args:
        update: As it is stored, in a state that is known and not final.
        means: What to work with.
        used_s: Seconds awake in this state so far.
    """
    try:
        return _STEPS[State(update.state)](update, means, used_s)
    except RuntimeAwayError as error:
        return Wait(pause_s=None, code=RUNTIME_AWAY, reason=error.message)
    except StateError as error:
        return Wait(pause_s=RETRY_S, code="disk", reason=error.message)
    except ConfigError as error:
        return Wait(pause_s=RETRY_S, code="configuration", reason=error.message)
    except TrustError as error:
        return Wait(pause_s=RETRY_S, code=f"distrust-{error.reason}", reason=error.message)
    except RuntimeRefusedError as error:
        return Wait(pause_s=RETRY_S, code=RUNTIME_BUSY, reason=error.message)


def _planned(update: Update, means: Means, _used_s: float) -> Outcome:
    against = second_look(update, means.plans.look(update), means.now_s())
    if against is not None:
        return against
    if update.kind == REVERT:
        return _admitted(update, means)
    return Advance(event=Event.BEGIN)


def _downloading(update: Update, means: Means, _used_s: float) -> Outcome:
    try:
        means.downloads.fetch(update, means.interrupted)
    except StoppedError:
        return Wait(pause_s=1.0)
    except NetworkError as error:
        return Wait(pause_s=RETRY_S, code="network", reason=error.message)
    except BudgetError as error:
        return Wait(pause_s=BUDGET_S, code="budget", reason=error.message)
    except RefusedError as error:
        return Advance(event=Event.REFUSED, code="download-refused", reason=error.message)
    except RuntimeRefusedError as error:
        return _refused(update, means, error)
    passed("agent.update.fetched")
    return Advance(event=Event.FETCHED)


def _verified(update: Update, means: Means, _used_s: float) -> Outcome:
    against = second_look(update, means.plans.look(update), means.now_s())
    return _admitted(update, means) if against is None else against


def _admitted(update: Update, means: Means) -> Outcome:
    standing = means.device.standing(update.model)
    seen = standing.newest_release
    here = standing.under_way()
    if here is not None and here.is_of(update):
        # Handed over by an agent that lost its records: it is followed, not handed over twice.
        seen = here.id - 1
    return Advance(event=Event.ADMITTED, does_change=True, seen_release=seen)


def _handing_over(update: Update, means: Means, _used_s: float) -> Outcome:
    if _has_taken(update, means):
        return Advance(event=Event.STAGED)
    against = second_look(update, means.plans.look(update), means.now_s())
    if isinstance(against, Wait):
        return Advance(event=Event.HELD, code=against.code, reason=against.reason)
    if against is not None:
        return against
    try:
        _hand_over(update, means)
    except LostError as error:
        if update.losses >= LOSSES_MAX:
            return Advance(event=Event.REFUSED, code="lost", reason=error.message)
        return Advance(event=Event.LOST, code="lost", reason=error.message)
    except RuntimeRefusedError as error:
        # It may say no to what it took a moment ago, when nobody heard its answer.
        if _has_taken(update, means):
            return Advance(event=Event.STAGED)
        return _refused(update, means, error)
    passed("agent.update.handed_over")
    return Advance(event=Event.STAGED)


def _hand_over(update: Update, means: Means) -> None:
    if update.kind == REVERT:
        passed("agent.update.hand_over")
        means.device.revert(update)
        return
    folder = means.downloads.bundle(update)
    passed("agent.update.hand_over")
    means.device.stage(update, folder)


def _has_taken(update: Update, means: Means) -> bool:
    standing = means.device.standing(update.model)
    if update.kind == REVERT:
        return standing.active == update.back_to
    return standing.passage(update) is not None


def _refused(update: Update, means: Means, error: RuntimeRefusedError) -> Outcome:
    if error.status in _LATER:
        return Wait(pause_s=RETRY_S, code=RUNTIME_BUSY, reason=error.message)
    if error.status == _FORBIDDEN and means.device.standing(update.model).override:
        if update.state == State.HANDING_OVER:
            return Advance(event=Event.HELD, code="local-hold", reason=error.message)
        return Wait(pause_s=RETRY_S, code="local-hold", reason=error.message)
    return Advance(event=Event.REFUSED, code=RUNTIME_REFUSED, reason=error.message)


def _following(update: Update, means: Means, used_s: float) -> Outcome:
    return verdict(update, means.device.standing(update.model), used_s)


def _canceling(update: Update, means: Means, _used_s: float) -> Outcome:
    known = letting_go(update, means.device.standing(update.model))
    if known is not None:
        return known
    passed("agent.update.abort")
    try:
        means.device.abort(update, update.reason or update.code)
    except RuntimeRefusedError as error:
        after = letting_go(update, means.device.standing(update.model))
        if after is not None:
            return after
        if error.status in _LATER or error.status == _FORBIDDEN:
            return Wait(pause_s=RETRY_S, code=update.code, reason=update.reason)
        # What is under way there is another's, says the runtime.
        return let_go(update)
    passed("agent.update.aborted")
    after = letting_go(update, means.device.standing(update.model))
    return Wait(pause_s=None, code=update.code, reason=update.reason) if after is None else after


_STEPS: Final[Mapping[State, Callable[[Update, Means, float], Outcome]]] = {
    State.PLANNED: _planned,
    State.DOWNLOADING: _downloading,
    State.VERIFIED: _verified,
    State.HANDING_OVER: _handing_over,
    State.FOLLOWING: _following,
    State.CANCELING: _canceling,
}


def late(update: Update) -> Advance:
    """Give the end of an update whose state's time is over."""
    text = f"it was {update.state} for too long"
    if update.reason:
        text += f"; last: {update.reason}"
    if update.state == State.CANCELING:
        return let_go(update)
    return Advance(event=Event.DEADLINE, code="deadline", reason=text, ending=State.TIMED_OUT)


def unknown(update: Update) -> Advance:
    """Give the end of an update whose state this program does not know."""
    text = (
        f"its stored state {update.state!r} is not known: a newer agent wrote it, or the disk lies"
    )
    # Whatever the runtime has of it is to go.
    seen = max(0, update.seen_release)
    return dataclasses.replace(canceled("unknown-state", text), seen_release=seen)
