"""What ``wrk`` printed is read in full; a refusal counts where it must."""

from pathlib import Path

import pytest

from benchmarks.load import Tally, parse, script
from benchmarks.workload import Workload, WrongAnswerError

PRINTED = (
    "Running 2s test @ http://127.0.0.1:8000\n"
    'RESULT {"requests":2000,"duration_us":2000000,"p50_us":500.0,"p99_us":2500.0,'
    '"refused":%d,"failed":%d}\n'
)


def tally(refused: int = 0, failed: int = 0) -> Tally:
    return parse(PRINTED % (refused, failed))


def test_answers_per_second_and_percentiles_are_read() -> None:
    sample = tally().sample()
    assert (sample.per_s, sample.p50_ms, sample.p99_ms) == (1000, 0.5, 2.5)


@pytest.mark.parametrize("bad", [tally(refused=1), tally(failed=1)])
def test_a_load_that_was_refused_something_is_no_measurement(bad: Tally) -> None:
    with pytest.raises(WrongAnswerError, match="not every answer was a success"):
        bad.sample()


def test_goodput_leaves_refusals_out() -> None:
    overloaded = tally(refused=1800)
    assert overloaded.per_s == 1000
    assert overloaded.good_per_s == 100


def test_silence_is_told_with_what_wrk_complained_of() -> None:
    with pytest.raises(WrongAnswerError, match="unable to connect"):
        parse("", "unable to connect to 127.0.0.1:8000 Connection refused")


def test_pauses_are_spread_around_their_mean(tmp_path: Path) -> None:
    workload = Workload("digits", "json", {"A": "b"}, (tmp_path / "0.body",), ({},))
    assert "delay" not in script(workload, 0)
    assert "function delay() return math.random(0, 256) end" in script(workload, 128)
