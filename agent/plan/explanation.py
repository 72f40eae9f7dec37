"""The whole chain of reasons, in sentences: what ``edge-agent explain`` prints."""

from typing import Final

from agent.plan.decision import Decision
from agent.plan.reasons import REFUSALS, Reason
from fleet.documents.plan import Plan

_PLAIN: Final = frozenset({Reason.INSTALL, Reason.REVERT, Reason.ABORT})


def explain(plan: Plan | None, decision: Decision | None, model: str) -> list[str]:
    """Say what is done about a model's plan, and why.

    Args:
        plan: The plan; ``None``: the channel has none for the model.
        decision: What follows from it.
        model: The model's name.

    Returns:
        The action first, then a line for every check; the one that decided is marked.
    """
    if plan is None or decision is None:
        return [f"{model}: none, because the channel has no plan for it"]
    action = decision.action
    version = "" if action.version is None else f" {action.version}"
    because = "" if action.reason in _PLAIN else f" because {action.text}"
    order = f"{plan.order} version {plan.version}, stage {plan.stage} of {len(plan.stages)}"
    lines = [
        f"{model}: {action.kind}{version}{because} ({action.reason})",
        f"  plan: rollout {plan.rollout}, sequence {plan.sequence}, {order}",
    ]
    has_decided = False
    for finding in decision.chain:
        mark = "+" if finding.passed else "-"
        note = ""
        if not finding.passed and not has_decided:
            has_decided, note = True, "  <- decides"
        lines.append(f"  {mark} {finding.name}: {finding.sentence}{note}")
    if action.reason in REFUSALS:
        lines.append("  the fleet is told that this device refuses it")
    return lines
