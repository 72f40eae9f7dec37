"""What the fleet's own tool signs and serves, a device believes; and nobody else's word."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import Distrust, TrustError
from agent.trust.repository import Following
from fleet.documents.paths import artifact_file_path
from tests.repositories import (
    CHANNEL,
    FLEET,
    MODEL,
    TestRepository,
    make_repository,
    new_repository,
)
from tests.trusting import Device, Hands

pytestmark = pytest.mark.integration

DAY_S = 86_400.0


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[TestRepository]:
    with make_repository(tmp_path) as made:
        yield made


@pytest.fixture
def device(repository: TestRepository, tmp_path: Path) -> Iterator[Device]:
    made = Device(
        tmp_path / "state",
        repository.url,
        repository.root,
        Hands(time.time()),
        following=Following(CHANNEL, FLEET),
    )
    with contextlib.closing(made):
        yield made


def test_a_new_repository_on_a_stick_is_believed_and_has_nothing_to_say(
    device: Device, tmp_path: Path
) -> None:
    empty = new_repository(tmp_path / "new", fleet=FLEET)
    device.url, device.root = empty.url, empty.root
    device.restart()
    device.repository.refresh()
    plans = device.repository.plans(CHANNEL)
    assert plans is None or plans.plans == ()
    assert device.repository.is_fresh()


def test_a_release_and_its_plan_reach_the_device(
    device: Device, repository: TestRepository
) -> None:
    device.repository.refresh(repository.timestamp())
    plans = device.repository.plans(CHANNEL)
    assert plans == repository.plans()
    release = device.repository.release(MODEL, 1)
    assert release is not None
    assert release.facts == repository.facts()
    assert {"manifest.json", "model.onnx"} <= set(release.artifacts)
    for artifact in release.artifacts.values():
        file = repository.layout.artifacts / artifact_file_path(artifact.path, artifact.sha256)
        assert file.stat().st_size == artifact.size


def test_changes_arrive_by_announcement_and_by_looking(
    device: Device, repository: TestRepository
) -> None:
    device.repository.refresh()
    repository.add_bundle(version=2)
    repository.set_plan(version=2)
    assert device.repository.refresh(repository.timestamp()).changed
    repository.refresh()
    assert device.repository.refresh().changed
    assert device.repository.release(MODEL, 2) is not None
    assert device.repository.release(MODEL, 1) is not None


def test_a_repository_that_is_not_signed_anew_is_held(device: Device) -> None:
    device.repository.refresh()
    device.hands.system_s += 200 * DAY_S
    device.restart()
    with pytest.raises(TrustError) as caught:
        device.repository.refresh()
    assert caught.value.reason is Distrust.EXPIRED
    assert not device.repository.is_fresh()


def test_devices_of_another_fleet_refuse_the_plans(device: Device) -> None:
    device.following = Following(CHANNEL, "another-fleet")
    device.restart()
    with pytest.raises(TrustError) as caught:
        device.repository.refresh()
    assert caught.value.reason is Distrust.WRONG_FLEET


def test_the_floor_of_counters_is_the_highest_of_any_signed_release(
    device: Device, repository: TestRepository
) -> None:
    """A stolen online key may choose the release, but not the floor."""
    repository.add_bundle(version=2, min_counter=2)
    repository.add_bundle(version=3)
    device.repository.refresh()
    assert device.repository.min_counter(MODEL) == 2
    assert device.repository.min_counter("another") == 0
