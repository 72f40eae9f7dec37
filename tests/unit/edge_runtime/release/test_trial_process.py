"""The process of a trial: it keeps its limits, makes way, and never outlives who started it."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from edge_runtime.release import trial_process
from edge_runtime.release.trial import Trial
from edge_runtime.release.trial_limits import usage
from edge_runtime.release.trial_messages import HEAD, Compared, Pair, frame
from edge_runtime.release.trial_process import TrialDiedError, TrialProcess
from tests import bad_models
from tests.daemons import eventually
from tests.trials import (
    ALONE,
    DEVICE,
    LIMITS,
    MIB,
    active,
    children,
    is_gone,
    run,
    self_tested,
    subject,
    until,
)

MEMORY = 600 * MIB


def pair(tmp_path: Path) -> Pair:
    candidate = subject(bad_models.good(tmp_path / "m.onnx"))
    return Pair(active=active(tmp_path), candidate=candidate, device=DEVICE)


def descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def interpreter(path: Path, script: str) -> str:
    """Put a program in Python's place."""
    path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    path.chmod(0o755)
    return str(path)


def test_process_is_the_first_to_go_and_makes_way_and_leaves_no_dump(tmp_path: Path) -> None:
    async def test() -> None:
        process = TrialProcess(memory_bytes=MEMORY, cpu_s=30.0)
        await process.ask(pair(tmp_path), within_s=50)
        folder = Path("/proc", str(process.pid))
        assert (folder / "oom_score_adj").read_text("ascii").strip() == "1000"
        assert os.sched_getscheduler(process.pid) == os.SCHED_IDLE
        assert resource.prlimit(process.pid, resource.RLIMIT_CORE) == (1, 1)
        assert resource.prlimit(process.pid, resource.RLIMIT_CPU)[0] == 31
        found = usage(process.pid)
        assert found is not None
        assert 10 * MIB < found.resident_bytes < MEMORY
        await process.close()
        assert not children()
        assert process.usage() is None

    run(test())


def test_process_that_is_not_idle_is_nice(tmp_path: Path) -> None:
    async def test() -> None:
        process = TrialProcess(memory_bytes=MEMORY, is_idle=False)
        await process.ask(pair(tmp_path), within_s=50)
        assert os.sched_getscheduler(process.pid) == os.SCHED_OTHER
        assert os.getpriority(os.PRIO_PROCESS, process.pid) >= 10
        await process.close()

    run(test())


def test_its_descriptors_are_closed_with_it(tmp_path: Path) -> None:
    async def test() -> None:
        before = descriptors()
        for _ in range(3):
            process = TrialProcess(memory_bytes=MEMORY)
            await process.ask(pair(tmp_path), within_s=50)
            await process.close()
            await process.close()
        never_asked = TrialProcess(memory_bytes=MEMORY)
        await never_asked.close()
        await until(lambda: descriptors() <= before)

    run(test())
    assert not children()


def broken(folder: Path) -> TrialDiedError:
    """Ask a process that is none of ours."""

    async def test() -> TrialDiedError:
        process = TrialProcess(memory_bytes=MEMORY)
        with pytest.raises(TrialDiedError) as caught:
            await process.ask(pair(folder), within_s=50)
        return caught.value

    error = run(test())
    assert error.kind == "broken"
    return error


def test_last_words_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    noisy = "yes noise | head -c 600000 >&2; echo 'the last words' >&2; exit 3"
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path / "python", noisy))

    error = broken(tmp_path)
    assert error.why.endswith("ended with 3 before it began; it said: the last words")
    assert not children()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"A" * 24, "a message of 1094795585 and"),
        (HEAD.pack(1, 0) + b"A", "not a message of a trial"),
        (frame(Compared(), 1), "a message of"),
    ],
    ids=["endless", "nonsense", "with tensors"],
)
def test_answer_that_is_none_ends_the_process(
    said: bytes, why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # It is called with -P -c CODE DESCRIPTOR, and more.
    lies = f"import os, sys, time; os.write(int(sys.argv[4]), {said!r}); time.sleep(60)"
    (tmp_path / "lies.py").write_text(lies, "utf-8")
    script = f'exec {sys.executable} {tmp_path / "lies.py"} "$@"'
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path / "python", script))

    error = broken(tmp_path)
    assert why in error.why
    assert not children()


def test_process_that_waits_for_what_never_comes_is_said_to_hang(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path / "python", "exec sleep 60"))

    async def test() -> TrialDiedError:
        process = TrialProcess(memory_bytes=MEMORY)
        # Before that it waits for a CPU like anybody else, on a busy machine for long.
        await until(lambda: is_asleep(process.pid))
        with pytest.raises(TrialDiedError) as caught:
            await process.ask(pair(tmp_path), within_s=0.5, starved_after_s=0.1)
        return caught.value

    assert run(test()).kind == "hung"
    assert not children()


def test_waiting_for_a_cpu_before_the_order_excuses_nothing_after_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path / "python", "exec sleep 60"))
    monkeypatch.setattr(trial_process, "queued_s", lambda _: 3600.0)

    async def test() -> TrialDiedError:
        process = TrialProcess(memory_bytes=MEMORY)
        with pytest.raises(TrialDiedError) as caught:
            await process.ask(pair(tmp_path), within_s=0.5, starved_after_s=0.1)
        return caught.value

    assert run(test()).kind == "hung"


def is_asleep(pid: int) -> bool:
    """Tell whether a process has become ``sleep``, and waits for nothing but its time."""
    name, state = Path("/proc", str(pid), "stat").read_text("ascii").rpartition(")")[::2]
    return name.endswith("(sleep") and state.split()[0] == "S"


PARENT = """\
import asyncio, sys
from edge_runtime.release.trial_process import TrialProcess

async def main():
    process = TrialProcess(memory_bytes=2**30)
    print(process.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_process_ends_with_a_daemon_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())

        parent.send_signal(signal.SIGKILL)
        parent.wait()
    eventually(lambda: is_gone(child), "the end of the child")


@contextmanager
def crowded() -> Iterator[None]:
    """Put this process on one CPU that somebody else never leaves."""
    usual = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(usual)})
    try:
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
            try:
                yield
            finally:
                other.kill()
    finally:
        os.sched_setaffinity(0, usual)


def test_test_comes_to_an_end_on_a_cpu_that_is_never_free(tmp_path: Path) -> None:
    candidate = subject(bad_models.good(tmp_path / "m.onnx"))
    limits = msgspec.structs.replace(LIMITS, starved_after_s=1.0)
    with crowded():
        found = self_tested(candidate, device=ALONE, limits=limits)
    assert found.passed, found
    assert found.latency_s <= found.wall_s  # what others took is not held against the model


def test_comparison_that_gets_no_cpu_is_nobodys_fault(tmp_path: Path) -> None:
    async def test() -> tuple[Compared, bool]:
        limits = msgspec.structs.replace(LIMITS, starved_after_s=1.0)
        trial = Trial(
            subject(bad_models.good(tmp_path / "m.onnx")),
            active=active(tmp_path),
            device=DEVICE,
            limits=limits,
        )
        first = await trial.compare({})
        again = await trial.compare({})
        await trial.close()
        return first, "takes ['x']" in again.skipped

    with crowded():
        starved, arrived = run(test())
    if "takes ['x']" not in starved.skipped:  # it was lucky
        assert "it had a CPU for" in starved.skipped
        assert not starved.crashed
    assert arrived
