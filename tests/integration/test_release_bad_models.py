"""Models that are bad on purpose, each stopped at the step that should stop it, under traffic.

One device gets them all, one after the other, by the installed command, while clients ask it
without a break: none of them may ever see a failure or an answer that is not the right one.
"""

import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edge_runtime.manifest import Comparison, TensorDescription
from edge_runtime.protocol.release_schemas import Release
from tests import bad_models
from tests.daemons import COMMAND
from tests.release_device import Device, bundle, device

pytestmark = pytest.mark.integration

WAIT_S = 150.0
MIB = 2**20
_versions = count(2)
MUCH = {"comparison": Comparison(agreement_floor=0.9, latency_ratio_max=1000.0)}
"""So much agreement takes so many blocks that none of these gets through for lack of evidence."""
QUICK = {"comparison": Comparison(agreement_floor=0.5, latency_ratio_max=1.5)}


class Bad(NamedTuple):
    """A model, and how it ends.

    Attributes:
        make: Writes the model file.
        state: In which its release ends.
        last: The step that stops it.
        cause: Why, in the frozen word.
        words: What the reason must say, in this order.
        acceptance: Changes of the manifest's acceptance.
        output: How the manifest describes the output.
        or_else: Another cause that may be sure first, as the traffic comes.
    """

    make: Callable[[Path], Path]
    state: str
    last: str
    cause: str
    words: tuple[str, ...]
    acceptance: Mapping[str, Any] = {}
    output: TensorDescription = TensorDescription("y", "FP32", (-1, 2))
    or_else: str = ""


NO_GOLDENS: Mapping[str, Any] = {"goldens": (), "tolerances": ()}
on_x86 = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="only x86 refuses to divide the lowest integer by -1"
)


def in_the_self_test(make: Callable[[Path], Path], cause: str, *words: str, **more: Any) -> Bad:  # noqa: ANN401
    return Bad(make, "failed", "self-testing", cause, words, **more)


def in_the_shadow(make: Callable[[Path], Path], cause: str, *words: str, **more: Any) -> Bad:  # noqa: ANN401
    return Bad(make, "rolled-back", "shadowing", cause, words, **more)


def in_the_canary(make: Callable[[Path], Path], cause: str, *words: str, **more: Any) -> Bad:  # noqa: ANN401
    return Bad(make, "rolled-back", "canary", cause, words, **more)


Z = TensorDescription("z", "FP32", (-1, 2))
BAD = {
    "another output name than the manifest's": in_the_self_test(
        bad_models.wrong_output_name, "load", "'y'"
    ),
    "another output name than the active version's": in_the_self_test(
        bad_models.wrong_output_name, "self-test", "'y'", output=Z, acceptance=NO_GOLDENS
    ),
    "another shape than the manifest's": in_the_self_test(
        bad_models.wrong_declared_shape, "load", "[-1, 2] in the manifest", "[-1, 3]"
    ),
    "outputs of another shape than it declares": in_the_self_test(
        bad_models.wrong_real_shape, "self-test", "shape"
    ),
    "slower than its budget": in_the_self_test(
        bad_models.slow,
        "self-test",
        "a run takes",
        "the budget is",
        acceptance={"latency_budget_s": 1e-6},
    ),
    "more memory than a trial may take": in_the_self_test(
        bad_models.hog_at_run, "self-test", "memory"
    ),
    "ends its process when it is loaded": in_the_self_test(
        bad_models.dies_at_load, "self-test", "crashed (SIGFPE", "loading"
    ),
    "ends its process in its hundredth run": in_the_self_test(
        bad_models.dies_in_run, "self-test", "crashed (SIGFPE", "run"
    ),
    "NaN for some inputs": in_the_shadow(
        bad_models.not_a_number,
        "verdict",
        "blocks",  # bad values, or agreement, which NaN never has: what is sure first
        acceptance=MUCH,
    ),
    "ten times slower": in_the_shadow(
        bad_models.slow, "verdict", "latency", "times the active version's", acceptance=QUICK
    ),
    "wrong where goldens do not look": in_the_shadow(
        bad_models.other_answer, "verdict", "agreement", "the floor is", acceptance=MUCH
    ),
    "fails on real inputs only": in_the_shadow(
        bad_models.fails_on_some, "verdict", "errors:", "of the candidate", acceptance=MUCH
    ),
    "ends its process on real inputs only": in_the_shadow(
        bad_models.dies_on_some, "errors", "crashed (SIGFPE", "on a real request's inputs"
    ),
}
SEEN_LATE = {
    "fails on real inputs only": in_the_canary(
        bad_models.fails_on_some, "errors", "errors", or_else="verdict"
    ),
    "NaN for some inputs": in_the_canary(
        bad_models.not_a_number, "errors", "errors", or_else="verdict"
    ),
    "ten times slower": in_the_canary(
        bad_models.slow, "verdict", "latency", "times the active version's", acceptance=QUICK
    ),
}
"""On a device without a shadow."""


def marked(table: Mapping[str, Bad]) -> list[Any]:
    return [
        pytest.param(bad, id=name, marks=on_x86 if name.startswith("ends its process") else ())
        for name, bad in table.items()
    ]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """A device that all of them come to."""
    # Without batching nobody tries strange inputs out before the real ones come.
    with device(
        tmp_path_factory.mktemp("device"),
        more="[batching]\nenabled = false",
        shadow_s=60.0,
        trial_memory_bytes=600 * MIB,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """A device without a shadow."""
    with device(tmp_path_factory.mktemp("blind"), shadow_s=0.0, canary_s=60.0) as running:
        yield running


def staged(on: Device, path: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    """Stage a bundle by the installed command, and wait for its end."""
    command = [COMMAND, "release", "stage", str(path), "--wait", "--socket", str(on.daemon.admin)]
    return subprocess.run(
        [*command, *more], capture_output=True, text=True, timeout=WAIT_S, check=False
    )


def released(on: Device, version: int) -> Release:
    release = on.release(version)
    assert release is not None
    return release


def is_stopped(stage: Device, bad: Bad) -> None:
    """Stage it and see where it is stopped, and that no client noticed."""
    version = next(_versions)
    before = stage.daemon.process.pid
    path = bundle(
        stage.folder / f"bad-{version}",
        version,
        bad.make,
        outputs=(bad.output,),
        acceptance=bad.acceptance,
    )
    done = staged(stage, path)
    assert done.returncode == 1, done.stderr
    release = released(stage, version)
    assert release.state == bad.state, release.reason
    assert release.cause in {bad.cause, bad.or_else or bad.cause}, release.reason
    rest = release.reason
    for word in bad.words:
        assert word in rest, release.reason
        rest = rest.partition(word)[2]
    assert release.reason in done.stderr, "the command says why"
    rows = [row for row in stage.history() if row.version == version]
    assert rows[0].from_state == "", "its history is whole"
    states = [row.to_state for row in rows if row.to_state not in {"rolling-back", bad.state}]
    assert states[-1] == bad.last
    assert rows[0].digest == rows[-1].digest == stage.status().running_digest
    assert stage.traffic.faults() == []
    assert stage.daemon.process.pid == before
    assert stage.daemon.process.poll() is None


@pytest.mark.parametrize("bad", marked(BAD))
def test_is_stopped_before_it_answers_anybody(stage: Device, bad: Bad) -> None:
    is_stopped(stage, bad)
    assert set(stage.traffic.by_version()) == {"1"}


@pytest.mark.parametrize("bad", marked(SEEN_LATE))
def test_is_stopped_in_the_canary_and_nobody_notices(blind: Device, bad: Bad) -> None:
    is_stopped(blind, bad)


def test_after_all_of_them_a_good_one_is_committed(stage: Device) -> None:
    version = next(_versions)
    done = staged(stage, bundle(stage.folder / "good", version, bad_models.good))
    assert done.returncode == 0, done.stderr
    release = released(stage, version)
    assert release.state == "committed"
    assert f"m version {version} is committed; running: {release.digest[:12]}" in done.stderr
    status = stage.status()
    assert status.active == version
    assert release.digest == status.running_digest == stage.history()[-1].digest
    assert stage.ask().version == str(version)
    assert stage.traffic.faults() == []
