"""What the offline key bounds, whatever a stolen online key signs.

A thief of the online key signs plans, one for each device if it likes: with any salt, any list of
devices, any stage, any dates. So nothing that such a plan says is believed here:

1. How long a stage lasts is counted on this device, from the moment at which it first saw that
   stage of that rollout, by a counter of elapsed time that no document moves: the time of day is
   not asked, since on a device without a clock the latest signed plan sets it. A rollout under
   another name begins anew.
2. While the first stage lasts, the ceiling holds for a bucket that depends only on the device, the
   model and the version (``default_salt``), so that neither salts nor lists choose who is below
   it. A plan whose salt is that one loses nothing: its buckets are the same.
3. Versions change so often a day and not more. The way back from the version that is active is one
   more than that, so that a bad version never has to stay for a day.
"""

import math
from dataclasses import dataclass
from typing import Final

from agent.plan.facts import DeviceFacts
from agent.plan.findings import Finding, found
from agent.plan.reasons import Reason
from agent.plan.spans import duration
from fleet.documents.cohort import BUCKETS, bucket, default_salt
from fleet.documents.plan import Plan
from fleet.documents.release import GuardRails

DAY_S: Final = 86_400.0


@dataclass(frozen=True)
class StageView:
    """Which stage of a plan counts on this device.

    Attributes:
        index: Of the stage; at most what the plan says.
        next_at_s: When a later one may count, a moment of the elapsed time; ``None``: the plan's
            counts.
        ceiling: Most buckets that take part now, by ``default_salt``; ``None``: no limit.
        ceiling_until_s: When the ceiling is lifted, a moment of the elapsed time; ``None``: with
            the plan's next stage.
    """

    index: int
    next_at_s: float | None
    ceiling: int | None
    ceiling_until_s: float | None


def stage_view(facts: DeviceFacts, plan: Plan, rails: GuardRails) -> StageView:
    """Tell which stage counts, by this device's own times.

    Args:
        facts: When it saw which stage.
        plan: The plan.
        rails: Of its release.
    """
    now_s, seen = facts.elapsed_s, facts.model(plan.model).stages_seen
    last = max(0, min(plan.stage, len(plan.stages) - 1))
    first_s = entered_s = seen.get(0, now_s)
    index, next_at_s = 0, None
    for stage in range(1, last + 1):
        # A stage that was never noted is seen now.
        entered_s = max(seen.get(stage, now_s), entered_s + rails.stage_s_min)
        if not entered_s <= now_s:
            next_at_s = entered_s
            break
        index = stage
    lasts = rails.stage_s_min == 0 or not now_s - first_s >= rails.stage_s_min
    if index > 0 or not lasts or rails.first_stage_permyriad_max >= BUCKETS:
        return StageView(index, next_at_s, None, None)
    until_s = first_s + rails.stage_s_min if rails.stage_s_min > 0 else None
    return StageView(0, next_at_s, rails.first_stage_permyriad_max, until_s)


def check_cohort(facts: DeviceFacts, plan: Plan, rails: GuardRails) -> list[Finding]:
    """Tell whether the device is meant, and whether the guard rails let it take part already.

    Args:
        facts: The device.
        plan: The plan.
        rails: Of its release.

    Returns:
        Findings ``cohort``, ``stage`` and ``ceiling``; the latter two only for devices that are
        meant.
    """
    number = bucket(plan.salt, facts.device)
    is_named = facts.device in plan.devices
    last = max(0, min(plan.stage, len(plan.stages) - 1))
    wanted = _share(plan, last)
    if is_named:
        meant = found("cohort", "the plan names this device")
    elif number < wanted:
        meant = found(
            "cohort", f"bucket {number} is below {wanted} permyriad of stage {last}: it is meant"
        )
    else:
        return [
            found(
                "cohort",
                f"bucket {number} is not below {wanted} permyriad of stage {last}: this device is "
                "not in the cohort",
                Reason.NOT_IN_COHORT,
            )
        ]
    view = stage_view(facts, plan, rails)
    return [meant, _stage(facts, plan, rails, view, number), _ceiling(facts, plan, view)]


def _stage(
    facts: DeviceFacts, plan: Plan, rails: GuardRails, view: StageView, number: int
) -> Finding:
    share = _share(plan, view.index)
    if facts.device in plan.devices or number < share:
        return found("stage", f"stage {view.index} counts on this device: {share} permyriad")
    left = (
        ""
        if view.next_at_s is None
        else f", the next one in {duration(view.next_at_s - facts.elapsed_s)}"
    )
    return found(
        "stage",
        f"the plan is at stage {plan.stage}, but a stage lasts at least "
        f"{rails.stage_s_min:g} s and this device has seen it for too short a time: stage "
        f"{view.index} counts ({share} permyriad), and bucket {number} is not below that{left}",
        Reason.STAGE_TOO_EARLY,
        waits=True,
        again_at_s=_moment(view.next_at_s, facts),
    )


def _ceiling(facts: DeviceFacts, plan: Plan, view: StageView) -> Finding:
    if view.ceiling is None:
        return found("ceiling", "no ceiling of the first stage holds now")
    number = bucket(default_salt(plan.model, plan.version), facts.device)
    if number < view.ceiling:
        return found(
            "ceiling",
            f"the release's bucket {number} is below {view.ceiling} permyriad, its signed ceiling "
            "of the first stage",
        )
    left = (
        ""
        if view.ceiling_until_s is None
        else f"; it is lifted in {duration(view.ceiling_until_s - facts.elapsed_s)}"
    )
    return found(
        "ceiling",
        f"the release's bucket {number} is not below {view.ceiling} permyriad, its signed ceiling "
        f"of the first stage, whatever the plan says{left}",
        Reason.ABOVE_CEILING,
        waits=True,
        again_at_s=_moment(view.ceiling_until_s, facts),
    )


def check_channel(plan_channel: str, rails: GuardRails) -> Finding:
    """Tell whether the release may be carried by a channel at all."""
    if not rails.channels or plan_channel in rails.channels:
        allowed = ", ".join(rails.channels) or "every channel"
        return found("allowed-channels", f"the release allows {allowed}")
    return found(
        "allowed-channels",
        f"the release allows only {', '.join(rails.channels)}, not channel {plan_channel}",
        Reason.CHANNEL_NOT_ALLOWED,
    )


def check_changes(facts: DeviceFacts, plan: Plan, rails: GuardRails, *, is_back: bool) -> Finding:
    """Tell whether the version may change once more today.

    Args:
        facts: When it changed.
        plan: The plan.
        rails: Of its release.
        is_back: The change is the way back from the plan's version.
    """
    most = rails.changes_per_day_max
    # A moment in the future is one that a power cut took from the counter: it counts.
    recent = [s for s in facts.changes.get(plan.model, ()) if not s <= facts.elapsed_s - DAY_S]
    text = f"{len(recent)} version changes in the last 24 hours, of at most {most or 'any number'}"
    if most == 0 or len(recent) < most + (1 if is_back else 0):
        return found("changes", text + (", and one more for the way back" if is_back else ""))
    blocking = sorted(recent)[max(0, len(recent) - most - (1 if is_back else 0)) :]
    frees_s = blocking[0] + DAY_S if blocking else math.inf
    return found(
        "changes",
        f"{text}: the release's signed limit is reached",
        Reason.CHANGES_PER_DAY,
        waits=True,
        again_at_s=_moment(frees_s, facts) if math.isfinite(frees_s) else None,
    )


def _share(plan: Plan, stage: int) -> int:
    return plan.stages[stage].permyriad if stage < len(plan.stages) else 0


def _moment(at_s: float | None, facts: DeviceFacts) -> float | None:
    """Turn a moment of the elapsed time into one of the clock, which is good for waiting only."""
    return None if at_s is None else facts.now_s + (at_s - facts.elapsed_s)
