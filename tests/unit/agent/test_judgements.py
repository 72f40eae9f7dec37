"""What a fleet judges a rollout by: read from the history, bounded, and never invented."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.update.judgements import BYTES_MAX, Judgement, judgements_of, newest
from edge_runtime.protocol.release_schemas import Transition

NUMBERS = {"blocks": 12, "agreement": 1.0, "latency_ratio": 0.98}


def row(number: int, step: str, to: str, event: str, **more: Any) -> Transition:  # noqa: ANN401
    return Transition(
        **{
            "id": number,
            "release_id": 7,
            "model": "m",
            "version": 2,
            "from_state": step,
            "to_state": to,
            "event": event,
            **more,
        }
    )


PASSED = {"numbers": {**NUMBERS, "is_proven": True}}
UNSURE = {"numbers": {**NUMBERS, "is_proven": False}}


def test_each_step_that_ended_is_told_once_in_order_and_nothing_of_other_releases() -> None:
    rows = [
        row(9, "probation", "committed", "passed", **UNSURE),
        row(8, "canary", "canary", "died", cause="crashed"),
        row(7, "canary", "probation", "done", **PASSED),
        row(6, "shadowing", "canary", "passed", **PASSED, wall_s=5.0),
        row(5, "staged", "shadowing", "begin"),
        row(4, "self-testing", "staged", "passed", numbers={"goldens": 3}),
        row(3, "", "installed", "begin"),
        row(2, "shadowing", "canary", "passed", release_id=1, **PASSED),
    ]
    found = judgements_of(rows, 7)
    assert [(each.step, each.to, each.verdict) for each in found] == [
        ("self-testing", "staged", "pass"),
        ("shadowing", "canary", "pass"),
        ("canary", "probation", "pass"),
        ("probation", "committed", "inconclusive"),
    ]
    assert found[1].numbers == PASSED["numbers"]
    assert found[1].at_s == 5.0


@pytest.mark.parametrize(
    ("event", "cause", "verdict"),
    [
        ("roll-back", "verdict", "fail"),
        ("roll-back", "errors", "fail"),
        ("roll-back", "crashed", "fail"),
        ("roll-back", "deadline", "inconclusive"),
        ("roll-back", "aborted", ""),
        ("roll-back", "operator", ""),
        ("promote", "", ""),
        ("first", "", ""),
        ("no-room", "", ""),
    ],
)
def test_a_verdict_is_the_evidences_and_an_order_is_none(
    event: str, cause: str, verdict: str
) -> None:
    (found,) = judgements_of([row(1, "canary", "x", event, cause=cause)], 7)
    assert (found.verdict, found.cause) == (verdict, cause)


def test_a_failed_self_test_is_a_verdict() -> None:
    (found,) = judgements_of([row(1, "self-testing", "failed", "failed", cause="self-test")], 7)
    assert found.verdict == "fail"


@given(st.integers(0, 40), st.integers(0, 4000))
def test_judgements_never_outgrow_a_report_and_the_newest_are_kept(count: int, size: int) -> None:
    rows = [
        row(number, "canary", "canary", "passed", reason="x" * 5000, numbers={"n": "y" * size})
        for number in range(count)
    ]
    found = judgements_of(rows, 7)
    assert len(msgspec.json.encode(found)) <= BYTES_MAX + 2
    every = [Judgement(step=str(number), to="") for number in range(count)]
    kept = newest(every, size)
    assert kept == every[count - len(kept) :]
