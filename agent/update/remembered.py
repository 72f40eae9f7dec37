"""What a decision needs to know of a model: from the runtime, and from agent.db."""

import dataclasses
from collections.abc import Iterable

from agent.plan.facts import ModelFacts
from agent.records.updates import INSTALL, REVERT, Update, Updates
from agent.update.standing import Standing
from agent.update.states import DOWNLOADED, FINAL, HANDED_OVER, UNSUCCESSFUL, State
from fleet.documents.plan import Plan


def model_facts(
    updates: Updates,
    standing: Standing,
    plan: Plan,
    *,
    min_counter: int,
    elapsed_s: float,
) -> ModelFacts:
    """Gather what is known of a plan's model, and remember that the plan was seen.

    Args:
        updates: What agent.db remembers.
        standing: Of the model in the runtime, asked now.
        plan: The plan that is decided about.
        min_counter: Highest of the model's signed releases, as far as they are known.
        elapsed_s: Now, by the counter that nobody outside can move.

    Raises:
        StateError: The disk fails.
    """
    rows = updates.of_model(plan.model)
    if plan.order in {"abort", "revert"}:
        # Its stages begin anew, should the fleet want it again.
        updates.times.forget_stages(plan.model, plan.version, plan.rollout)
        seen: dict[int, float] = {}
    else:
        seen = updates.times.see_stage(
            plan.model, plan.version, plan.rollout, plan.stage, elapsed_s
        )
    current = next(
        (row for row in rows if row.state not in FINAL and row.state != State.CANCELING), None
    )
    local = standing.under_way()
    own = {each.id for row in rows if (each := standing.passage(row)) is not None}
    is_persons = local is not None and not local.rollout and local.id not in own
    facts = ModelFacts(
        active=standing.active,
        active_digest=standing.running_digest,
        previous=standing.previous,
        disabled=standing.disabled,
        override=standing.override,
        override_reason=standing.override_reason,
        bad=standing.bad | frozenset(updates.bad(plan.model)),
        installed=standing.installed,
        min_counter=updates.raise_min_counter(plan.model, min_counter),
        stages_seen=seen,
        tried=tried(rows, standing.active),
        under_way=None if local is None or not is_persons else local.version,
        under_way_state="" if local is None else local.state,
    )
    return facts if current is None or is_persons else with_update(facts, current)


def with_update(facts: ModelFacts, current: Update) -> ModelFacts:
    """Add the agent's own update of the model.

    Args:
        facts: Of the model.
        current: Its update, not final and not canceled.
    """
    return dataclasses.replace(
        facts,
        under_way=current.version,
        under_way_state=current.state,
        under_way_rollout=current.rollout,
        is_handed_over=current.state in HANDED_OVER,
        is_downloaded=current.state in DOWNLOADED or current.kind == REVERT,
        is_way_back=current.kind == REVERT,
    )


def tried(rows: Iterable[Update], active: int | None) -> dict[tuple[str, int], int]:
    """Give the highest sequence of each rollout and version that ended without lasting success.

    Args:
        rows: Updates of one model.
        active: Version that answers now: another one that had succeeded has fallen back.
    """
    found: dict[tuple[str, int], int] = {}
    for row in rows:
        has_fallen = row.state == State.SUCCEEDED and row.kind == INSTALL and row.version != active
        # What is let go of because its time is over has ended already.
        if row.state in UNSUCCESSFUL or row.ending == State.TIMED_OUT or has_fallen:
            key = (row.rollout, row.version)
            found[key] = max(row.sequence, found.get(key, 0))
    return found
