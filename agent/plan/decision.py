"""From a verified plan and what is known of this device to one action, with the reasons.

``decide`` is pure and takes any plan: it is asked before the download and again before the
hand-over, and whatever the online key signs, it answers. All checks of an order are made; the
first that fails decides, and the rest are there to be read.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from agent.plan.facts import DeviceFacts, ModelFacts
from agent.plan.findings import Finding, found
from agent.plan.guard_rails import check_changes, check_channel, check_cohort
from agent.plan.origin import check_age, check_fleet, check_plans_channel, check_release
from agent.plan.owner import (
    check_clone,
    check_memory_of_failures,
    check_override,
    check_pause,
    check_under_way,
)
from agent.plan.reasons import Reason
from agent.plan.requirements import (
    check_counter,
    check_downgrade,
    check_filter,
    check_requirements,
)
from agent.plan.resources import check_battery, check_disk, check_link
from agent.plan.windows import check_window
from fleet.documents.plan import Plan, Plans
from fleet.documents.release import GuardRails, ReleaseFacts, Requires

Kind = Literal["install", "revert", "abort", "hold", "none"]


@dataclass(frozen=True, kw_only=True)
class Action:
    """What the device does about one plan.

    Attributes:
        kind: ``hold``: not now, what is under way waits where it is. ``none``: nothing; what is
            under way and not handed over ends.
        version: That is installed or aborted, or that ``revert`` leads to; ``None`` for the others.
        reason: Of the finding that decided.
        text: The same for people.
    """

    kind: Kind
    version: int | None
    reason: Reason
    text: str


@dataclass(frozen=True, kw_only=True)
class Decision:
    """An action, and every check that led to it.

    Attributes:
        action: What to do.
        chain: The checks in their order; the first that did not pass decided.
        again_at_s: When it may be another one without another plan, seconds since 1970; ``None``:
            nobody knows.
    """

    action: Action
    chain: tuple[Finding, ...]
    again_at_s: float | None = None


def decide(
    facts: DeviceFacts,
    plan: Plan,
    plans: Plans,
    release: ReleaseFacts | None,
    manifest_sha256: str,
    *,
    back: ReleaseFacts | None = None,
    needed_bytes: int = 0,
) -> Decision:
    """Decide what this device does about a plan.

    Args:
        facts: This device, now.
        plan: The plan; of ``plans``.
        plans: The verified document that it stands in.
        release: What the offline key signed for the plan's version; ``None``: nothing.
        manifest_sha256: Of that release.
        back: The same for the version that an order to revert leads to; ``None``: it is no signed
            release.
        needed_bytes: Room on the disk that the rest of the update takes; 0: not known yet.
    """
    model = facts.model(plan.model)
    known = release if check_release(plan, release).passed else None
    start = [check_fleet(facts, plans), check_plans_channel(facts, plans)]
    if plan.order == "hold":
        return _held(start)
    rails = GuardRails() if known is None else known.guard_rails
    if plan.order == "abort":
        return _abort(model, plan, [*start, check_age(facts, plans, rails)])
    if plan.order == "revert":
        start.append(check_age(facts, plans, rails))
        return _revert(facts, model, plan, start, release=known, back=back)
    requires = Requires() if known is None else known.requires
    chain = [
        *start,
        check_release(plan, release),
        _is_news(model, plan),
        check_age(facts, plans, rails),
        check_override(model),
        check_pause(facts),
        check_clone(facts),
        check_under_way(model, plan),
        *check_requirements(facts, requires),
        check_counter(None if known is None else known.counter, known, model),
        check_downgrade(model, plan),
        check_channel(plans.channel, rails),
        check_filter(facts, plan),
        *check_cohort(facts, plan, rails),
        *check_memory_of_failures(model, plan, manifest_sha256),
        _changes(facts, plan, rails, is_back=False),
        check_window(facts, plan.window),
        *_resources(facts, model, plan, needed_bytes),
    ]
    done = f"version {plan.version} of {plan.model} is to be installed: nothing speaks against it"
    return _concluded(chain, "install", plan.version, Reason.INSTALL, done)


def _is_news(model: ModelFacts, plan: Plan) -> Finding:
    if model.active == plan.version:
        text = f"version {plan.version} is active already"
        if model.disabled:
            text += f", though it answers nobody: {model.disabled}"
        return found("active", text, Reason.ALREADY_ACTIVE)
    active = "nothing" if model.active is None else f"version {model.active}"
    return found("active", f"{active} is active, the plan wants version {plan.version}")


def _changes(facts: DeviceFacts, plan: Plan, rails: GuardRails, *, is_back: bool) -> Finding:
    model = facts.model(plan.model)
    is_same = model.under_way == plan.version and model.is_way_back == is_back
    if model.is_handed_over and is_same:
        return found("changes", "this change has been counted")
    return check_changes(facts, plan, rails, is_back=is_back)


def _resources(
    facts: DeviceFacts, model: ModelFacts, plan: Plan, needed_bytes: int
) -> list[Finding]:
    if model.is_downloaded and model.under_way == plan.version:
        return [found("download", "everything is on this device"), check_battery(facts)]
    return [check_disk(facts, needed_bytes), check_battery(facts), check_link(facts)]


def _held(start: list[Finding]) -> Decision:
    text = "the fleet holds the rollout: nobody begins or goes further"
    chain = [*start, found("order", text, Reason.ORDER_HOLD, waits=True)]
    return _concluded(chain, "hold", None, Reason.ORDER_HOLD, text)


def _abort(model: ModelFacts, plan: Plan, start: list[Finding]) -> Decision:
    chain = [*start, found("order", f"the fleet aborts rollout {plan.rollout}")]
    name = f"version {plan.version} of {plan.model}"
    if model.under_way == plan.version and model.under_way_rollout:
        chain.append(found("under-way", f"{name} is under way"))
    else:
        chain.append(
            found(
                "under-way",
                f"{name} is not under way by order of the fleet; what is committed stays",
                Reason.NOTHING_UNDER_WAY,
            )
        )
    if model.is_handed_over:
        # Until then it is the agent's own business, which a person's hold is not about.
        chain.append(check_override(model))
    return _concluded(chain, "abort", plan.version, Reason.ABORT, f"{name} is to end here")


def _revert(
    facts: DeviceFacts,
    model: ModelFacts,
    plan: Plan,
    start: list[Finding],
    *,
    release: ReleaseFacts | None,
    back: ReleaseFacts | None,
) -> Decision:
    """Say what an order to revert means here. It is urgent: no window, no cohort, no battery."""
    order = found("order", f"the fleet takes version {plan.version} of {plan.model} back")
    is_arriving = model.under_way == plan.version and not model.is_way_back
    if model.active != plan.version and is_arriving:
        return _abort(model, plan, [*start, order])
    rails = GuardRails() if release is None else release.guard_rails
    to = model.previous if plan.revert_to is None else plan.revert_to
    known = back if back is not None and (back.model, back.version) == (plan.model, to) else None
    chain = [
        *start,
        order,
        _is_on(model, plan),
        _way_back(model, to),
        check_counter(None if known is None else known.counter, release, model),
        check_override(model),
        check_pause(facts),
        _changes(facts, plan, rails, is_back=True),
    ]
    text = f"version {plan.version} of {plan.model} is to go back to version {to}"
    return _concluded(chain, "revert", to, Reason.REVERT, text)


def _is_on(model: ModelFacts, plan: Plan) -> Finding:
    if model.active == plan.version:
        return found("active", f"version {plan.version} is active")
    active = "nothing" if model.active is None else f"version {model.active}"
    return found("active", f"{active} is active: nothing to take back", Reason.NOT_ON_VERSION)


def _way_back(model: ModelFacts, to: int | None) -> Finding:
    if to is not None and to == model.previous:
        return found("previous", f"the previous version is {to}")
    previous = "there is none" if model.previous is None else f"it is {model.previous}"
    return found(
        "previous",
        f"the plan goes back to version {'none' if to is None else to}, the runtime only to its "
        f"previous one, and {previous}",
        Reason.NO_WAY_BACK,
    )


def _concluded(
    chain: Iterable[Finding], kind: Kind, version: int | None, reason: Reason, text: str
) -> Decision:
    links = tuple(chain)
    against = next((finding for finding in links if not finding.passed), None)
    if against is None or against.reason is None:
        return Decision(
            action=Action(kind=kind, version=version, reason=reason, text=text), chain=links
        )
    return Decision(
        action=Action(
            kind="hold" if against.waits else "none",
            version=None,
            reason=against.reason,
            text=against.sentence,
        ),
        chain=links,
        again_at_s=against.again_at_s if against.waits else None,
    )
