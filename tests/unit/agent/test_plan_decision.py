"""Each reason by which a device does or does not do what a plan says."""

from typing import Any

import pytest

from agent.plan.decision import Decision
from agent.plan.explanation import explain
from agent.plan.reasons import REFUSALS, Reason
from fleet.documents.cohort import bucket
from fleet.documents.plan import Plan, Stage
from tests.agent_plan_cases import CASES
from tests.agent_plans import DAY_S, NOW_S, decided, device, plan, release


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_reason_leads_to_its_action(case: tuple[dict[str, Any], str, Reason]) -> None:
    given, kind, reason = case
    decision = decided(**given)
    assert (decision.action.kind, decision.action.reason) == (kind, reason)


def test_every_reason_has_a_case() -> None:
    assert {reason for _, _, reason in CASES.values()} | {Reason.NO_PLAN} == set(Reason)


def test_refusals_never_wait() -> None:
    for _, kind, reason in CASES.values():
        assert kind == "none" or reason not in REFUSALS


def _explained(decision: Decision, order: Plan) -> str:
    return "\n".join(explain(order, decision, "digits"))


def test_the_explanation_has_the_numbers_of_every_check() -> None:
    order = plan(stages=(Stage(permyriad=500), Stage(permyriad=10_000)))
    name = next(f"d{n}" for n in range(99_999) if bucket("salt", f"d{n}") == 4711)
    decision = decided(device(device=name, on_battery=True), order, needed_bytes=5 << 20)
    text = _explained(decision, order)
    assert "digits: none because bucket 4711 is not below 500 permyriad of stage 0" in text
    assert "- cohort: bucket 4711 is not below 500 permyriad" in text
    assert text.count("<- decides") == 1
    assert "5 MiB are needed" in text
    assert "- battery: the device is on battery" in text
    assert "counter 2, the lowest allowed is 0" in text
    assert "rollout digits-2, sequence 1, install version 2, stage 0 of 2" in text


def test_the_explanation_says_where_there_is_no_plan() -> None:
    assert explain(None, None, "digits") == ["digits: none, because the channel has no plan for it"]


def test_a_refusal_is_told_to_the_fleet_and_the_explanation_says_so() -> None:
    decision = decided(device(active=3))
    assert "refuses it" in _explained(decision, plan())
    assert "refuses it" not in _explained(decided(), plan())


def test_a_decision_says_when_to_look_again() -> None:
    held = decided(device(paused_until_s=NOW_S + 77))
    assert held.again_at_s == NOW_S + 77
    early = decided(
        device(changes={"digits": (NOW_S - 60, NOW_S - 30)}), signed=release(changes_per_day_max=1)
    )
    assert early.again_at_s == NOW_S - 30 + DAY_S
    ceiling = decided(
        device(stages_seen={0: NOW_S - 100}),
        signed=release(first_stage_permyriad_max=0, stage_s_min=3600),
    )
    assert ceiling.again_at_s == NOW_S + 3500
    assert decided(device(override="hold")).again_at_s is None
