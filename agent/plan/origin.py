"""Checks of the plan itself: whose it is, how old, and whether its release is known."""

from typing import Final

from agent.plan.facts import DeviceFacts
from agent.plan.findings import Finding, found
from agent.plan.reasons import Reason
from agent.plan.spans import duration
from fleet.documents.plan import Plan, Plans
from fleet.documents.release import GuardRails, ReleaseFacts

FUTURE_S_MAX: Final = 86_400.0
"""A plan that was signed so much later than now is not believed: it would never grow old."""


def check_fleet(facts: DeviceFacts, plans: Plans) -> Finding:
    """Tell whether the plans are of this device's fleet."""
    if plans.fleet == facts.fleet:
        return found("fleet", f"the plan is of fleet {plans.fleet}")
    return found(
        "fleet",
        f"the plan is of fleet {plans.fleet}, this device belongs to {facts.fleet or 'none'}",
        Reason.WRONG_FLEET,
    )


def check_plans_channel(facts: DeviceFacts, plans: Plans) -> Finding:
    """Tell whether the plans are of the channel that this device follows."""
    if plans.channel == facts.channel:
        return found("channel", f"the plan is of channel {plans.channel}")
    return found(
        "channel",
        f"the plan is of channel {plans.channel}, this device follows {facts.channel}",
        Reason.WRONG_CHANNEL,
    )


def check_age(facts: DeviceFacts, plans: Plans, rails: GuardRails) -> Finding:
    """Tell whether the plan is young enough to be acted on.

    Its date may only make it older: it is never younger than this device has known it, whatever
    the date says and whatever it did to a clock that is not trusted.
    """
    age_s, most_s = facts.now_s - plans.issued_s, rails.plan_age_s_max
    text = f"the plan was signed {duration(max(age_s, facts.plan_known_s))} ago"
    if not facts.is_clock_trusted:
        text += " or longer (the clock is not trusted)"
    # A clock that is not trusted may be behind, and then every plan is from the future.
    if facts.is_clock_trusted and not age_s >= -FUTURE_S_MAX:
        return found(
            "age",
            f"the plan was signed {duration(-age_s)} in the future: the fleet's clock is wrong, or "
            "this device's",
            Reason.PLAN_FROM_FUTURE,
            waits=True,
            again_at_s=plans.issued_s - FUTURE_S_MAX,
        )
    if most_s == 0:
        return found("age", f"{text}; its release sets no limit")
    if age_s <= most_s and facts.plan_known_s <= most_s:
        return found("age", f"{text}; its release allows {duration(most_s)}")
    return found(
        "age",
        f"{text}; its release allows only {duration(most_s)}: the fleet has to sign it again",
        Reason.PLAN_TOO_OLD,
        waits=True,
    )


def check_release(plan: Plan, release: ReleaseFacts | None) -> Finding:
    """Tell whether the offline key signed the release that the plan names."""
    name = f"{plan.model} version {plan.version}"
    if release is None:
        return found(
            "release",
            f"no release {name} is signed in the repository",
            Reason.RELEASE_UNKNOWN,
        )
    if (release.model, release.version) != (plan.model, plan.version):
        return found(
            "release",
            f"what is signed for {name} says that it is {release.model} version {release.version}",
            Reason.RELEASE_UNKNOWN,
        )
    return found("release", f"release {name} is signed, its counter is {release.counter}")
