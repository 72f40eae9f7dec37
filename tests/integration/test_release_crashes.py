"""A daemon that dies: whom it is counted against, and that a crash loop ends by itself."""

import contextlib
import platform
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_runtime.protocol.release_schemas import ModelReleases, Release
from tests import bad_models
from tests.daemons import eventually
from tests.models import add_constant
from tests.release_device import MODEL, STEP_S, Device, bundle

pytestmark = pytest.mark.integration

OTHER = "n"
QUICKLY: Mapping[str, Any] = {"shadow_s": 0.0, "canary_s": 0.3, "probation_s": 0.1, "weights": [50]}
"""Every release is committed at once, for want of traffic."""
SLOWLY: Mapping[str, Any] = {
    "shadow_s": 0.0,
    "canary_s": 300.0,
    "blocks_min": 4096,
    "weights": [50],
}
"""Every release stays in the canary."""


@contextlib.contextmanager
def device(folder: Path, **more: Any) -> Iterator[Device]:  # noqa: ANN401 - of ``Device``
    """Run a device on which the configuration's version 1 answers; nobody asks."""
    seed = add_constant(folder / "seed.onnx", 1.0, note="seed")
    with Device(folder, seed=seed, **more) as on:
        yield on


def status_of(on: Device, model: str) -> ModelReleases:
    return msgspec.json.decode(on.get(f"/admin/releases/{model}").body, type=ModelReleases)


def reach(on: Device, model: str, *states: str) -> Release:
    """Wait until the last release of a model is in one of some states."""
    found: list[Release] = []

    def reached() -> bool:
        answer = on.get(f"/admin/releases/{model}")
        found[:] = status_of(on, model).releases[:1] if answer.status == 200 else []
        return bool(found) and found[0].state in states

    eventually(reached, f"{states} of {model}", STEP_S)
    return found[0]


def explained(on: Device, model: str = MODEL) -> str:
    return " ".join(on.get(f"/admin/releases/{model}/explain").json()["sentences"])


def commit(on: Device, path: Path, version: int) -> Release:
    on.stage(path)
    release = on.ended(version)
    assert release.state == "committed", release
    return release


def crash(on: Device, times: int = 1, **more: Any) -> None:  # noqa: ANN401 - of ``restart``
    for _ in range(times):
        on.restart(signal.SIGKILL, **more)


# -- committed versions ----------------------------------------------------------------------------


@pytest.mark.skipif(platform.machine() != "x86_64", reason="its division ends a process there only")
def test_a_committed_version_that_makes_the_daemon_die_again_and_again_goes_back(
    tmp_path: Path,
) -> None:
    path = bundle(tmp_path / "v2", 2, bad_models.dies_on_some)
    with device(tmp_path, more="[batching]\nenabled = false", **QUICKLY) as on:
        commit(on, path, 2)
        for death in range(1, 4):
            assert on.status().active == 2
            assert on.asked_to_death() == -signal.SIGFPE
            on.restart()
            if death < 3:
                assert on.status().releases[0].crashes == death
                assert "The daemon died" in explained(on)
        release = on.ended(2)
        assert (release.state, release.cause) == ("rolled-back", "crashed")
        assert "the daemon died 3 times in a row" in release.reason
        assert on.status().active_source == "seed"
        assert {on.ask(count).version for count in range(200)} == {"1"}, "the deadly ones as well"
        assert "crashed: the daemon died 3 times in a row" in explained(on)
        events = [(row.event, row.to_state) for row in on.history() if row.version == 2][-4:]
        assert events == [
            ("died", "committed"),
            ("died", "committed"),
            ("roll-back", "rolling-back"),
            ("done", "rolled-back"),
        ]
        refused = on.post("/admin/releases", {"path": str(path)})
        assert refused.status == 400, refused.body
        assert "crashed: the daemon died" in refused.json()["error"]


def test_the_version_before_in_the_store_answers_after_a_crash_loop(tmp_path: Path) -> None:
    with device(tmp_path, committed_crashes_max=2, **QUICKLY) as on:
        commit(on, bundle(tmp_path / "v2", 2), 2)
        last = commit(on, bundle(tmp_path / "v3", 3), 3)
        crash(on, 2)
        assert on.ended(3).state == "rolled-back"
        assert on.ask().version == "2"
        status = on.status()
        assert (status.active, status.previous) == (2, None)
        assert status.running_digest == on.history()[-1].digest != last.digest
        crash(on)
        assert on.status().active == 2, "one death is no loop"


def test_a_committed_version_without_one_before_it_is_disabled_by_a_crash_loop(
    tmp_path: Path,
) -> None:
    with Device(tmp_path, committed_crashes_max=1, **QUICKLY) as on:
        commit(on, bundle(tmp_path / "v1", 1), 1)
        crash(on, serves=False)
        assert "the daemon died" in on.status().disabled
        refused = on.ask()
        assert refused.status == 503
        assert "version 1 was rolled back (the daemon died" in refused.shown


def test_deaths_are_no_crash_loop_where_the_owner_or_the_facts_say_so(tmp_path: Path) -> None:
    with device(tmp_path, committed_crashes_max=0, **QUICKLY) as on:
        commit(on, bundle(tmp_path / "v2", 2), 2)
        crash(on, 2)
        assert on.status().releases[0].crashes == 0, "never"
    with device(tmp_path / "power", committed_crashes_max=1, **QUICKLY) as on:
        commit(on, bundle(tmp_path / "power" / "v2", 2), 2)
        crash(on, failpoints="boot_id=another")
        assert on.status().active == 2, "a power cut"
        on.restart(failpoints="boot_id=another")
        assert on.status().active == 2, "stopped in order"
    with device(tmp_path / "late", committed_crashes_max=1, crash_window_s=1e-6, **QUICKLY) as on:
        commit(on, bundle(tmp_path / "late" / "v2", 2), 2)
        crash(on)
        assert on.status().active == 2, "it ran for long enough"


def test_a_committed_version_that_was_not_in_memory_is_not_blamed(tmp_path: Path) -> None:
    seed = add_constant(tmp_path / "n.onnx", 1.0)
    more = f'[models.{OTHER}]\npath = "{seed}"\nload = "request"\n'
    with device(tmp_path, more=more, committed_crashes_max=1, **QUICKLY) as on:
        commit(on, bundle(tmp_path / "v2", 2), 2)
        on.stage(bundle(tmp_path / "n2", 2, name=OTHER))
        reach(on, OTHER, "committed")
        on.restart()
        crash(on)
        assert status_of(on, OTHER).active == 2, "the newer one slept"
        assert status_of(on, OTHER).releases[0].crashes == 0
        assert on.ended(2).cause == "crashed"


# -- releases under way ----------------------------------------------------------------------------


def test_only_the_candidate_that_was_in_memory_is_blamed(tmp_path: Path) -> None:
    seed = add_constant(tmp_path / "n.onnx", 1.0)
    more = f'[models.{OTHER}]\npath = "{seed}"\n'
    points = "release.canary.begun=kill@2"
    with device(tmp_path, failpoints=points, more=more, **SLOWLY) as on:
        on.stage(bundle(tmp_path / "v2", 2))
        on.reach(2, "canary")
        eventually(lambda: {on.ask(n).version for n in range(20)} == {"1", "2"}, "its answers")
        on.stage(bundle(tmp_path / "n2", 2, name=OTHER))
        on.died()
        on.restart()
        assert on.ended(2).cause == "crashed"
        assert reach(on, OTHER, "canary").crashes == 0, "it was not loaded yet"


def test_candidates_that_cannot_be_told_apart_both_go_and_neither_is_called_bad(
    tmp_path: Path,
) -> None:
    seed = add_constant(tmp_path / "n.onnx", 1.0)
    more = f'[models.{OTHER}]\npath = "{seed}"\n'
    paths = {MODEL: bundle(tmp_path / "v2", 2), OTHER: bundle(tmp_path / "n2", 2, name=OTHER)}
    with device(tmp_path, more=more, **SLOWLY) as on:
        for path in paths.values():
            on.stage(path)
        for name in paths:
            reach(on, name, "canary")
            eventually(lambda: OTHER in loaded_beside(on), "both in memory")
        crash(on)
        for name, other in ((MODEL, OTHER), (OTHER, MODEL)):
            release = reach(on, name, "rolled-back")
            assert release.cause == "crashed"
            assert f"it may have been {other} version 2" in release.reason
        assert on.post("/admin/releases", {"path": str(paths[MODEL])}).status == 200


def loaded_beside(on: Device) -> list[str]:
    """List the models of which version 2 is in memory."""
    index = on.daemon.request("POST", "/v2/repository/index").json()
    wanted = {"version": "2", "state": "READY"}
    ready = [each["name"] for each in index if wanted.items() <= each.items()]
    return ready if sorted(ready) == [MODEL, OTHER] else []


def test_a_release_that_is_only_tried_out_is_never_called_bad_for_a_death(tmp_path: Path) -> None:
    path = bundle(tmp_path / "v2", 2)
    with device(tmp_path, shadow_s=300.0, blocks_min=4096) as on:
        on.stage(path)
        on.reach(2, "shadowing")
        crash(on, 2)
        on.reach(2, "shadowing")
        crash(on)
        release = on.ended(2)
        assert (release.state, release.cause) == ("rolled-back", "internal")
        assert "it is not to blame" in release.reason
        again = on.stage(path)
        assert again.id > release.id
