"""Which plans may be signed: those that devices would follow, and none that goes back."""

from typing import Any

import msgspec
import pytest

from fleet.documents.plan import Plan, Stage
from fleet.documents.release import GuardRails, ReleaseFacts
from fleet.errors import RefusedError
from fleet.repository.plan_checks import check_plan_for, with_begun
from fleet.repository.release_checks import (
    check_files,
    check_order,
    least_counter,
    next_counter,
)

NOW = 1_000_000.0


def _facts(version: int, **fields: Any) -> ReleaseFacts:  # noqa: ANN401
    defaults: dict[str, Any] = {
        "model": "m",
        "version": version,
        "counter": version,
        "created_s": 0.0,
    }
    return ReleaseFacts(**(defaults | fields))


def _releases(*facts: ReleaseFacts) -> dict[int, ReleaseFacts]:
    return {each.version: each for each in facts}


def _plan(**fields: Any) -> Plan:  # noqa: ANN401
    defaults: dict[str, Any] = {
        "rollout": "r",
        "sequence": 2,
        "model": "m",
        "version": 2,
        "salt": "s",
        "stages": (
            Stage(permyriad=100, duration_s=3600.0),
            Stage(permyriad=1000, duration_s=3600.0),
            Stage(permyriad=10_000),
        ),
    }
    return Plan(**(defaults | fields))


def _before(**fields: Any) -> Plan:  # noqa: ANN401
    """Give the plan before, whose stages began an hour apart up to now."""
    plan = _plan(sequence=1, **fields)
    return with_begun(plan, None, NOW)


def _check(plan: Plan, before: Plan | None = None, rails: GuardRails | None = None) -> None:
    releases = _releases(_facts(1), _facts(2, guard_rails=rails or GuardRails()))
    check_plan_for(plan, "stable", before, releases, NOW)


def test_a_first_plan_for_a_released_version_is_good() -> None:
    _check(_plan())
    _check(_plan(order="revert", revert_to=1))


@pytest.mark.parametrize("fields", [{"version": 3}, {"order": "revert", "revert_to": 7}])
def test_a_version_that_is_not_released_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match=r"is not released \(versions: 1, 2\)"):
        _check(_plan(**fields))


@pytest.mark.parametrize("fields", [{"version": 1}, {"order": "revert", "revert_to": 1}])
def test_a_version_below_the_least_counter_is_refused(fields: dict[str, Any]) -> None:
    releases = _releases(_facts(1), _facts(2, min_counter=2))
    with pytest.raises(RefusedError, match="no device goes below 2 any more"):
        check_plan_for(_plan(**fields), "stable", None, releases, NOW)


@pytest.mark.parametrize("sequence", [1, 2])
def test_a_sequence_that_does_not_rise_is_refused(sequence: int) -> None:
    before = msgspec.structs.replace(_before(), sequence=2)
    with pytest.raises(RefusedError, match=f"the sequence {sequence} does not rise above 2"):
        _check(_plan(sequence=sequence), before)


@pytest.mark.parametrize("fields", [{"version": 1}, {"salt": "other"}])
def test_a_rollout_keeps_its_version_and_its_salt(fields: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match="give a new rollout a new name"):
        _check(_plan(**fields), _before())


def test_another_rollout_may_choose_anew() -> None:
    _check(_plan(rollout="other", version=1, salt="other"), _before())


def test_a_channel_that_the_release_does_not_allow_is_refused() -> None:
    with pytest.raises(RefusedError, match="for the channels canary only, not for stable"):
        _check(_plan(), rails=GuardRails(channels=("canary",)))
    _check(_plan(), rails=GuardRails(channels=("canary", "stable")))


def test_a_first_stage_above_its_ceiling_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"100 of 10,000 devices, .* at most 99"):
        _check(_plan(), rails=GuardRails(first_stage_permyriad_max=99))
    _check(_plan(), rails=GuardRails(first_stage_permyriad_max=100))


def test_a_stage_that_is_too_short_is_refused_and_the_last_may_be_any() -> None:
    with pytest.raises(RefusedError, match=r"stage 0 lasts 3600 s, .* at least 3601 s"):
        _check(_plan(), rails=GuardRails(stage_s_min=3601.0))
    _check(_plan(), rails=GuardRails(stage_s_min=3600.0))


@pytest.mark.parametrize(("stage", "before"), [(1, None), (2, None), (2, 0)])
def test_no_stage_is_leapt_over_where_stages_must_last(stage: int, before: int | None) -> None:
    earlier = None if before is None else _before(stage=before)
    rails = GuardRails(stage_s_min=1.0)
    with pytest.raises(RefusedError, match=f"it leaps to stage {stage}"):
        _check(_plan(stage=stage), earlier, rails)


def test_a_new_rollout_begins_with_its_first_stage() -> None:
    rails = GuardRails(stage_s_min=1.0)
    with pytest.raises(RefusedError, match="go to stage 0 first"):
        _check(_plan(rollout="other", stage=1), _before(stage=2), rails)


def test_a_stage_lasts_as_long_as_the_release_wants() -> None:
    rails = GuardRails(stage_s_min=3600.0)
    begun = with_begun(_plan(sequence=1), None, NOW - 3599.0)
    with pytest.raises(RefusedError, match="stage 1 may begin in 1 s"):
        _check(_plan(stage=1), begun, rails)
    _check(_plan(stage=1), with_begun(_plan(sequence=1), None, NOW - 3600.0), rails)


def test_a_time_that_the_new_plan_claims_does_not_count() -> None:
    claimed = (Stage(permyriad=100, duration_s=3600.0, begun_s=0.0), *_plan().stages[1:])
    with pytest.raises(RefusedError, match="has not lasted"):
        _check(_plan(stage=1, stages=claimed), _before(), GuardRails(stage_s_min=3600.0))


def test_a_stage_that_stays_and_an_order_to_stop_wait_for_nothing() -> None:
    rails = GuardRails(stage_s_min=3600.0)
    _check(_plan(), _before(), rails)
    for order in ("hold", "abort"):
        _check(_plan(order=order, stage=1), _before(), rails)


def test_stages_keep_the_time_at_which_they_began() -> None:
    first = with_begun(_plan(sequence=1), None, 10.0)
    assert [stage.begun_s for stage in first.stages] == [10.0, None, None]
    second = with_begun(_plan(stage=1), first, 20.0)
    assert [stage.begun_s for stage in second.stages] == [10.0, 20.0, None]
    other = with_begun(_plan(rollout="other"), second, 30.0)
    assert [stage.begun_s for stage in other.stages] == [30.0, None, None]


def test_versions_and_counters_only_rise() -> None:
    there = _releases(_facts(1), _facts(5, counter=7, min_counter=1))
    check_order(_facts(6, counter=8, min_counter=1), there)
    check_order(_facts(1), {})
    assert next_counter(there) == 8
    assert next_counter({}) == 1
    assert least_counter(there.values()) == 1
    with pytest.raises(RefusedError, match="comes before version 5"):
        check_order(_facts(4, counter=8, min_counter=1), there)
    with pytest.raises(RefusedError, match="the counter 7 does not rise above 7"):
        check_order(_facts(6, counter=7, min_counter=1), there)
    with pytest.raises(RefusedError, match="min_counter 0 goes below 1"):
        check_order(_facts(6, counter=8), there)


def test_files_that_could_be_no_artifacts_are_refused() -> None:
    check_files("m", ["a/b/c/d/e/f/g/h", "x.chunks", "y" * 183])
    with pytest.raises(RefusedError, match="lies 9 folders deep"):
        check_files("m", ["a/b/c/d/e/f/g/h/i"])
    with pytest.raises(RefusedError, match="bytes long"):
        check_files("m", ["ü" * 92])
    with pytest.raises(RefusedError, match="the chunk index of x"):
        check_files("m", ["x", "x.chunks"])
