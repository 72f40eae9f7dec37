"""A self-test in real processes: what is bad is found and named, and nobody else suffers."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import uvloop

from edge_runtime.manifest import Requires, Tolerance
from edge_runtime.release.states import Cause
from edge_runtime.release.trial import SelfTest, Trial
from tests import bad_models, models
from tests.trials import (
    ALONE,
    DEVICE,
    LIMITS,
    MIB,
    X,
    children,
    let_hours_pass,
    on_x86,
    run,
    self_tested,
    signature,
    subject,
    top1,
    until,
)

Write = Callable[[Path], Path]


def fails(found: SelfTest, cause: Cause, *words: str) -> None:
    assert not found.passed
    assert found.cause is cause
    assert not found.variant
    for word in words:
        assert word in found.reason, found


# -- good ones -----------------------------------------------------------------------------------


def test_good_version_passes_with_what_was_measured(tmp_path: Path) -> None:
    found = self_tested(subject(bad_models.good(tmp_path / "fp32.onnx")))
    assert found.passed, found
    assert (found.cause, found.failures) == (None, ())
    assert found.variant == "fp32"
    assert found.variant_reason.startswith("fp32: ")
    assert len(found.digest) == 64
    assert (found.goldens, found.runs >= LIMITS.runs) == (1, True)
    assert 0 < found.latency_s <= found.wall_s
    assert 0 < found.memory_bytes < 200 * MIB
    assert found.cpu_s > 0


def test_version_without_goldens_passes_and_says_that_nothing_was_compared(tmp_path: Path) -> None:
    found = self_tested(subject(bad_models.good(tmp_path / "m.onnx"), goldens=None))
    assert found.passed
    assert found.goldens == 0
    assert found.runs >= LIMITS.runs
    assert any("only made-up inputs were run" in note for note in found.notes)


def test_what_is_not_finite_on_made_up_inputs_is_told_and_no_reason_to_refuse(
    tmp_path: Path,
) -> None:
    found = self_tested(subject(models.divide(tmp_path / "m.onnx"), goldens=None))
    assert found.passed
    assert any("not finite on made-up inputs" in note for note in found.notes)


def test_model_that_made_up_inputs_do_not_suit_passes_unmeasured(tmp_path: Path) -> None:
    path = models.gather(tmp_path / "m.onnx", table=[10.0])
    found = self_tested(subject(path, tensors=signature(path), goldens=None), tensors=None)
    assert found.passed
    assert found.latency_s == 0
    assert any("fails on made-up inputs" in note for note in found.notes)


@pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def test_trial_works_on_both_loops(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    async def test() -> bool:
        trial = Trial(subject(bad_models.good(tmp_path / "m.onnx")), device=DEVICE, limits=LIMITS)
        found = await trial.self_test()
        await trial.close()
        return found.passed

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(test())
    assert not children()


# -- bad ones ------------------------------------------------------------------------------------


def test_other_names_than_in_the_manifest_are_refused(tmp_path: Path) -> None:
    found = self_tested(subject(bad_models.wrong_output_name(tmp_path / "m.onnx")))
    fails(found, Cause.LOAD, "['y'] in the manifest", "['z'] in the model file")


def test_other_names_than_those_that_programs_use_are_refused(tmp_path: Path) -> None:
    path = bad_models.wrong_output_name(tmp_path / "m.onnx")
    found = self_tested(subject(path, tensors=signature(path), goldens=None))
    fails(found, Cause.SELF_TEST, "outputs are ['z'], those of the active version ['y']")


def test_other_shapes_than_those_that_programs_use_are_refused(tmp_path: Path) -> None:
    path = bad_models.wrong_declared_shape(tmp_path / "m.onnx")
    found = self_tested(subject(path, tensors=signature(path), goldens=None))
    fails(found, Cause.SELF_TEST, "input 'x' has shape [-1, 3], that of the active version [-1, 2]")


def test_other_datatype_than_programs_use_is_refused(tmp_path: Path) -> None:
    path = models.identity(tmp_path / "m.onnx", "FP64")
    found = self_tested(subject(path, tensors=signature(path), goldens=None))
    fails(found, Cause.SELF_TEST, "input 'x' is FP64, that of the active version FP32")


def test_what_nobody_uses_yet_may_have_any_names(tmp_path: Path) -> None:
    path = bad_models.wrong_output_name(tmp_path / "m.onnx")
    assert self_tested(subject(path, tensors=signature(path), goldens=None), tensors=None).passed


def test_output_of_another_shape_than_declared_is_refused(tmp_path: Path) -> None:
    path = bad_models.wrong_real_shape(tmp_path / "m.onnx")
    found = self_tested(subject(path, goldens=None))
    fails(found, Cause.SELF_TEST, "output 'y' has shape [1, 4]; declared is [-1, 2]")


def test_answer_beyond_the_tolerance_of_a_golden_is_refused(tmp_path: Path) -> None:
    found = self_tested(subject(models.add_constant(tmp_path / "m.onnx", 1.1)))
    fails(found, Cause.SELF_TEST, "golden.npz: output 'y' is 0.1 off")


def test_not_a_number_where_the_golden_has_one_is_refused(tmp_path: Path) -> None:
    rows = np.array([[bad_models.EDGE + 1, 0]], np.float32)
    path = bad_models.not_a_number(tmp_path / "m.onnx")
    found = self_tested(subject(path, goldens={"edge.npz": {"x": rows, "y": rows + 1}}))
    fails(found, Cause.SELF_TEST, "edge.npz: output 'y' is not a number where the golden is one")


def test_failure_on_a_golden_is_refused(tmp_path: Path) -> None:
    rows = np.array([[bad_models.EDGE + 1, 0]], np.float32)
    path = bad_models.fails_on_some(tmp_path / "m.onnx")
    found = self_tested(subject(path, goldens={"edge.npz": {"x": rows, "y": rows + 1}}))
    fails(found, Cause.SELF_TEST, "fails on edge.npz: the model refused the input")


def test_score_below_its_floor_is_refused(tmp_path: Path) -> None:
    labels = np.array([1, 1])
    goldens = {"golden.npz": {"x": X, "y": X + 1, "labels": labels}}
    path = bad_models.good(tmp_path / "m.onnx")
    found = self_tested(subject(path, goldens=goldens, acceptance={"metric": top1(0.9)}))
    fails(found, Cause.SELF_TEST, "top1 over the goldens is 0.5, below the floor of 0.9")
    found = self_tested(subject(path, goldens=goldens, acceptance={"metric": top1(0.5)}))
    assert found.passed
    assert "top1 over the goldens is 0.5, the floor 0.5" in found.notes


def test_slower_than_its_budget_is_refused(tmp_path: Path) -> None:
    path = bad_models.slow(tmp_path / "m.onnx")
    found = self_tested(subject(path, acceptance={"latency_budget_s": 1e-6}))
    fails(found, Cause.SELF_TEST, "a run takes", "the budget is 0.001 ms")
    assert found.latency_s > 1e-6
    assert self_tested(subject(path, acceptance={"latency_budget_s": 10.0})).passed


def test_larger_than_its_budget_is_refused(tmp_path: Path) -> None:
    path = bad_models.hog_at_run(tmp_path / "m.onnx", mib=100)
    found = self_tested(subject(path, acceptance={"memory_budget_bytes": 90 * MIB}), device=ALONE)
    fails(found, Cause.SELF_TEST, "of memory, the budget is 90.0 MiB")
    assert found.memory_bytes > 100 * MIB
    acceptance = {"memory_budget_bytes": 190 * MIB}
    assert self_tested(subject(path, acceptance=acceptance), device=ALONE).passed


@pytest.mark.parametrize("write", [bad_models.hog_at_load, bad_models.hog_at_run])
def test_more_memory_than_it_may_have_is_a_verdict(write: Write, tmp_path: Path) -> None:
    limits = msgspec.structs.replace(LIMITS, memory_bytes=300 * MIB)
    found = self_tested(subject(write(tmp_path / "m.onnx")), limits=limits)
    fails(found, Cause.SELF_TEST, "needs more than the 314572800 bytes of memory")


def test_memory_that_nobody_has_is_a_verdict(tmp_path: Path) -> None:
    path = bad_models.hog_at_run(tmp_path / "m.onnx", mib=2**13)
    fails(self_tested(subject(path)), Cause.SELF_TEST, "Failed to allocate memory")


@on_x86
def test_crash_while_it_is_loaded_is_a_verdict(tmp_path: Path) -> None:
    found = self_tested(subject(bad_models.dies_at_load(tmp_path / "m.onnx")))
    fails(found, Cause.SELF_TEST, "crashed (SIGFPE", "while loading the model")


@on_x86
def test_crash_in_the_hundredth_run_is_a_verdict(tmp_path: Path) -> None:
    found = self_tested(subject(bad_models.dies_in_run(tmp_path / "m.onnx")))
    fails(found, Cause.SELF_TEST, "crashed (SIGFPE", "while running golden.npz, run 100")


@on_x86
def test_crash_in_what_the_daemon_tries_before_it_serves_is_a_verdict(tmp_path: Path) -> None:
    path = bad_models.dies_on_some(tmp_path / "m.onnx")
    fails(self_tested(subject(path)), Cause.SELF_TEST, "while running made-up inputs")
    assert self_tested(subject(path), device=ALONE).passed  # nor does the daemon try it then


def test_model_that_never_ends_is_a_verdict_and_the_loop_goes_on_meanwhile(tmp_path: Path) -> None:
    async def test() -> SelfTest:
        trial = hanging(tmp_path)
        work = asyncio.ensure_future(trial.self_test())
        await until(lambda: trial.doing.startswith("running golden.npz"), LIMITS.self_test_s)
        for _ in range(20):
            await asyncio.wait({work}, timeout=0.01)
        assert not work.done()
        let_hours_pass()
        found = await work
        await trial.close()
        return found

    words = f"came to no end within {LIMITS.self_test_s:.0f} s", "while running golden.npz"
    fails(run(test()), Cause.SELF_TEST, *words)
    assert not children()


def test_cpu_time_is_limited(tmp_path: Path) -> None:
    # What it takes on this machine until it hangs, and as much again.
    usual = self_tested(subject(bad_models.good(tmp_path / "good" / "m.onnx"))).cpu_s
    limits = msgspec.structs.replace(LIMITS, self_test_cpu_s=2 * usual + 1)
    found = self_tested(subject(bad_models.hangs(tmp_path / "m.onnx")), limits=limits)
    fails(found, Cause.SELF_TEST, "used more CPU time than it may while running golden.npz")


def test_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x07nonsense")
    fails(self_tested(subject(path)), Cause.LOAD)


def test_file_that_is_not_the_one_of_the_manifest_is_refused(tmp_path: Path) -> None:
    candidate = subject(bad_models.good(tmp_path / "m.onnx"))
    bad_models.other_answer(tmp_path / "m.onnx")
    fails(self_tested(candidate), Cause.LOAD, "m version 2")


def test_golden_that_is_not_the_one_of_the_manifest_is_refused(tmp_path: Path) -> None:
    candidate = subject(bad_models.good(tmp_path / "m.onnx"))
    np.savez(tmp_path / "golden.npz", x=X, y=X)
    fails(self_tested(candidate), Cause.SELF_TEST, "golden.npz has SHA-256")


# -- variants ------------------------------------------------------------------------------------


def test_fastest_variant_that_passes_is_taken_and_the_reason_is_told(tmp_path: Path) -> None:
    slow = bad_models.slow(tmp_path / "float.onnx", layers=16)
    found = self_tested(subject(slow, bad_models.good(tmp_path / "int8.onnx")))
    assert found.variant == "int8"
    assert found.variant_reason.startswith("int8: ")
    assert "fastest of 2 that pass" in found.variant_reason


@on_x86
def test_variant_that_crashes_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    bad = bad_models.dies_at_load(tmp_path / "int8.onnx")
    found = self_tested(subject(bad, bad_models.good(tmp_path / "float.onnx")))
    assert found.passed
    assert found.variant == "float"
    assert "int8: crashed (SIGFPE" in found.variant_reason


def test_variant_for_another_cpu_is_not_run(tmp_path: Path) -> None:
    path = bad_models.wrong_real_shape(tmp_path / "other.onnx")
    good = bad_models.good(tmp_path / "mine.onnx")
    found = self_tested(subject(path, good, requires=[Requires(arch="vax")]))
    assert (found.variant, found.failures) == ("mine", ())
    fails(
        self_tested(subject(path, requires=[Requires(arch="vax")])),
        Cause.LOAD,
        "no variant of m version 2 runs on this CPU",
        "other needs vax",
    )


def test_reasons_of_all_variants_are_told_where_none_passes(tmp_path: Path) -> None:
    first = models.add_constant(tmp_path / "one.onnx", 2.0)
    found = self_tested(subject(first, models.add_constant(tmp_path / "two.onnx", 3.0)))
    fails(found, Cause.SELF_TEST, "one: golden.npz", "two: golden.npz")
    assert len(found.failures) == 2


# -- what else may happen ------------------------------------------------------------------------


def hanging(tmp_path: Path) -> Trial:
    return Trial(subject(bad_models.hangs(tmp_path / "m.onnx")), device=DEVICE, limits=LIMITS)


async def until_busy(trial: Trial) -> None:
    await until(lambda: trial.pid is not None)


def test_closing_ends_a_self_test_under_way_and_leaves_no_process(tmp_path: Path) -> None:
    async def test() -> SelfTest:
        trial = hanging(tmp_path)
        work = asyncio.ensure_future(trial.self_test())
        await until_busy(trial)
        await trial.close()
        assert not children()
        return await work

    fails(asyncio.run(test()), Cause.ABORTED, "the trial was ended")
    assert not children()


def test_cancelling_leaves_no_process(tmp_path: Path) -> None:
    async def test() -> None:
        trial = hanging(tmp_path)
        work = asyncio.ensure_future(trial.self_test())
        await until_busy(trial)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert not children()
        await trial.close()

    asyncio.run(test())


def test_closed_trial_starts_nothing(tmp_path: Path) -> None:
    async def test() -> SelfTest:
        trial = hanging(tmp_path)
        await trial.close()
        await trial.close()
        return await trial.self_test()

    fails(asyncio.run(test()), Cause.ABORTED)
    assert not children()


@pytest.mark.parametrize("times", [1, 2])
def test_system_that_kills_it_once_says_nothing_of_the_model(times: int, tmp_path: Path) -> None:
    async def test() -> SelfTest:
        trial = hanging(tmp_path)
        work = asyncio.ensure_future(trial.self_test())
        for _ in range(times):
            await until(lambda: trial.doing.startswith("running"), LIMITS.self_test_s)
            assert trial.pid is not None
            killed = trial.pid
            os.kill(killed, signal.SIGKILL)
            await until(lambda pid=killed: trial.pid != pid)  # type: ignore[misc]
        if times == 1:
            await until(lambda: trial.doing.startswith("running"), LIMITS.self_test_s)
            await trial.close()
        return await work

    found = asyncio.run(test())
    if times == 1:
        fails(found, Cause.ABORTED)
    else:
        fails(found, Cause.SELF_TEST, "was killed by the system, out of memory most likely")


def test_process_that_cannot_be_started_says_nothing_of_the_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "nothing"))
    fails(self_tested(subject(bad_models.good(tmp_path / "m.onnx"))), Cause.INTERNAL)


def test_settings_of_the_device_are_the_ones_that_are_tried(tmp_path: Path) -> None:
    """Tolerances are the manifest's, threads the configuration's: two give the same answers."""
    device = msgspec.structs.replace(
        DEVICE, engine=msgspec.structs.replace(DEVICE.engine, intra_op_threads=2), cpus=2
    )
    acceptance = {"tolerances": (Tolerance("y", 1e-6),)}
    candidate = subject(bad_models.slow(tmp_path / "m.onnx"), acceptance=acceptance)
    assert self_tested(candidate, device=device).passed
