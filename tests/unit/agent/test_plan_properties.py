"""What holds for every plan that anybody can sign, and every device."""

import dataclasses
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agent.plan.decision import decide
from agent.plan.explanation import explain
from agent.plan.facts import DeviceFacts, ModelFacts
from agent.plan.guard_rails import stage_view
from agent.plan.reasons import Reason
from agent.plan.spans import duration
from fleet.documents.cohort import admits, bucket, default_salt
from fleet.documents.plan import Plan, Plans, Stage
from fleet.documents.release import GuardRails, ReleaseFacts
from tests.agent_plans import (
    DAY_S,
    NOW_S,
    SHA,
    any_devices,
    any_documents,
    any_float,
    any_plans,
    any_releases,
    decided,
    device,
    plan,
    plans,
    release,
)

_ACTS = {"install", "revert", "abort"}
shares = st.lists(st.integers(0, 10_000), min_size=1, max_size=5).map(sorted)
device_names = st.integers(0, 99_999).map("d{}".format)


@settings(max_examples=500, deadline=None)
@given(
    facts=any_devices,
    order=any_plans,
    document=any_documents,
    signed=any_releases,
    back=any_releases,
    needed=st.integers(-5, 2**40),
)
def test_any_plan_gets_an_answer_that_is_explained_and_always_the_same(
    *,
    facts: DeviceFacts,
    order: Plan,
    document: Plans,
    signed: ReleaseFacts | None,
    back: ReleaseFacts | None,
    needed: int,
) -> None:
    first = decide(facts, order, document, signed, SHA, back=back, needed_bytes=needed)
    again = decide(facts, order, document, signed, SHA, back=back, needed_bytes=needed)
    assert repr(first) == repr(again)
    failed = [finding for finding in first.chain if not finding.passed]
    if first.action.kind in _ACTS:
        assert not failed
    else:
        assert failed[0].reason is first.action.reason
        assert failed[0].sentence == first.action.text
        assert first.action.version is None
        assert (first.action.kind == "hold") == failed[0].waits
    assert all(finding.passed == (finding.reason is None) for finding in first.chain)
    lines = explain(order, first, order.model)
    assert first.action.reason in lines[0]
    assert len([line for line in lines if "decides" in line]) == (1 if failed else 0)


@given(any_float)
def test_every_length_of_time_can_be_said(length_s: float) -> None:
    assert duration(length_s)


@given(shares, st.text("abc", min_size=1, max_size=3), device_names)
def test_a_wider_stage_holds_every_device_of_a_narrower_one(
    permyriads: list[int], salt: str, name: str
) -> None:
    stages = tuple(Stage(permyriad=each) for each in permyriads)
    taken = [
        decided(device(device=name), plan(salt=salt, stages=stages, stage=stage)).action.kind
        == "install"
        for stage in range(len(stages))
    ]
    assert taken == sorted(taken)
    assert taken == [
        admits(plan(salt=salt, stages=stages, stage=stage), name) for stage in range(len(stages))
    ]


@given(any_devices, any_plans, any_documents, any_releases)
@settings(max_examples=300, deadline=None)
def test_nobody_acts_on_a_plan_that_is_older_than_its_release_allows(
    facts: DeviceFacts, order: Plan, document: Plans, signed: ReleaseFacts | None
) -> None:
    assume(signed is not None)
    assert signed is not None
    signed = msgspec.structs.replace(signed, model=order.model, version=order.version)
    most_s = signed.guard_rails.plan_age_s_max
    decision = decide(facts, order, document, signed, SHA)
    if most_s != 0 and not facts.now_s - document.issued_s <= most_s:
        assert decision.action.kind not in _ACTS


@given(st.floats(0, 1e7), st.floats(1, 1e6))
def test_the_age_that_is_allowed_is_met_to_the_second(age_s: float, most_s: float) -> None:
    decision = decided(
        document=plans(plan(), issued_s=NOW_S - age_s), signed=release(plan_age_s_max=most_s)
    )
    kept = NOW_S - (NOW_S - age_s) <= most_s
    assert decision.action.kind == ("install" if kept else "hold")
    assert kept or decision.action.reason is Reason.PLAN_TOO_OLD


@given(
    known_s=st.floats(0, 1e7),
    most_s=st.floats(1, 1e6),
    issued_s=any_float,
    is_trusted=st.booleans(),
)
def test_nobody_acts_on_a_plan_that_is_known_for_longer_than_its_release_allows(
    *, known_s: float, most_s: float, issued_s: float, is_trusted: bool
) -> None:
    """Whatever date it has, and whatever that did to the clock."""
    decision = decided(
        device(plan_known_s=known_s, is_clock_trusted=is_trusted),
        document=plans(plan(), issued_s=issued_s),
        signed=release(plan_age_s_max=most_s),
    )
    if known_s > most_s:
        assert decision.action.kind == "hold"


@settings(max_examples=200, deadline=None)
@given(
    now_s=any_float,
    is_trusted=st.booleans(),
    seen_for_s=st.floats(0, 8000),
    changed_for_s=st.floats(0, 2 * DAY_S),
    begun_s=st.none() | any_float,
    order=st.sampled_from(("install", "revert")),
)
def test_no_time_of_day_and_no_date_in_a_plan_moves_a_guard_rail(
    *,
    now_s: float,
    is_trusted: bool,
    seen_for_s: float,
    changed_for_s: float,
    begun_s: float | None,
    order: Any,  # noqa: ANN401 - a literal
) -> None:
    """On a device without a clock both are what a thief of the online key wants them to be."""

    def judged(now_s: float, begun_s: float | None, *, is_trusted: bool) -> list[tuple[str, bool]]:
        facts = device(
            now_s=now_s,
            elapsed_s=1e6,
            is_clock_trusted=is_trusted,
            stages_seen={0: 1e6 - seen_for_s, 1: 1e6},
            changes={"digits": (1e6 - changed_for_s,)},
            active=2 if order == "revert" else 1,
            previous=1,
        )
        stages = tuple(Stage(permyriad=each, begun_s=begun_s) for each in (0, 10_000))
        wanted = plan(stages=stages, stage=1, order=order, revert_to=1)
        signed = release(stage_s_min=3600.0, changes_per_day_max=1, first_stage_permyriad_max=0)
        chain = decided(facts, wanted, signed).chain
        rails = {"stage", "ceiling", "changes"}
        return [(each.name, each.passed) for each in chain if each.name in rails]

    assert judged(now_s, begun_s, is_trusted=is_trusted) == judged(NOW_S, None, is_trusted=True)


@settings(max_examples=300, deadline=None)
@given(
    ceiling=st.integers(0, 10_000),
    name=device_names,
    salt=st.text("abcdef", min_size=1, max_size=4),
    permyriads=st.lists(st.integers(0, 10_000), min_size=1, max_size=4),
    is_named=st.booleans(),
    seen_for_s=st.floats(0, 3599),
    stage=st.integers(0, 3),
)
def test_no_plan_goes_above_the_ceiling_while_the_first_stage_lasts(
    *,
    ceiling: int,
    name: str,
    salt: str,
    permyriads: list[int],
    is_named: bool,
    seen_for_s: float,
    stage: int,
) -> None:
    """Whatever a thief of the online key signs: salts, names, stages."""
    order = plan(
        salt=salt,
        stages=tuple(Stage(permyriad=each, begun_s=0.0) for each in sorted(permyriads)),
        stage=min(stage, len(permyriads) - 1),
        devices=(name,) if is_named else (),
    )
    first_s = NOW_S - seen_for_s
    facts = device(device=name, stages_seen=dict.fromkeys(range(4), first_s))
    decision = decided(facts, order, release(first_stage_permyriad_max=ceiling, stage_s_min=3600.0))
    if decision.action.kind == "install":
        assert ceiling == 10_000 or bucket(default_salt("digits", 2), name) < ceiling
    elif decision.action.reason is Reason.ABOVE_CEILING and ceiling < 10_000:
        assert decision.again_at_s == pytest.approx(first_s + 3600)


def test_a_ceiling_of_five_percent_holds_five_percent_of_a_fleet() -> None:
    order = plan(stages=(Stage(permyriad=10_000),))
    signed = release(first_stage_permyriad_max=500, stage_s_min=3600.0)
    taken = sum(
        decided(device(device=f"d{n}"), order, signed).action.kind == "install" for n in range(2000)
    )
    assert 60 <= taken <= 140


def test_a_first_stage_below_the_ceiling_is_as_large_as_it_says_with_the_release_s_salt() -> None:
    order = plan(salt=default_salt("digits", 2), stages=(Stage(permyriad=500),))
    signed = release(first_stage_permyriad_max=1000, stage_s_min=3600.0)
    for n in range(500):
        wanted = admits(order, f"d{n}")
        assert (decided(device(device=f"d{n}"), order, signed).action.kind == "install") == wanted


@given(
    st.lists(st.tuples(st.integers(0, 4), st.floats(0, 5000)), min_size=1, max_size=12),
    st.floats(1, 5000),
)
def test_no_stage_lasts_shorter_than_its_release_says(
    jumps: list[tuple[int, float]], least_s: float
) -> None:
    """However fast the plan's stage rises, the one that counts takes its time on this device."""
    stages = tuple(Stage(permyriad=each) for each in (10, 20, 30, 40, 50))
    rails = GuardRails(stage_s_min=least_s)
    now_s, seen = NOW_S, dict[int, float]()
    begun: dict[int, float] = {}
    for stage, later_s in jumps:
        now_s += later_s
        for each in range(stage + 1):
            seen.setdefault(each, now_s)
        facts = device(now_s=now_s, stages_seen=dict(seen))
        view = stage_view(facts, plan(stages=stages, stage=stage), rails)
        assert view.index <= stage
        for each in range(view.index + 1):
            begun.setdefault(each, now_s)
        for each in range(1, view.index + 1):
            assert now_s >= begun[0] + each * least_s - 1e-3


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 4),
    st.lists(
        st.tuples(
            st.sampled_from(("install", "revert")), st.integers(1, 9), st.floats(0, DAY_S / 2)
        ),
        max_size=40,
    ),
)
def test_a_stolen_online_key_cannot_flap(most: int, orders: list[tuple[Any, int, float]]) -> None:
    """Every order it can sign, one after the other: at most so many changes, and one way back."""
    now_s, active, previous = NOW_S, 1, None
    changes: list[float] = []
    installs: list[float] = []
    for kind, version, later_s in orders:
        now_s += later_s
        facts = dataclasses.replace(
            device(now_s=now_s, active=active, previous=previous),
            changes={"digits": tuple(changes)},
        )
        order = plan(version=version, order=kind, revert_to=previous, sequence=1)
        decision = decided(
            facts,
            order,
            release(version=version, counter=version, changes_per_day_max=most),
            document=plans(order, issued_s=now_s),
        )
        if decision.action.kind not in {"install", "revert"}:
            continue
        changes.append(now_s)
        if decision.action.kind == "install":
            installs.append(now_s)
            active, previous = version, active
        else:
            assert previous is not None
            active, previous = previous, None
    for moments, limit in ((installs, most), (changes, most + 1)):
        for at_s in moments:
            assert len([each for each in moments if at_s - DAY_S < each <= at_s]) <= limit


@given(any_devices, any_plans, any_documents, any_releases)
@settings(max_examples=300, deadline=None)
def test_what_is_active_is_not_installed_again(
    facts: DeviceFacts, order: Plan, document: Plans, signed: ReleaseFacts | None
) -> None:
    known = facts.models.get("digits", ModelFacts())
    facts = dataclasses.replace(
        facts, models={order.model: dataclasses.replace(known, active=order.version)}
    )
    assert decide(facts, order, document, signed, SHA).action.kind != "install"


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_nothing_below_the_highest_min_counter_is_ever_installed(
    counter: int, own_floor: int, seen_floor: int
) -> None:
    decision = decided(
        device(min_counter=seen_floor), signed=release(counter=counter, min_counter=own_floor)
    )
    allowed = counter >= max(own_floor, seen_floor)
    assert (decision.action.kind == "install") == allowed
    assert allowed or decision.action.reason is Reason.BELOW_MIN_COUNTER
