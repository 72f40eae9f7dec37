"""Releases that meet others, people, restarts and trouble: what a device owner is promised."""

import contextlib
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.protocol.release_schemas import Release
from tests import bad_models
from tests.daemons import eventually
from tests.models import add_constant
from tests.release_device import Device, bundle, device
from tests.release_traffic import Asked, judged

pytestmark = pytest.mark.integration

SLOWLY: Mapping[str, Any] = {
    "shadow_s": 300.0,
    "canary_s": 300.0,
    "probation_s": 300.0,
    "blocks_min": 4096,
}
"""Every step stays where it is until somebody decides."""


QUICKLY: Mapping[str, Any] = {"shadow_s": 0.0, "weights": [50]}
"""No more steps than there must be."""


def states_of(on: Device, release: Release) -> list[str]:
    """List the states of a release in order, from its history."""
    return [row.to_state for row in on.history() if row.release_id == release.id]


def loads(on: Device, version: int) -> int:
    """Count how often a version was loaded, from the metrics."""
    text = on.daemon.request("GET", "/metrics", admin=True).body.decode()
    name = f'edge_runtime_model_loads_total{{model="{on.model}",version="{version}"}} '
    found = [line.removeprefix(name) for line in text.splitlines() if line.startswith(name)]
    return int(float(found[0])) if found else 0


def ask_of(on: Device, number: float) -> Asked:
    """Send a row with this number."""
    at_s, row = time.monotonic(), [number, 1.0]
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": row}
    return judged(at_s, on.daemon.infer(on.model, [tensor]), row)


@contextlib.contextmanager
def device_asked_gently(folder: Path, **release: Any) -> Iterator[tuple[Device, list[bool]]]:  # noqa: ANN401 - settings
    """Run a device whose clients send small numbers only, until something is in the list."""
    seed = add_constant(folder / "seed.onnx", 1.0, note="seed")
    harder: list[bool] = []

    def ask(on: Device, count: int) -> Asked:
        return ask_of(on, (bad_models.EDGE + 1.0 if harder else 0.5) + count % 7)

    with Device(folder, seed=seed, **release) as on:
        on.begin_traffic(ask, ask)
        yield on, harder


# -- the first release, and none before it -------------------------------------------------------


def test_a_first_release_that_goes_back_disables_the_model_until_a_good_one_comes(
    tmp_path: Path,
) -> None:
    with Device(tmp_path, probation_s=300.0) as on:
        assert on.ask().status == 404
        on.stage(bundle(tmp_path / "v1", 1, bad_models.good))
        on.reach(1, "probation")
        eventually(lambda: on.ask().version == "1", "the first version's answer")
        reached = states_of(on, on.status().releases[0])
        assert reached == ["installed", "self-testing", "staged", "probation"]
        assert on.order("abort", reason="the wrong camera").status == 200
        release = on.ended(1)
        assert (release.state, release.cause) == ("rolled-back", "aborted")
        refused = on.ask()
        assert refused.status == 503
        assert "version 1 was rolled back (the wrong camera)" in refused.shown
        assert "release another version" in refused.shown
        on.restart(serves=False)
        assert on.ask().status == 503, "it stays disabled"
        assert "the wrong camera" in on.status().disabled
        on.take_settings(**QUICKLY)
        on.stage(bundle(tmp_path / "v2", 2))
        assert on.ended(2).state == "committed"
        assert on.status().disabled == ""
        assert on.ask().version == "2"


def test_a_first_release_that_answers_nobody_ends_disabled_by_itself(tmp_path: Path) -> None:
    with Device(tmp_path, probation_s=300.0) as on:
        on.stage(bundle(tmp_path / "v1", 1, bad_models.breaks_on_some))
        on.reach(1, "probation")
        on.begin_traffic(lambda on, count: ask_of(on, bad_models.EDGE + 1.0 + count % 7))
        on.is_up.set()
        release = on.ended(1)
        assert (release.state, release.cause) == ("rolled-back", "errors"), release.reason
        assert "every request of 3 blocks in a row failed" in release.reason
        assert "version 1 was rolled back" in on.status().disabled
        assert on.ask().status == 503


# -- trouble that begins late --------------------------------------------------------------------


def test_failures_that_begin_in_probation_take_it_back_and_nobody_notices(tmp_path: Path) -> None:
    with device_asked_gently(tmp_path, **SLOWLY) as (on, harder):
        on.stage(bundle(tmp_path / "v2", 2, bad_models.fails_on_some))
        on.reach(2, "shadowing")
        assert on.order("promote").status == 200
        on.reach(2, "probation")
        since_s = time.monotonic()
        eventually(lambda: on.traffic.by_version(since_s).get("2", 0) > 20, "its answers")
        assert on.status().running_digest == on.status().releases[0].digest
        assert on.status().releases[0].method == "availability-preserving"
        harder.append(True)
        release = on.ended(2)
        assert (release.state, release.cause) == ("rolled-back", "errors")
        assert "times in a row on inputs that the active version answered" in release.reason
        assert on.ask().version == "1"
        assert on.traffic.faults() == []


def test_a_crash_in_the_canary_takes_it_back_at_the_next_start_for_good(tmp_path: Path) -> None:
    # The daemon itself dies of this one: the requests under way are cut, whatever one does.
    seed = add_constant(tmp_path / "seed.onnx", 1.0, note="seed")
    path = bundle(tmp_path / "v2", 2, bad_models.dies_on_some)
    more = "[batching]\nenabled = false"
    steps = {**SLOWLY, "shadow_s": 0.0}
    # A comparison would take it back before the daemon dies of it: its process never comes up.
    points = "trial.comparison.started=hang"
    with Device(tmp_path, seed=seed, failpoints=points, more=more, **steps) as on:
        on.stage(path)
        on.reach(2, "canary")
        # Half of them are for the candidate, once it has its share; half of these are deadly.
        assert on.asked_to_death() == -signal.SIGFPE
        on.restart()
        assert on.ask().version == "1"
        release = on.ended(2)
        assert (release.state, release.cause) == ("rolled-back", "crashed")
        assert "the daemon died under it (state canary)" in release.reason
        refused = on.post("/admin/releases", {"path": str(path)})
        assert refused.status == 400, refused.body
        assert "was rolled back here before (crashed: the daemon died" in refused.json()["error"]
        assert "say `again`" in refused.json()["error"]
        again = on.stage(path, again=True)
        assert again.id > release.id
        on.reach(2, "canary")
        assert on.order("abort").status == 200


# -- people --------------------------------------------------------------------------------------


def test_a_hold_and_a_rollback_stand_against_the_fleet_until_they_are_cleared(
    tmp_path: Path,
) -> None:
    with device(tmp_path, **QUICKLY) as on:
        paths = {version: bundle(tmp_path / f"v{version}", version) for version in (2, 3)}

        def fleet(version: int) -> tuple[int, str]:
            body = {"path": str(paths[version]), "rollout": "autumn"}
            answer = on.post("/admin/releases", body)
            return answer.status, answer.json().get("error", "")

        assert on.order("hold", reason="exam week").status == 200
        status, error = fleet(2)
        assert status == 403
        assert "a local hold of 'm' stands (exam week)" in error
        assert not any(row.version == 2 for row in on.history()), "nothing of it came in"
        on.stage(paths[2])  # a person may, and it waits
        held = on.reach(2, "staged")
        assert "a local hold stands" in held.waits_for
        assert on.order("clear").status == 200
        assert on.ended(2).state == "committed"
        assert on.order("rollback", reason="labels flicker").status == 200
        assert on.ask().version == "1"
        override = on.status().override
        assert override is not None
        assert (override.kind, override.reason) == ("rollback", "labels flicker")
        assert override.source.startswith("operator uid=")
        on.restart()
        assert fleet(3)[0] == 403, "it is remembered"
        assert on.order("clear").status == 200
        assert fleet(3)[0] == 200
        done = on.ended(3)
        assert (done.state, done.source.startswith("fleet autumn")) == ("committed", True)
        assert on.ask().version == "3"


def test_a_bundle_that_was_bad_is_refused_until_an_order_says_again(tmp_path: Path) -> None:
    with device(tmp_path) as on:
        path = bundle(tmp_path / "v2", 2, bad_models.wrong_output_name)
        first = on.stage(path)
        assert on.ended(2).state == "failed"
        refused = on.post("/admin/releases", {"path": str(path)})
        assert refused.status == 400
        assert "version 2 was rolled back here before (load: " in refused.json()["error"]
        second = on.stage(path, again=True)
        assert second.id > first.id
        assert on.ended(2).id == second.id
        assert on.post("/admin/releases", {"path": str(path)}).status == 400, "remembered anew"
        assert on.traffic.faults() == []


# -- newest wins ---------------------------------------------------------------------------------


def test_the_newest_release_wins_at_every_step(tmp_path: Path) -> None:
    blind = {**SLOWLY, "shadow_s": 0.0}
    with device(tmp_path, **blind) as on:
        states = []
        on.stage(bundle(tmp_path / "v2", 2, bad_models.hangs))
        states.append(on.reach(2, "self-testing").state)  # stuck: nothing ends it but its limits
        on.stage(bundle(tmp_path / "v3", 3), mode="manual")
        states.append(on.reach(3, "staged").state)
        on.stage(bundle(tmp_path / "v4", 4))
        states.append(on.reach(4, "canary").state)
        on.take_settings(**SLOWLY)
        on.stage(bundle(tmp_path / "v5", 5))
        states.append(on.reach(5, "shadowing").state)
        on.stage(bundle(tmp_path / "v6", 6), mode="manual")
        on.reach(6, "staged")
        assert on.order("promote").status == 200
        states.append(on.reach(6, "probation").state)
        on.take_settings(**QUICKLY)
        last = on.stage(bundle(tmp_path / "v7", 7))
        assert on.ended(7).state == "committed"
        for version, state in zip(range(2, 7), states, strict=True):
            rows = [row for row in on.history() if row.version == version]
            assert [row.to_state for row in rows[-3:]] == [state, "rolling-back", "rolled-back"]
            assert rows[-1].cause == "superseded"
            assert rows[-1].reason == "a newer release was ordered"
        committed = [row for row in on.history() if row.release_id == last.id][-1]
        assert committed.digest == on.status().running_digest
        assert on.ask().version == "7"
        assert on.traffic.faults() == []


# -- restarts ------------------------------------------------------------------------------------


def test_sighup_during_a_canary_keeps_the_candidate(tmp_path: Path) -> None:
    settings = {**SLOWLY, "shadow_s": 0.0}
    with device(tmp_path, **settings) as on:
        on.stage(bundle(tmp_path / "v2"))
        on.reach(2, "canary")
        eventually(lambda: on.traffic.by_version().get("2", 0) > 0, "its answers")
        before = {version: loads(on, version) for version in (1, 2)}
        for _ in range(2):  # the second is read when all that follows from the first is done
            on.take_settings(**settings)
        since_s = time.monotonic()
        eventually(
            lambda: {"1", "2"} == on.traffic.by_version(since_s).keys(), "answers of both versions"
        )
        assert {version: loads(on, version) for version in (1, 2)} == before
        assert on.reach(2, "canary").percent == 50
        assert on.traffic.faults() == []


def test_a_device_that_is_switched_off_every_night_runs_out_of_no_time(tmp_path: Path) -> None:
    seed = add_constant(tmp_path / "seed.onnx", 1.0, note="seed")
    with Device(tmp_path, seed=seed, **SLOWLY) as on:
        on.stage(bundle(tmp_path / "v2"))
        for _ in range(2):
            began_s = time.monotonic()
            before_s = remaining_s(on)
            on.daemon.process.send_signal(signal.SIGTERM)
            on.daemon.process.wait(60.0)
            slept_s = time.monotonic()
            eventually(lambda: time.monotonic() > slept_s + 2.0, "the morning")  # noqa: B023
            woke_s = time.monotonic()
            on.restart()
            left_s = remaining_s(on)
            day_s = (slept_s - began_s) + (time.monotonic() - woke_s)
            assert before_s - day_s <= left_s <= before_s, "only the day counts"


def remaining_s(on: Device) -> float:
    """Tell how much time the step of version 2 has, which is the shadow."""
    left_s = on.reach(2, "shadowing").remaining_s
    assert left_s is not None
    return left_s


# -- the way back --------------------------------------------------------------------------------


def test_a_rollback_takes_effect_for_the_next_request_without_a_load(tmp_path: Path) -> None:
    with device(tmp_path, **SLOWLY) as on:
        on.stage(bundle(tmp_path / "v2"))
        on.reach(2, "shadowing")
        assert on.order("promote").status == 200
        on.reach(2, "probation")
        eventually(lambda: on.ask().version == "2", "its answer")
        assert on.order("rollback").status == 200
        assert {on.ask(count).version for count in range(20)} == {"1"}, "from the next one on"
        assert loads(on, 1) == 1, "it was in memory all the time"
        assert on.traffic.faults() == []
