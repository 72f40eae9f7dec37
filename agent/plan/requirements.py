"""Checks of what a release demands of a device, and of what it must not fall below."""

import re
from typing import Final

from agent.plan.facts import DeviceFacts, ModelFacts
from agent.plan.findings import Finding, found
from agent.plan.reasons import Reason
from fleet.documents.plan import Plan
from fleet.documents.release import ReleaseFacts, Requires

_NUMBERS: Final = re.compile(r"(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?")
_MIB: Final = 1 << 20


def check_requirements(facts: DeviceFacts, requires: Requires) -> list[Finding]:
    """Tell whether the device is what the release demands.

    Returns:
        Findings ``architecture``, ``cpu-flags``, ``memory``, ``labels`` and ``agent``.
    """
    missing = [flag for flag in requires.cpu_flags if flag not in facts.cpu_flags]
    wanted = ", ".join(requires.arch) or "any"
    memory = f"{facts.memory_bytes // _MIB} MiB of memory, {requires.memory_bytes // _MIB} needed"
    return [
        found(
            "architecture",
            f"the processor is {facts.arch or 'unknown'}, wanted is {wanted}",
            *_unless(not requires.arch or facts.arch in requires.arch, Reason.ARCHITECTURE),
        ),
        found(
            "cpu-flags",
            f"the processor lacks {', '.join(missing)}"
            if missing
            else f"the processor has all of {len(requires.cpu_flags)} instruction sets demanded",
            *_unless(not missing, Reason.CPU_FLAGS),
        ),
        found(
            "memory", memory, *_unless(facts.memory_bytes >= requires.memory_bytes, Reason.MEMORY)
        ),
        _labels(facts, requires),
        _agent(facts, requires),
    ]


def check_filter(facts: DeviceFacts, plan: Plan) -> Finding:
    """Tell whether the plan chooses the device by its labels."""
    for label, accepted in plan.filter.items():
        value = facts.labels.get(label)
        if value not in accepted:
            return found(
                "filter",
                f"the plan wants {label} to be {' or '.join(accepted) or 'nothing'}, here it is "
                f"{_shown(value)}",
                Reason.FILTERED_OUT,
            )
    return found("filter", f"all {len(plan.filter)} labels that the plan filters by match")


def check_counter(counter: int | None, release: ReleaseFacts | None, model: ModelFacts) -> Finding:
    """Tell whether a release is not below what the offline key still allows.

    Args:
        counter: Of the version that would run; ``None``: it has none, for it is no signed release.
        release: That the plan names, as far as it is known.
        model: Which floors were seen.
    """
    floor = max(model.min_counter, 0 if release is None else release.min_counter)
    text = f"counter {'none' if counter is None else counter}, the lowest allowed is {floor}"
    return found("counter", text, *_unless((counter or 0) >= floor, Reason.BELOW_MIN_COUNTER))


def check_downgrade(model: ModelFacts, plan: Plan) -> Finding:
    """Tell whether the plan's version is not older than the active one."""
    if model.active is None or plan.version >= model.active:
        active = "nothing" if model.active is None else f"version {model.active}"
        return found("downgrade", f"{active} is active, version {plan.version} is not older")
    return found(
        "downgrade",
        f"version {model.active} is active; only an order to revert leads back to an older one "
        f"such as {plan.version}",
        Reason.DOWNGRADE,
    )


def _labels(facts: DeviceFacts, requires: Requires) -> Finding:
    for label, accepted in requires.labels.items():
        value = facts.labels.get(label)
        if value not in accepted:
            return found(
                "labels",
                f"the release demands that {label} is {' or '.join(accepted) or 'nothing'}, here "
                f"it is {_shown(value)}",
                Reason.LABELS,
            )
    return found("labels", f"all {len(requires.labels)} labels that the release demands match")


def _agent(facts: DeviceFacts, requires: Requires) -> Finding:
    here, least = _numbers(facts.agent_version), _numbers(requires.agent_min)
    is_met = not requires.agent_min or (least is not None and here is not None and here >= least)
    return found(
        "agent",
        f"this agent is {facts.agent_version or 'of an unknown version'}, the oldest allowed is "
        f"{requires.agent_min or 'any'}",
        *_unless(is_met, Reason.AGENT_TOO_OLD),
    )


def _numbers(version: str) -> tuple[int, int, int] | None:
    """Read the numbers of a version; what follows them (``.dev0``, ``rc1``) does not count."""
    match = _NUMBERS.match(version)
    return None if match is None else (int(match[1]), int(match[2]), int(match[3] or 0))


def _unless(is_met: bool, reason: Reason) -> tuple[Reason, ...]:  # noqa: FBT001 - reads as prose
    return () if is_met else (reason,)


def _shown(value: str | None) -> str:
    return "not set" if value is None else repr(value)
