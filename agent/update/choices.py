"""What a plan means for an update that is under way; pure."""

from typing import Final

from agent.plan.decision import Decision
from agent.plan.reasons import REFUSALS, Reason
from agent.records.updates import INSTALL, REVERT, Update
from agent.update.outcomes import HOLD_S, Advance, Outcome, Wait
from agent.update.states import HANDED_OVER, Event, State
from fleet.documents.plan import Plan

SUPERSEDED: Final = "superseded"
_MEANT: Final = frozenset({"cohort", "filter"})


def second_look(update: Update, decision: Decision | None, now_s: float) -> Outcome | None:
    """Say whether an update may still go on.

    Args:
        update: What is under way.
        decision: About the present plan of its model; ``None``: there is none any more.
        now_s: Seconds since 1970.

    Returns:
        ``None``: go on.
    """
    if decision is None:
        return canceled(Reason.NO_PLAN, "the channel has no plan for the model any more")
    action = decision.action
    if action.kind == update.kind and action.version == _goal(update):
        return None
    if action.kind == "hold":
        pause_s = HOLD_S
        if decision.again_at_s is not None:
            pause_s = min(max(decision.again_at_s - now_s, 1.0), HOLD_S)
        return Wait(pause_s=pause_s, code=action.reason, reason=action.text)
    if is_refusal(decision):
        return Advance(event=Event.REJECT, code=action.reason, reason=action.text)
    if action.kind == INSTALL:
        return canceled(SUPERSEDED, f"a newer plan wants version {action.version}")
    return canceled(action.reason, action.text)


def is_refusal(decision: Decision) -> bool:
    """Tell whether the device is meant by the plan and will not do it: the fleet has to hear it."""
    meant = all(finding.passed for finding in decision.chain if finding.name in _MEANT)
    return decision.action.kind == "none" and decision.action.reason in REFUSALS and meant


def canceled(code: str, reason: str) -> Advance:
    """Give the end of an update that nobody wants any more."""
    return Advance(event=Event.CANCEL, code=code, reason=reason, ending=State.CANCELED)


def is_same(update: Update, plan: Plan, decision: Decision, manifest_sha256: str) -> bool:
    """Tell whether a plan wants what is under way.

    Args:
        update: What is under way.
        plan: The plan.
        decision: About it.
        manifest_sha256: Of its release.
    """
    action = decision.action
    is_wanted = action.kind == update.kind and action.version == _goal(update)
    is_bundle = update.kind == REVERT or update.manifest_sha256 == manifest_sha256
    return is_wanted and is_bundle and update.rollout == plan.rollout


def outlives(update: Update, decision: Decision) -> bool:
    """Tell whether an update goes on though the plan does not want to begin it now.

    What waits, waits on; what the runtime may have is followed to its end unless the plan wants
    something else.
    """
    if decision.action.kind == "hold":
        return True
    return decision.action.kind == "none" and update.state in HANDED_OVER


def planned(plan: Plan, decision: Decision, manifest_sha256: str, now_s: float) -> Update | None:
    """Give the new update that a decision asks for; ``None``: it asks for none.

    Args:
        plan: The plan.
        decision: About it.
        manifest_sha256: Of its release.
        now_s: Seconds since 1970.

    Returns:
        Planned, or rejected at once where the device is meant and must not take it.
    """
    action = decision.action
    is_back = action.kind == "revert"
    if action.kind not in {"install", "revert"} and not is_refusal(decision):
        return None
    is_wanted = action.kind in {"install", "revert"}
    return Update(
        model=plan.model,
        kind=REVERT if is_back or plan.order == REVERT else INSTALL,
        version=plan.version,
        back_to=(action.version if is_wanted else plan.revert_to) if is_back else None,
        rollout=plan.rollout,
        sequence=plan.sequence,
        manifest_sha256=manifest_sha256,
        again=plan.again,
        bytes_max=plan.bytes_max,
        state=State.PLANNED if is_wanted else State.REJECTED,
        code="" if is_wanted else action.reason,
        reason="" if is_wanted else action.text,
        created_s=now_s,
        updated_s=now_s,
    )


def _goal(update: Update) -> int | None:
    return update.back_to if update.kind == REVERT else update.version
