"""What the runtime's word means for an update that it has; pure.

An update has succeeded when its version is the active one and what runs is what the release says
that it runs: not when it was installed.
"""

from typing import Final

from agent.records.updates import REVERT, Update
from agent.update.outcomes import Advance, Outcome, Wait
from agent.update.standing import ABORTED, COMMITTED, HARMFUL, Passage, Standing
from agent.update.states import Event, State

NOT_RUNNING_S: Final = 600.0
"""How long a committed version may be out of memory before the fleet is told as much."""
VANISHED: Final = "vanished"
REPLACED: Final = "replaced"
OTHER_DIGEST: Final = "other-digest"
NOT_IN_MEMORY: Final = "not-in-memory"
FELL_BACK: Final = "fell-back"


def verdict(update: Update, standing: Standing, used_s: float) -> Outcome:
    """Say what became of what was handed over.

    Args:
        update: In the state ``following``.
        standing: Of its model in the runtime.
        used_s: Seconds awake in this state so far.
    """
    if update.kind == REVERT:
        return _way_back(update, standing, used_s)
    passage = standing.passage(update)
    if passage is None:
        return Advance(
            event=Event.ROLLED_BACK,
            code=VANISHED,
            reason="the runtime knows nothing of the release that it took; its records were lost",
        )
    if passage.state == COMMITTED:
        return _committed(update, standing, passage, used_s)
    if passage.is_over:
        return rolled_back(update, standing, passage)
    return Wait(pause_s=None, code="", reason=passage.waits_for, phase=passage.state)


def rolled_back(update: Update, standing: Standing, passage: Passage) -> Advance:
    """Give the end of an update that the runtime took back, in the runtime's words.

    Args:
        update: The update.
        standing: Of its model.
        passage: Its release, which is over and not committed.
    """
    # Whether the release is to blame is the runtime's to say: it keeps the list.
    is_harmful = passage.cause in HARMFUL and update.manifest_sha256 in standing.bad
    return Advance(
        event=Event.ROLLED_BACK,
        code=passage.cause or passage.state,
        reason=passage.reason or f"the runtime says {passage.state}",
        is_harmful=is_harmful,
    )


def letting_go(update: Update, standing: Standing) -> Advance | None:
    """Say what became of an update that the runtime is to let go of.

    Args:
        update: In the state ``canceling``.
        standing: Of its model in the runtime.

    Returns:
        ``None``: the runtime still has it.
    """
    if update.kind == REVERT:
        if standing.active == update.back_to:
            return Advance(event=Event.COMMITTED)
        return let_go(update)
    passage = standing.passage(update)
    if passage is None:
        return let_go(update)
    if not passage.is_over:
        return None
    if passage.state == COMMITTED and standing.active == update.version:
        return Advance(event=Event.COMMITTED, reason="it was committed before the order came")
    if passage.state == COMMITTED or passage.cause == ABORTED:
        return let_go(update)
    return rolled_back(update, standing, passage)


def let_go(update: Update) -> Advance:
    """Give the end that a canceled update was to have."""
    event = Event.LAPSED if update.ending == State.TIMED_OUT else Event.LET_GO
    return Advance(event=event, code=update.code, reason=update.reason)


def fallen_back(update: Update, standing: Standing) -> Advance | None:
    """Say whether what had succeeded does not run any more.

    Args:
        update: The newest of its model that succeeded; none of the model is under way.
        standing: Of its model.

    Returns:
        ``None``: it is active, or a way back had succeeded.
    """
    if update.kind == REVERT or standing.active == update.version:
        return None
    passage = standing.passage(update)
    if passage is not None and passage.is_over and passage.state != COMMITTED:
        reason = passage.reason or f"the runtime says {passage.state}"
        return Advance(event=Event.FALL_BACK, code=passage.cause or FELL_BACK, reason=reason)
    if standing.active is None:
        reason = standing.disabled or "no version of the model is active"
        return Advance(event=Event.FALL_BACK, code=FELL_BACK, reason=reason)
    reason = f"version {standing.active} is active, not by an order of the fleet"
    return Advance(event=Event.FALL_BACK, code=REPLACED, reason=reason)


def _committed(update: Update, standing: Standing, passage: Passage, used_s: float) -> Outcome:
    if standing.active != update.version:
        return Advance(
            event=Event.ROLLED_BACK,
            code=REPLACED,
            reason=f"it was committed, and version {standing.active} is active by now",
        )
    if standing.running_digest and standing.running_digest == passage.digest:
        return Advance(event=Event.COMMITTED, reason="; ".join(passage.judged))
    if not standing.running_digest:
        text = "it is committed, and nothing of the model is in memory"
        if used_s >= NOT_RUNNING_S:
            return Advance(event=Event.COMMITTED, code=NOT_IN_MEMORY, reason=text)
        return Wait(pause_s=None, code=NOT_IN_MEMORY, reason=text, phase=passage.state)
    text = (
        f"it is committed, but what runs has digest {standing.running_digest}, the release "
        f"{passage.digest or 'none'}"
    )
    if used_s >= NOT_RUNNING_S:
        return Advance(event=Event.ROLLED_BACK, code=OTHER_DIGEST, reason=text)
    return Wait(pause_s=None, code=OTHER_DIGEST, reason=text, phase=passage.state)


def _way_back(update: Update, standing: Standing, used_s: float) -> Outcome:
    if standing.active == update.back_to:
        if not standing.running_digest and used_s < NOT_RUNNING_S:
            return Wait(pause_s=None, code=NOT_IN_MEMORY, reason="it is not in memory yet")
        return Advance(event=Event.COMMITTED)
    if standing.active == update.version:
        return Wait(pause_s=None)
    return Advance(
        event=Event.ROLLED_BACK,
        code=REPLACED,
        reason=f"version {standing.active} is active, not {update.back_to}",
    )
