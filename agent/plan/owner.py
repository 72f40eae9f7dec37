"""Checks of what people and programs on this device decided."""

from agent.plan.facts import DeviceFacts, ModelFacts
from agent.plan.findings import Finding, found
from agent.plan.reasons import Reason
from agent.plan.spans import span
from fleet.documents.plan import Plan

_HOLD = "hold"


def check_override(model: ModelFacts) -> Finding:
    """Tell whether a person keeps the fleet's orders out."""
    if not model.override:
        return found("override", "no local hold or rollback stands")
    why = f" ({model.override_reason})" if model.override_reason else ""
    if model.override == _HOLD:
        return found(
            "override",
            f"a local hold stands{why}; `edge-runtime release clear` ends it",
            Reason.LOCAL_HOLD,
            waits=True,
        )
    return found(
        "override",
        f"a local {model.override} stands{why}; `edge-runtime release clear` ends it",
        Reason.LOCAL_ROLLBACK,
        waits=True,
    )


def check_pause(facts: DeviceFacts) -> Finding:
    """Tell whether a command paused updates."""
    if facts.paused_until_s == 0 or facts.paused_until_s <= facts.now_s:
        return found("pause", "updates are not paused")
    return found(
        "pause",
        f"updates are paused by a command for another {span(facts.paused_until_s, facts)}",
        Reason.PAUSED,
        waits=True,
        again_at_s=facts.paused_until_s,
    )


def check_clone(facts: DeviceFacts) -> Finding:
    """Tell whether this device is the only one with its key."""
    if not facts.is_cloned:
        return found("clone", "no other device was seen with this one's key")
    return found(
        "clone",
        "another device signs with this one's key: nothing new begins on either; run `edge-agent "
        "prepare-image` on the copy, and enrol both again",
        Reason.CLONED,
        waits=True,
    )


def check_under_way(model: ModelFacts, plan: Plan) -> Finding:
    """Tell whether something else of the model is under way, and whether it makes way."""
    if model.under_way is None:
        return found("under-way", "no other release of the model is under way")
    text = f"version {model.under_way} is under way"
    if not model.under_way_rollout:
        return found(
            "under-way",
            f"{text} by a person's order; the fleet waits for its end",
            Reason.LOCAL_RELEASE,
            waits=True,
        )
    where = f" ({model.under_way_state})" if model.under_way_state else ""
    if model.under_way == plan.version:
        return found("under-way", f"{text}{where}, as this plan wants it")
    return found("under-way", f"{text}{where} for rollout {model.under_way_rollout}, and makes way")


def check_memory_of_failures(model: ModelFacts, plan: Plan, manifest_sha256: str) -> list[Finding]:
    """Tell whether this very release did harm here, or this very plan came to nothing.

    Args:
        model: What is remembered.
        plan: The plan; ``again`` insists.
        manifest_sha256: Of the release.

    Returns:
        Findings ``bad`` and ``tried``.
    """
    if manifest_sha256 not in model.bad:
        bad = found("bad", "the release is not remembered as bad")
    elif plan.again:
        bad = found("bad", "the release is remembered as bad, and the plan says to try it again")
    else:
        bad = found(
            "bad",
            "the release was tried here and is remembered as bad; a plan that says `again` tries "
            "it once more",
            Reason.REMEMBERED_AS_BAD,
        )
    sequence = model.tried.get((plan.rollout, plan.version))
    if sequence is None or plan.sequence > sequence:
        return [bad, found("tried", "this plan has not been tried here without success")]
    return [
        bad,
        found(
            "tried",
            f"rollout {plan.rollout} came to nothing here at sequence {sequence}, and the plan is "
            f"still at {plan.sequence}",
            Reason.ALREADY_TRIED,
        ),
    ]
