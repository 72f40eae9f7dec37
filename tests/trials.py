"""What the tests of trials share: versions to be tried out, and a loop to do it on."""

import asyncio
import contextlib
import hashlib
import os
import platform
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest

from edge_runtime.manifest import (
    Acceptance,
    File,
    Manifest,
    Metric,
    Requires,
    TensorDescription,
    Tolerance,
    Variant,
)
from edge_runtime.release.compatibility import described
from edge_runtime.release.trial import SelfTest, Tensors, Trial
from edge_runtime.release.trial_limits import Limits
from edge_runtime.release.trial_messages import Device, Subject
from edge_runtime.session import CPU_PROVIDER, Session, SessionSettings
from edge_runtime.settings import Batching, Engine
from edge_runtime.tensors import Array
from tests import models
from tests.loads import CPU, Goldens

_Result = TypeVar("_Result")

MIB = 2**20
X = np.array([[1.0, 2.0], [3.0, -4.0]], np.float32)
GOLDENS: Goldens = {"golden.npz": {"x": X, "y": X + 1}}
X_Y = ((TensorDescription("x", "FP32", (-1, 2)),), (TensorDescription("y", "FP32", (-1, 2)),))
"""What ``y = x + 1`` takes and gives."""

DEVICE = Device(
    engine=Engine(intra_op_threads=1),
    batching=Batching(),
    providers=(CPU_PROVIDER,),
    cpu=CPU,
    cpus=1,
)
ALONE = msgspec.structs.replace(DEVICE, batching=Batching(enabled=False))
"""A device on which requests never share runs, so that nobody tries strange inputs out."""

# Of time only what ends a failing test: what is idle may wait long for a CPU of a busy machine.
LIMITS = Limits(
    self_test_s=200.0,
    self_test_cpu_s=40.0,
    memory_bytes=600 * MIB,
    load_s=200.0,
    compare_s=200.0,
    starved_after_s=100.0,
)
on_x86 = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="only x86 refuses to divide the lowest integer by -1"
)


def subject(
    *paths: Path,
    tensors: Tensors = X_Y,
    goldens: Goldens | None = GOLDENS,
    acceptance: Mapping[str, Any] | None = None,
    requires: Sequence[Requires] = (),
) -> Subject:
    """Describe a version without loading it: it may be one that nobody survives.

    Args:
        paths: Its variants' model files, in one folder; the variants are called like the files.
        tensors: What its manifest says that it takes and gives.
        goldens: Arrays by file name.
        acceptance: More of the manifest's acceptance.
        requires: Of each variant.
    """
    folder = paths[0].parent
    for name, arrays in (goldens or {}).items():
        np.savez(folder / name, allow_pickle=False, **arrays)
    needs = [*requires, *[Requires()] * len(paths)]
    manifest = Manifest(
        name="m",
        version=2,
        inputs=tuple(tensors[0]),
        outputs=tuple(tensors[1]),
        variants=tuple(
            Variant(path.stem, path.name, *_facts(path), requires=needed)
            for path, needed in zip(paths, needs, strict=False)
        ),
        acceptance=Acceptance(
            **{
                "goldens": tuple(File(name, *_facts(folder / name)) for name in goldens or {}),
                "tolerances": (Tolerance(atol=1e-5),) if goldens else (),
                **(acceptance or {}),
            }
        ),
    )
    return Subject(manifest=manifest, directory=str(folder))


def active(folder: Path) -> Subject:
    """Describe the version that answers: ``y = x + 1``."""
    found = subject(models.add_constant(folder / "active" / "a.onnx", 1.0), goldens=None)
    return msgspec.structs.replace(found, variant="a")


def signature(path: Path) -> Tensors:
    """Read what a model takes and gives, from its file."""
    session = Session.load(path, SessionSettings())
    found = described(session.signature)
    session.close()
    return found


class _Loop(asyncio.SelectorEventLoop):
    """A loop whose clock can be put forward."""

    ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s


def run(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run on a loop of its own, whose time ``let_hours_pass`` can put forward."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(work)


def let_hours_pass() -> None:
    """Let every limit of time pass at once, and nobody have waited for a CPU meanwhile."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, _Loop)
    loop.ahead_s += 10_000.0


def self_tested(
    candidate: Subject,
    *,
    tensors: Tensors | None = X_Y,
    device: Device = DEVICE,
    limits: Limits = LIMITS,
) -> SelfTest:
    """Run a self-test, and see that nothing is left of it."""

    async def test() -> SelfTest:
        trial = Trial(candidate, tensors=tensors, device=device, limits=limits)
        found = await trial.self_test()
        assert trial.pid is None
        await trial.close()
        assert not children()
        return found

    return run(test())


def children() -> set[int]:
    """List the processes of trials that this one has started and that are still there."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        pids = ""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended
            pids = (task / "children").read_text("ascii")
        for pid in pids.split():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it is gone by now
                command = Path("/proc", pid, "cmdline").read_bytes()
                # Between the fork and the new program it is called like us; a zombie is not called.
                if b"trial_child" in command or not command:
                    found.add(int(pid))
    return found


def feeds(*numbers: float) -> dict[str, Array]:
    """Make one row of inputs."""
    return {"x": np.array([numbers], np.float32)}


async def until(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    """Wait for a condition on the loop, which goes on; fail if it does not come true."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - of another process: nobody tells
            await asyncio.sleep(0.005)


def is_gone(pid: int) -> bool:
    """Tell whether a process of somebody else has ended."""
    try:
        os.kill(pid, 0)
        facts = Path("/proc", str(pid), "stat").read_bytes()
    except (ProcessLookupError, FileNotFoundError):
        return True
    return facts.rpartition(b")")[2].split()[0] == b"Z"


def top1(floor: float) -> Metric:
    """Ask for a score."""
    return Metric("top1", floor)


def _facts(path: Path) -> tuple[str, int]:
    data = path.read_bytes()
    return hashlib.sha256(data).hexdigest(), len(data)
