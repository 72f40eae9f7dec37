"""Comparisons in a real process: both versions on the same inputs, and whose fault a death is."""

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_runtime.errors import ModelLoadError
from edge_runtime.release.trial import STARTS_MAX, Trial
from edge_runtime.release.trial_limits import Limits
from edge_runtime.release.trial_messages import Compared, Subject
from edge_runtime.tensors import Array
from tests import bad_models, models
from tests.loads import bare, load
from tests.trials import (
    DEVICE,
    LIMITS,
    MIB,
    active,
    children,
    feeds,
    let_hours_pass,
    on_x86,
    run,
    signature,
    subject,
    until,
)

HIGH = feeds(bad_models.EDGE + 1, 0.0)
LOW = feeds(1.0, 2.0)
Write = Callable[[Path], Path]


def compared(
    candidate: Subject,
    other: Subject,
    inputs: Sequence[dict[str, Array]],
    limits: Limits = LIMITS,
) -> list[Compared]:
    """Compare on each of the inputs, and see that nothing is left of it."""

    async def test() -> list[Compared]:
        trial = Trial(candidate, active=other, device=DEVICE, limits=limits)
        try:
            return [await trial.compare(each) for each in inputs]
        finally:
            await trial.close()
            assert not children()

    return run(test())


def beside(write: Write, tmp_path: Path, *inputs: dict[str, Array]) -> list[Compared]:
    """Compare a candidate with ``y = x + 1``."""
    return compared(subject(write(tmp_path / "m.onnx")), active(tmp_path), inputs)


def answered(found: Compared) -> None:
    assert (found.skipped, found.active_error, found.candidate_error, found.crashed) == ("",) * 4


# -- what is compared ----------------------------------------------------------------------------


def test_same_answers_agree_and_both_are_timed(tmp_path: Path) -> None:
    for found in beside(bad_models.good, tmp_path, LOW, HIGH, LOW):
        answered(found)
        assert found.comparison is not None
        assert found.comparison.agrees
        assert not found.comparison.is_bad
        assert 0 < found.active_s < 1
        assert 0 < found.candidate_s < 1
        assert found.cpu_s >= found.active_s + found.candidate_s


def test_other_answers_are_found_where_they_are_other(tmp_path: Path) -> None:
    low, high = beside(bad_models.other_answer, tmp_path, LOW, HIGH)
    answered(high)
    assert low.comparison is not None
    assert high.comparison is not None
    assert low.comparison.agrees
    assert not high.comparison.agrees
    assert high.comparison.outputs[0].max_abs_difference == 2 * bad_models.EDGE + 3


def test_not_a_number_is_found_where_it_is(tmp_path: Path) -> None:
    low, high = beside(bad_models.not_a_number, tmp_path, LOW, HIGH)
    assert low.comparison is not None
    assert high.comparison is not None
    assert (low.comparison.is_bad, high.comparison.is_bad) == (False, True)


def test_slower_candidate_is_seen(tmp_path: Path) -> None:
    def write(path: Path) -> Path:
        return bad_models.slow(path, layers=32)

    found = beside(write, tmp_path, *[LOW] * 9)
    ratios = sorted(each.candidate_s / each.active_s for each in found)
    assert ratios[4] > 5


def test_failure_of_the_candidate_is_not_the_active_ones(tmp_path: Path) -> None:
    low, high = beside(bad_models.fails_on_some, tmp_path, LOW, HIGH)
    answered(low)
    assert "Gather" in high.candidate_error
    assert (high.active_error, high.comparison, high.active_s) == ("", None, 0)


def test_failure_is_told_without_values_of_the_inputs(tmp_path: Path) -> None:
    path = models.gather(tmp_path / "m.onnx")
    candidate = subject(path, tensors=signature(path), goldens=None)
    index = {"x": np.array([123456], np.int64)}
    found = compared(candidate, candidate, [index])[0]
    assert found.candidate_error
    assert found.active_error
    assert "123456" not in msgspec.json.encode(found).decode()


@pytest.mark.parametrize("datatype", ["BOOL", "UINT8", "INT64", "FP16", "BF16", "FP64", "BYTES"])
def test_inputs_of_every_kind_arrive_as_they_were(datatype: str, tmp_path: Path) -> None:
    path = models.identity(tmp_path / "m.onnx", datatype)
    candidate = subject(path, tensors=signature(path), goldens=None)
    texts = np.array([["a", "ä"]], object)
    numbers = {"BOOL": "?", "UINT8": "u1", "INT64": "<i8", "FP16": "<f2", "FP64": "<f8"}
    array = texts if datatype == "BYTES" else np.ones((1, 2), numbers.get(datatype, "<u2"))
    found = compared(candidate, candidate, [{"x": array}])[0]
    answered(found)
    assert found.comparison is not None
    assert found.comparison.agrees


def test_large_inputs_arrive(tmp_path: Path) -> None:
    rows = np.arange(2 * 2**20, dtype=np.float32).reshape(-1, 2)
    found = beside(bad_models.good, tmp_path, {"x": rows})[0]
    answered(found)
    assert found.comparison is not None
    assert found.comparison.agrees


def test_inputs_that_suit_nobody_are_left_out(tmp_path: Path) -> None:
    first, second = beside(bad_models.good, tmp_path, {"other": LOW["x"]}, LOW)
    assert "the model takes ['x']" in first.skipped
    answered(second)


def test_comparisons_asked_for_at_once_are_made_one_after_the_other(tmp_path: Path) -> None:
    async def test() -> list[Compared]:
        candidate = subject(bad_models.good(tmp_path / "m.onnx"))
        trial = Trial(candidate, active=active(tmp_path), device=DEVICE, limits=LIMITS)
        found = await asyncio.gather(*(trial.compare(LOW) for _ in range(20)))
        await trial.close()
        return found

    for each in run(test()):
        answered(each)


def test_variant_that_the_self_test_chose_is_the_one_that_is_compared(tmp_path: Path) -> None:
    async def test() -> Compared:
        bad = bad_models.wrong_real_shape(tmp_path / "first.onnx")
        candidate = subject(bad, bad_models.good(tmp_path / "second.onnx"))
        trial = Trial(candidate, active=active(tmp_path), device=DEVICE, limits=LIMITS)
        found = await trial.self_test()
        assert found.variant == "second"
        try:
            return await trial.compare(LOW)
        finally:
            await trial.close()

    found = run(test())
    assert found.comparison is not None
    assert found.comparison.agrees


# -- deaths --------------------------------------------------------------------------------------


@on_x86
def test_crash_of_the_candidate_is_its_own_and_the_next_comparison_goes_on(tmp_path: Path) -> None:
    low, high, after = beside(bad_models.dies_on_some, tmp_path, LOW, HIGH, LOW)
    answered(low)
    assert high.crashed == "candidate"
    assert high.candidate_error == "crashed (SIGFPE: a division that the CPU refuses) while running"
    assert high.active_error == ""
    answered(after)


@on_x86
def test_crash_of_the_active_version_is_not_the_candidates(tmp_path: Path) -> None:
    dying = subject(bad_models.dies_on_some(tmp_path / "old" / "m.onnx"), goldens=None)
    good = subject(bad_models.good(tmp_path / "new" / "m.onnx"))
    found = compared(good, dying, [HIGH])[0]
    assert (found.crashed, found.candidate_error) == ("active", "")
    assert "SIGFPE" in found.active_error


@on_x86
def test_crash_while_the_candidate_is_loaded_is_its_own(tmp_path: Path) -> None:
    found = beside(bad_models.dies_at_load, tmp_path, LOW)[0]
    assert found.crashed == "candidate"
    assert "while loading the model" in found.candidate_error


def test_hang_is_the_fault_of_who_hangs(tmp_path: Path) -> None:
    candidate = subject(bad_models.hangs_on_some(tmp_path / "m.onnx"))

    async def test() -> Compared:
        trial = Trial(candidate, active=active(tmp_path), device=DEVICE, limits=LIMITS)
        answered(await trial.compare(LOW))
        work = asyncio.ensure_future(trial.compare(HIGH))
        await until(lambda: trial.doing == "candidate: running", LIMITS.compare_s)
        let_hours_pass()
        found = await work
        await trial.close()
        return found

    high = run(test())
    assert high.crashed == "candidate"
    words = f"hung: it came to no end within {LIMITS.compare_s:.0f} s"
    assert words in high.candidate_error
    assert not children()


def test_too_much_memory_is_the_fault_of_who_takes_it(tmp_path: Path) -> None:
    candidate = subject(bad_models.hog_at_run(tmp_path / "m.onnx"))
    limits = msgspec.structs.replace(LIMITS, memory_bytes=300 * MIB)
    found = compared(candidate, active(tmp_path), [LOW], limits)[0]
    assert found.crashed == "candidate"
    assert "needs more than" in found.candidate_error


def test_too_much_memory_for_both_together_is_the_fault_of_none(tmp_path: Path) -> None:
    candidate = subject(bad_models.hog_at_run(tmp_path / "m.onnx", mib=80))
    limits = msgspec.structs.replace(LIMITS, memory_bytes=250 * MIB)
    other = subject(bad_models.hog_at_run(tmp_path / "active" / "m.onnx", mib=80))
    inputs = [LOW] * 3
    for found in compared(candidate, other, inputs, limits):
        assert found.skipped or not found.crashed
    weighty = subject(bad_models.hog_at_load(tmp_path / "w" / "m.onnx", mib=160))
    found = compared(weighty, active(tmp_path), [LOW], limits)[0]
    assert "needs more than" in found.skipped


def test_process_that_somebody_kills_is_replaced_a_few_times(tmp_path: Path) -> None:
    async def test() -> list[Compared]:
        candidate = subject(bad_models.good(tmp_path / "m.onnx"))
        trial = Trial(candidate, active=active(tmp_path), device=DEVICE, limits=LIMITS)
        found = []
        for _ in range(STARTS_MAX):
            answered(await trial.compare(LOW))
            assert trial.pid is not None
            os.kill(trial.pid, signal.SIGKILL)
            found.append(await trial.compare(LOW))
        found.append(await trial.compare(LOW))
        await trial.close()
        return found

    *killed, last = run(test())
    for each in killed:
        assert "was killed by the system" in each.skipped
        assert not each.crashed  # nothing was running
    assert last.skipped == f"the process of the trial died {STARTS_MAX} times"
    assert not children()


def test_system_that_kills_it_again_while_the_candidate_runs_means_the_candidate(
    tmp_path: Path,
) -> None:
    async def test() -> list[Compared]:
        candidate = subject(bad_models.hangs_on_some(tmp_path / "m.onnx"))
        trial = Trial(candidate, active=active(tmp_path), device=DEVICE, limits=LIMITS)
        found = []
        for _ in range(2):
            answered(await trial.compare(LOW))
            assert trial.pid is not None
            work = asyncio.ensure_future(trial.compare(HIGH))
            await until(lambda: trial.doing == "candidate: running")
            os.kill(trial.pid, signal.SIGKILL)
            found.append(await work)
        await trial.close()
        return found

    once, twice = run(test())
    assert "was killed by the system" in once.skipped
    assert twice.crashed == "candidate"


# -- what cannot be compared ---------------------------------------------------------------------


def test_without_an_active_version_there_is_nothing_to_compare(tmp_path: Path) -> None:
    async def test() -> Compared:
        candidate = subject(bad_models.good(tmp_path / "m.onnx"))
        trial = Trial(candidate, device=DEVICE, limits=LIMITS)
        found = await trial.compare(LOW)
        await trial.close()
        return found

    assert run(test()).skipped == "there is no active version to compare with"


def test_active_version_whose_files_changed_is_not_taken_for_the_one_that_answers(
    tmp_path: Path,
) -> None:
    other = msgspec.structs.replace(active(tmp_path), digest="0" * 64)
    found = compared(subject(bad_models.good(tmp_path / "m.onnx")), other, [LOW])[0]
    assert "the active version cannot be loaded beside it" in found.skipped
    assert "not the ones" in found.skipped


def test_active_version_may_be_a_plain_file(tmp_path: Path) -> None:
    path = models.add_constant(tmp_path / "active" / "a.onnx", 1.0)
    loaded = load(bare(path))
    loaded.session.close()
    other = Subject(
        manifest=loaded.manifest,
        directory=str(path.parent),
        variant=loaded.variant.name,
        digest=loaded.digest,
    )
    found = compared(subject(bad_models.good(tmp_path / "m.onnx")), other, [LOW])[0]
    answered(found)


def test_candidate_that_cannot_be_loaded_any_more_has_failed(tmp_path: Path) -> None:
    candidate = subject(bad_models.good(tmp_path / "m.onnx"))
    (tmp_path / "m.onnx").unlink()
    found = compared(candidate, active(tmp_path), [LOW])[0]
    assert found.candidate_error
    assert ModelLoadError.__name__ not in found.candidate_error


def test_closed_trial_compares_nothing(tmp_path: Path) -> None:
    async def test() -> Compared:
        candidate = subject(bad_models.good(tmp_path / "m.onnx"))
        trial = Trial(candidate, active=active(tmp_path), device=DEVICE, limits=LIMITS)
        answered(await trial.compare(LOW))
        await trial.close()
        return await trial.compare(LOW)

    assert "ended" in run(test()).skipped
    assert not children()
