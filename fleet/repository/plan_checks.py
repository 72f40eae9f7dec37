"""Whether a plan may take the place of the one before: pure decisions.

The same bounds that devices hold plans to; what is refused here would only be ignored there.
"""

from collections.abc import Mapping

import msgspec

from fleet.documents.plan import Plan
from fleet.documents.release import GuardRails, ReleaseFacts
from fleet.errors import RefusedError
from fleet.repository.release_checks import least_counter


def check_plan_for(
    plan: Plan,
    channel: str,
    before: Plan | None,
    releases: Mapping[int, ReleaseFacts],
    now_s: float,
) -> None:
    """Refuse a plan that devices would ignore, or that goes back.

    Args:
        plan: The new plan, with begun stages.
        channel: Its channel.
        before: The plan of the same model in the channel; ``None``: there is none.
        releases: Releases of its model, by version.
        now_s: The time, in seconds since 1970.

    Raises:
        RefusedError: It may not be signed; the sentence says why.
    """
    shown = f"plan {plan.rollout}"
    for version in (plan.version, plan.revert_to):
        if version is not None:
            _check_version(shown, plan.model, version, releases)
    if before is not None and plan.sequence <= before.sequence:
        raise RefusedError(
            f"{shown}: the sequence {plan.sequence} does not rise above {before.sequence}; leave "
            "it out, or raise it"
        )
    if before is not None and plan.rollout == before.rollout:
        for name in ("version", "salt"):
            if getattr(plan, name) != getattr(before, name):
                raise RefusedError(
                    f"{shown}: its {name} was {getattr(before, name)!r} and stays so; give a new "
                    "rollout a new name"
                )
    rails = releases[plan.version].guard_rails
    _check_rails(shown, plan, channel, rails)
    if plan.order == "install":
        _check_advance(shown, plan, before, rails, now_s)


def with_begun(plan: Plan, before: Plan | None, now_s: float) -> Plan:
    """Note when the stages began: as the plan before said, and the present one now.

    Args:
        plan: The new plan; what it says itself stays.
        before: The plan of the same model in the channel; ``None``: there is none.
        now_s: The time, in seconds since 1970.
    """
    same = before is not None and before.rollout == plan.rollout
    known = [stage.begun_s for stage in before.stages] if before is not None and same else []
    stages = list(plan.stages)
    for number, stage in enumerate(stages[: plan.stage + 1]):
        begun_s = stage.begun_s
        if begun_s is None and number < len(known):
            begun_s = known[number]
        if begun_s is None:
            begun_s = now_s
        stages[number] = msgspec.structs.replace(stage, begun_s=begun_s)
    return msgspec.structs.replace(plan, stages=tuple(stages))


def _check_version(
    shown: str, model: str, version: int, releases: Mapping[int, ReleaseFacts]
) -> None:
    if version not in releases:
        known = ", ".join(map(str, releases)) or "none"
        raise RefusedError(
            f"{shown}: {model} version {version} is not released (versions: {known}); "
            "`edge-fleet repo release add` releases one"
        )
    least = least_counter(releases.values())
    if releases[version].counter < least:
        raise RefusedError(
            f"{shown}: {model} version {version} has the counter {releases[version].counter}, and "
            f"no device goes below {least} any more; release it again under a new version"
        )


def _check_rails(shown: str, plan: Plan, channel: str, rails: GuardRails) -> None:
    if rails.channels and channel not in rails.channels:
        raise RefusedError(
            f"{shown}: {plan.model} version {plan.version} was released for the channels "
            f"{', '.join(rails.channels)} only, not for {channel}"
        )
    if plan.stages[0].permyriad > rails.first_stage_permyriad_max:
        raise RefusedError(
            f"{shown}: the first stage has {plan.stages[0].permyriad} of 10,000 devices, and the "
            f"release allows at most {rails.first_stage_permyriad_max}"
        )
    for number, stage in enumerate(plan.stages[:-1]):
        if stage.duration_s < rails.stage_s_min:
            raise RefusedError(
                f"{shown}: stage {number} lasts {stage.duration_s:g} s, and the release wants at "
                f"least {rails.stage_s_min:g} s"
            )


def _check_advance(
    shown: str, plan: Plan, before: Plan | None, rails: GuardRails, now_s: float
) -> None:
    """Refuse to begin a stage before the one before it has lasted as long as the release wants."""
    if not rails.stage_s_min:
        return
    same = before is not None and before.rollout == plan.rollout
    reached = before.stage if before is not None and same else -1
    if plan.stage > reached + 1:
        raise RefusedError(
            f"{shown}: it leaps to stage {plan.stage}, and the release wants every stage to last "
            f"{rails.stage_s_min:g} s; go to stage {reached + 1} first"
        )
    if before is None or plan.stage <= reached or reached < 0:
        return
    begun_s = before.stages[reached].begun_s
    wait_s = (now_s if begun_s is None else begun_s) + rails.stage_s_min - now_s
    if wait_s > 0:
        raise RefusedError(
            f"{shown}: stage {reached} has not lasted {rails.stage_s_min:g} s yet, as the release "
            f"wants; stage {plan.stage} may begin in {wait_s:.0f} s"
        )
