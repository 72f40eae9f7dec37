"""The active version is idle, unloaded, damaged or taken back: never the next version's fault."""

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import bad_models
from tests.daemons import eventually
from tests.every_row import every
from tests.models import add_constant
from tests.release_device import MODEL, STEP_S, Device, bundle, signed_bundle
from tests.signing import keyring

pytestmark = pytest.mark.integration

UNHURRIED: Mapping[str, Any] = {"shadow_s": 300.0, "canary_s": 300.0, "blocks_min": 4096}
"""Steps that last until the test goes on."""


def commit_first(on: Device, folder: Path) -> None:
    """Release version 1, by hand."""
    on.stage(bundle(folder / "v1", 1), mode="manual")
    promote(on, 1)


def promote(on: Device, version: int) -> None:
    on.reach(version, "staged")
    assert on.order("promote").status == 200
    on.reach(version, "probation", "committed")
    on.order("promote")  # a probation may be long
    assert on.ended(version).state == "committed"


def way(on: Device, version: int) -> list[str]:
    """List the states that a version went through."""
    return [row.to_state for row in on.history() if row.version == version]


def state_of(on: Device, version: int) -> tuple[str, str]:
    """Give state and reason of a version, as the index has it."""
    index = on.daemon.request("POST", "/v2/repository/index", admin=True).json()
    found = [each for each in index if (each["name"], each["version"]) == (MODEL, str(version))]
    return (found[0]["state"], found[0].get("reason", "")) if found else ("", "")


def is_not_called_bad(on: Device, version: int) -> bool:
    """Tell whether nothing ever said that a version is at fault."""
    return not any(row.cause for row in on.history() if row.version == version)


def damage(on: Device, version: int) -> None:
    """Change a byte of the model file in the store."""
    path = on.daemon.state / "store" / "models" / MODEL / str(version) / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.chmod(0o600)
    path.write_bytes(data)


def idle(folder: Path) -> str:
    """Write the settings of a model whose first version the configuration names."""
    seed = add_constant(folder / "seed.onnx", 1.0, note="seed")
    return f'[models.{MODEL}]\npath = "{seed}"\nidle_unload_s = 0.3\n'


def is_idle(on: Device) -> bool:
    return "when asked" in state_of(on, 1)[1]


# -- idle ------------------------------------------------------------------------------------------


def test_an_active_version_that_went_idle_is_woken_to_stand_beside_the_next_one(
    tmp_path: Path,
) -> None:
    with Device(tmp_path, more=idle(tmp_path), shadow_s=3.0, canary_s=0.5) as on:
        eventually(lambda: is_idle(on), "its idleness", STEP_S)
        on.stage(bundle(tmp_path / "v2", 2))
        assert on.ended(2).state == "committed"
        # The shadow is over by the clock: who looks may be too late to see it idle.
        shadow = on.daemon.log_until_now().partition(": staged -> shadowing")[2]
        shadow = shadow.partition(": shadowing -> canary")[0]
        assert f"model {MODEL} version 1 leaves memory: not asked for" in shadow
        assert way(on, 2)[-5:] == ["shadowing", "canary", "canary", "probation", "committed"]
        assert on.status().previous == 1


def test_an_idle_active_version_answers_after_a_rollback_from_probation(tmp_path: Path) -> None:
    steps: dict[str, Any] = {"shadow_s": 0.0, "canary_s": 0.2, "probation_s": 300.0}
    with Device(tmp_path, more=idle(tmp_path), **steps) as on:
        eventually(lambda: is_idle(on), "its idleness", STEP_S)
        on.stage(bundle(tmp_path / "v2", 2))
        on.reach(2, "probation")
        assert on.order("rollback", reason="a person said so").status == 200
        assert on.reach(2, "rolled-back", "failed").state == "rolled-back"
        assert on.ask().version == "1"


# -- unloaded by a person --------------------------------------------------------------------------


def unload(on: Device) -> None:
    assert on.post(f"/v2/repository/models/{MODEL}/unload").status == 200
    assert state_of(on, 1) == ("UNAVAILABLE", "unloaded")


@pytest.mark.parametrize("source", ["store", "seed"][:: every(2)])
def test_a_version_unloaded_during_the_shadow_stays_out_and_the_next_one_goes_to_probation(
    tmp_path: Path, source: str
) -> None:
    seed = add_constant(tmp_path / "seed.onnx", 1.0, note="seed") if source == "seed" else None
    # Only the clock ends this shadow: it must be long enough to unload something meanwhile.
    with Device(tmp_path, seed=seed, shadow_s=8.0, canary_s=300.0, probation_s=300.0) as on:
        if seed is None:
            commit_first(on, tmp_path)
        on.stage(bundle(tmp_path / "v2", 2))
        on.reach(2, "shadowing")
        unload(on)
        release = on.reach(2, "probation")
        assert "somebody unloaded version 1" in release.reason
        eventually(lambda: on.ask().version == "2", "its answer", STEP_S)
        assert state_of(on, 1)[0] in {"", "UNAVAILABLE"}
        assert on.order("promote").status == 200
        assert on.ended(2).state == "committed"
        assert is_not_called_bad(on, 2)
        assert on.ask().version == "2"
        assert on.status().previous == 1
        assert on.order("rollback").status == 200
        eventually(lambda: on.ask().version == "1", "the way back to it", STEP_S)


@pytest.mark.parametrize("source", ["store", "seed"])
def test_a_rollback_leaves_a_version_out_that_somebody_had_unloaded(
    tmp_path: Path, source: str
) -> None:
    seed = add_constant(tmp_path / "seed.onnx", 1.0, note="seed") if source == "seed" else None
    with Device(tmp_path, seed=seed, shadow_s=300.0, probation_s=300.0, blocks_min=4096) as on:
        if seed is None:
            on.stage(bundle(tmp_path / "v1", 1))
            on.reach(1, "probation")
            on.order("promote")
            assert on.ended(1).state == "committed"
        unload(on)
        on.stage(bundle(tmp_path / "v2", 2))
        on.reach(2, "probation")
        assert "shadowing" not in way(on, 2)
        eventually(lambda: on.ask().version == "2", "its answer", STEP_S)
        assert on.order("rollback", reason="a person said so").status == 200
        assert on.reach(2, "rolled-back", "failed").state == "rolled-back"
        assert on.ask().status == 503
        assert state_of(on, 1)[0] in {"", "UNAVAILABLE"}
        assert not on.status().disabled
        assert on.post(f"/v2/repository/models/{MODEL}/load").status == 200
        assert on.ask().version == "1"


# -- it cannot be loaded any more ------------------------------------------------------------------


@pytest.mark.parametrize("state", ["shadowing", "canary", "probation"][:: every(2)])
def test_a_version_on_trial_goes_on_when_the_active_one_is_damaged_on_the_disk(
    tmp_path: Path, state: str
) -> None:
    steps: dict[str, Any] = {**UNHURRIED, "probation_s": 3.0}
    if state != "shadowing":
        steps["shadow_s"] = 0.0
    if state == "probation":
        steps["canary_s"] = 0.2
    with Device(tmp_path, **steps) as on:
        on.stage(bundle(tmp_path / "v1", 1))
        assert on.ended(1).state == "committed"
        on.stage(bundle(tmp_path / "v2", 2))
        on.reach(2, state)
        damage(on, 1)
        on.restart()
        assert on.ended(2).state == "committed"
        assert is_not_called_bad(on, 2)
        assert on.ask().version == "2"
        if state != "probation":
            (row,) = [each for each in on.history() if each.event == "first" and each.version == 2]
            assert "the active version cannot be loaded" in row.reason


def test_a_good_version_is_compared_with_one_whose_files_were_damaged_after_it_was_loaded(
    tmp_path: Path,
) -> None:
    with Device(tmp_path, shadow_s=0.0, canary_s=0.3, probation_s=0.3) as on:
        commit_first(on, tmp_path)
        damage(on, 1)
        on.stage(bundle(tmp_path / "v2", 2))
        assert on.ended(2).state == "committed"
        assert "canary" in way(on, 2)
        assert is_not_called_bad(on, 2)


def test_a_rollback_leads_to_a_version_in_memory_whose_files_were_damaged(tmp_path: Path) -> None:
    with Device(tmp_path, shadow_s=0.0, canary_s=300.0, blocks_min=4096) as on:
        commit_first(on, tmp_path)
        on.stage(bundle(tmp_path / "v2", 2))
        on.reach(2, "canary")
        damage(on, 1)
        assert on.order("rollback", reason="a person said so").status == 200
        assert on.reach(2, "rolled-back", "failed").state == "rolled-back"
        assert on.ask().version == "1"


def test_a_way_back_that_is_blocked_does_not_make_the_candidate_bad(tmp_path: Path) -> None:
    with Device(tmp_path, shadow_s=0.0, canary_s=300.0, probation_s=300.0, blocks_min=4096) as on:
        on.stage(bundle(tmp_path / "v1", 1))
        on.reach(1, "probation")
        on.order("promote")
        assert on.ended(1).state == "committed"
        path = bundle(tmp_path / "v2", 2)
        on.stage(path)
        on.reach(2, "canary")
        damage(on, 1)
        on.restart()
        on.reach(2, "probation")
        assert on.order("rollback", reason="a person said so").status == 503
        assert on.ended(2).state == "failed"
        on.order("clear")
        assert on.post("/admin/releases", {"path": str(path)}).status == 200


def test_a_version_is_not_blamed_for_the_signature_of_the_one_that_answers(tmp_path: Path) -> None:
    first = tmp_path / "keyring.json"
    first.write_bytes(keyring(["ann"], version=1).write())
    settings: Mapping[str, Any] = {"shadow_s": 0.0, "canary_s": 0.3, "probation_s": 0.3}
    with Device(tmp_path, managed=True, keyring=str(first), **settings) as on:
        on.stage(signed_bundle(tmp_path / "v1", 1, "ann"))
        assert on.ended(1).state == "committed"
        following = keyring(["bob"], version=2, signed_by=["ann", "bob"]).write()
        target = "/admin/keyring?force=true"
        assert on.daemon.request("POST", target, following, admin=True).status == 200
        on.stage(signed_bundle(tmp_path / "v2", 2, "bob"))
        assert on.ended(2).state == "committed"
        assert "canary" in way(on, 2), "version 1 answers from memory"
        assert is_not_called_bad(on, 2)


def test_a_bad_version_is_still_called_bad_beside_a_damaged_active_one(tmp_path: Path) -> None:
    path = bundle(tmp_path / "v2", 2, bad_models.fails_on_some)
    with Device(tmp_path, shadow_s=0.0, canary_s=300.0, blocks_min=4096) as on:
        commit_first(on, tmp_path)
        on.begin_traffic()
        on.is_up.set()
        damage(on, 1)
        on.stage(path)
        release = on.ended(2)
        assert release.state == "rolled-back"
        # A row of failures, or their share: what is sure first, as the traffic comes.
        assert release.cause in {"errors", "verdict"}, release.reason
        assert "errors" in release.reason or "in a row" in release.reason
        assert on.post("/admin/releases", {"path": str(path)}).status == 400


# -- taken back by the crash loop ------------------------------------------------------------------


@pytest.mark.parametrize("state", ["shadowing", "canary"][:: every(2)])
def test_a_mended_version_goes_on_when_the_crash_loop_takes_the_active_one_back(
    tmp_path: Path, state: str
) -> None:
    steps: dict[str, Any] = {**UNHURRIED, "probation_s": 0.5, "committed_crashes_max": 1}
    points = ""
    if state == "canary":
        steps["shadow_s"] = 0.0
        points = "release.canary.begun=kill"  # it is not in memory yet
    with Device(tmp_path, failpoints=points, **steps) as on:
        on.stage(bundle(tmp_path / "v1", 1))
        assert on.ended(1).state == "committed"
        on.stage(bundle(tmp_path / "v2", 2))
        if state == "canary":
            on.died()
            on.restart()
        else:
            on.reach(2, state)
            on.restart(signal.SIGKILL)
        assert on.ended(2).state == "committed"
        assert on.release(1).cause == "crashed"  # type: ignore[union-attr]
        status = on.status()
        assert (status.active, status.previous, status.disabled) == (2, None, "")
        assert status.releases[0].active is None
        assert on.ask().version == "2"


def test_a_mended_version_is_compared_with_what_the_crash_loop_went_back_to(tmp_path: Path) -> None:
    seed = add_constant(tmp_path / "seed.onnx", 1.0, note="seed")
    steps: dict[str, Any] = {**UNHURRIED, "probation_s": 0.3, "committed_crashes_max": 1}
    with Device(tmp_path, seed=seed, **steps) as on:
        on.stage(bundle(tmp_path / "v2", 2), mode="manual")
        promote(on, 2)
        on.stage(bundle(tmp_path / "v3", 3))
        assert on.reach(3, "shadowing").active == 2
        on.restart(signal.SIGKILL)
        assert on.ended(2).state == "rolled-back"
        eventually(lambda: getattr(on.release(3), "active", None) == 1, "the seed", STEP_S)
        assert on.order("promote").status == 200
        assert on.ended(3).state == "committed"
        assert on.status().previous == 1
