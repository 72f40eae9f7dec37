"""The fleet's orders on a real daemon: what they may do, and what a person's decision is worth."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.models import add_constant
from tests.release_device import Device, bundle
from tests.release_traffic import ask_json

pytestmark = pytest.mark.integration

SLOW: dict[str, Any] = {"shadow_s": 30.0, "canary_s": 30.0, "probation_s": 300.0}


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    """A device on which the configuration's version 1 answers, under traffic."""
    seed = add_constant(tmp_path / "seed.onnx", 1.0, note="seed")
    with Device(tmp_path, seed=seed, **SLOW) as running:
        running.begin_traffic(ask_json)
        yield running
        assert running.traffic.faults() == []


def as_fleet(device: Device, *, whether: bool = True) -> None:
    """Let this process count as the fleet, or as a person again."""
    fleet = [f"uid:{os.getuid()}"] if whether else []
    device.take_settings(**SLOW, fleet=fleet)


def test_the_agent_cannot_get_past_a_hold_by_not_naming_a_rollout(
    device: Device, tmp_path: Path
) -> None:
    made = bundle(tmp_path / "v2", 2)
    assert device.order("hold", reason="a demo today").status == 200
    as_fleet(device)
    for more in ({}, {"rollout": "r-1"}):
        answer = device.post("/admin/releases", {"path": str(made), **more})
        assert answer.status == 403
        assert "a local hold of 'm' stands (a demo today)" in answer.json()["error"]
    for verb in ("clear", "promote", "rollback", "hold"):
        assert device.order(verb).status == 403
    assert device.post("/admin/models/m/traffic", {"weights": {}}).status == 403
    assert device.post("/v2/repository/models/m/unload").status == 403
    as_fleet(device, whether=False)
    assert device.order("clear").status == 200
    as_fleet(device)
    assert device.stage(made).source == f"fleet uid={os.getuid()}"
    assert device.order("abort", rollout="r-2").status == 200, "whose it is, nobody said"
    assert device.ended(2).cause == "aborted"


def test_a_rollout_ends_its_own_release_and_nobody_else_s(device: Device, tmp_path: Path) -> None:
    device.stage(bundle(tmp_path / "v2", 2), mode="manual")
    device.reach(2, "staged")
    as_fleet(device)
    answer = device.order("abort")
    assert answer.status == 409
    assert "ordered by a person" in answer.json()["error"]
    device.stage(bundle(tmp_path / "v3", 3), rollout="r-1", mode="manual")
    device.reach(3, "staged")
    answer = device.order("abort", rollout="r-2")
    assert answer.status == 409
    assert "ordered by rollout 'r-1'" in answer.json()["error"]
    assert device.order("abort", rollout="r-1").status == 200
    assert device.ended(3).cause == "aborted"


def commit(device: Device, folder: Path, version: int) -> None:
    device.stage(bundle(folder, version), mode="manual")
    device.reach(version, "staged")
    assert device.order("promote").status == 200
    device.reach(version, "probation")
    assert device.order("promote").status == 200
    assert device.ended(version).state == "committed"


def test_a_revert_goes_back_leaves_no_override_and_does_it_once(
    device: Device, tmp_path: Path
) -> None:
    for version in (2, 3):
        commit(device, tmp_path / f"v{version}", version)
    assert device.order("hold").status == 200
    assert device.order("revert", to=2, rollout="r-1").status == 403
    assert device.order("clear").status == 200
    as_fleet(device)
    answer = device.order("revert", to=1, rollout="r-1")
    assert answer.status == 409
    assert "comes version 2, and not version 1" in answer.json()["error"]
    assert device.status().active == 3
    assert device.order("revert", to=2, rollout="r-1", reason="labels flicker").status == 200
    status = device.status()
    assert (status.active, status.previous, status.override) == (2, None, None)
    release = device.release(3)
    assert release is not None
    assert (release.state, release.cause) == ("rolled-back", "reverted")
    assert release.reason == f"labels flicker; reverted by fleet r-1 uid={os.getuid()}"
    assert status.bad == [], "the fleet's will says nothing of what it does on this device"
    for more in ({"to": 2}, {}):
        assert device.order("revert", rollout="r-1", **more).status == 409
    assert device.status().active == 2
    device.stage(bundle(tmp_path / "v4", 4), rollout="r-2")
    answer = device.order("revert", rollout="r-1")
    assert answer.status == 409
    assert "under way" in answer.json()["error"]
