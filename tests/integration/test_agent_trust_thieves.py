"""Thieves of keys and folders: what they can do at most, and how a fleet gets rid of them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import Distrust, NetworkError, TrustError
from tests.hostile_http import (
    HostileServer,
    status,
)
from tests.trusting import (
    Device,
    change,
    published_repository,
    refreshed_device,
    repository_server,
)
from tests.tuf_attacks import CHANNEL, DAY_S, TufRepository, plan

pytestmark = pytest.mark.integration


repository = pytest.fixture(published_repository)
server = pytest.fixture(repository_server)
device = pytest.fixture(refreshed_device)


def test_a_wiped_folder_cannot_be_rolled_back(
    device: Device, repository: TufRepository, tmp_path: Path
) -> None:
    repository.copy_to(tmp_path / "old")
    change(repository)
    device.repository.refresh()
    repository.put_back(tmp_path / "old")
    shutil.rmtree(device.folder)
    device.restart()
    with pytest.raises(TrustError) as caught:
        device.repository.refresh()
    assert caught.value.reason is Distrust.ROLLED_BACK
    assert not device.folder.exists()
    change(repository)
    assert device.repository.refresh().changed


def test_a_folder_from_a_backup_is_not_believed_below_the_floors(
    device: Device, repository: TufRepository, tmp_path: Path
) -> None:
    shutil.copytree(device.folder, tmp_path / "backup", symlinks=True)
    change(repository)
    device.repository.refresh()
    shutil.rmtree(device.folder)
    shutil.copytree(tmp_path / "backup", device.folder, symlinks=True)
    device.restart()
    assert device.repository.plans(CHANNEL) is None
    assert device.repository.refresh().changed


@pytest.mark.parametrize("role", ["timestamp", "snapshot"])
def test_the_fleet_recovers_from_the_highest_version_that_a_thief_signed(
    device: Device, repository: TufRepository, role: str
) -> None:
    version = repository.signed[role].version
    repository.signed[role].version = 2**31
    repository.announce()
    device.repository.refresh()
    repository.rotate("timestamp")
    repository.rotate("snapshot")
    repository.signed[role].version = version
    change(repository)
    assert device.repository.refresh().changed
    assert device.repository.release("digits", 2) is not None
    assert device.floors.versions()[role].version < 2**31


def test_the_online_key_cannot_sign_a_release(device: Device, repository: TufRepository) -> None:
    for role in ("rollouts", "targets"):
        repository.add_release("evil", 1, {"manifest.json": b"{}"})
        repository.signed[role].targets |= repository.signed["releases"].targets
    del repository.signed["targets"].targets
    repository.signed["targets"].targets = {}
    repository.signed["releases"].targets = {
        path: target
        for path, target in repository.signed["releases"].targets.items()
        if "evil" not in path
    }
    repository.publish()
    device.repository.refresh()
    assert device.repository.release("evil", 1) is None
    assert device.repository.release("digits", 1) is not None


def test_the_offline_key_of_releases_cannot_sign_plans(
    device: Device, repository: TufRepository
) -> None:
    name = f"rollouts/{CHANNEL}.json"
    repository.signed["releases"].targets[name] = repository.signed["rollouts"].targets.pop(name)
    repository.publish()
    device.repository.refresh()
    assert device.repository.plans(CHANNEL) is None


def facts_of_another(repository: TufRepository) -> None:
    targets = repository.signed["releases"].targets
    targets["models/digits/2/manifest.json"].unrecognized_fields["custom"]["version"] = 1


def no_facts(repository: TufRepository) -> None:
    targets = repository.signed["releases"].targets
    del targets["models/digits/2/manifest.json"].unrecognized_fields["custom"]


def another_digest(repository: TufRepository) -> None:
    targets = repository.signed["releases"].targets
    targets["models/digits/2/model.onnx"].hashes = {"sha512": "0" * 128}


@pytest.mark.parametrize("mistake", [facts_of_another, no_facts, another_digest])
def test_a_release_that_contradicts_itself_is_refused_alone(
    device: Device, repository: TufRepository, mistake: Callable[[TufRepository], None]
) -> None:
    repository.add_release("digits", 2, {"manifest.json": b"{}2", "model.onnx": b"more"})
    mistake(repository)
    repository.publish()
    device.repository.refresh()
    with pytest.raises(TrustError) as caught:
        device.repository.release("digits", 2)
    assert caught.value.reason is Distrust.MALFORMED
    assert device.repository.release("digits", 1) is not None


def test_a_stolen_key_is_worth_nothing_once_the_root_replaced_it_whatever_else_is_broken(
    device: Device, repository: TufRepository, server: HostileServer
) -> None:
    stolen = repository.signers["timestamp"]
    repository.rotate("timestamp")
    server.fault("/metadata/timestamp.json", status(503))
    with pytest.raises(NetworkError):
        device.repository.refresh()
    server.heal()
    repository.signers["timestamp"] = stolen
    repository.announce()
    (repository.folder / "metadata" / "2.root.json").unlink()  # the thief hides the new root
    for _ in range(2):
        with pytest.raises(TrustError) as caught:
            device.repository.refresh()
        assert caught.value.reason is Distrust.THRESHOLD
        # What the stolen key may have signed is not believed any more either.
        assert device.repository.plans(CHANNEL) is None
        device.restart()


def test_a_date_after_what_offline_keys_signed_moves_no_clock(
    device: Device, repository: TufRepository
) -> None:
    device.hands.synchronised = False
    device.restart()
    far = repository.now_s + 10_000 * DAY_S
    for role in ("rollouts", "snapshot", "timestamp"):
        repository.signed[role].expires = repository.in_days(10_000)
    repository.set_plans(plan("digits", 1, sequence=2), issued_s=far)
    repository.publish("rollouts")
    before_s = device.clock.floor_s
    for dated_s in (far, repository.signed["root"].expires.timestamp()):
        repository.set_plans(plan("digits", 1, sequence=2), issued_s=dated_s)
        repository.publish("rollouts")
        assert device.repository.refresh().changed
        # Such a date contradicts the metadata that it came with: it says nothing of the time.
        assert device.clock.floor_s == before_s
        assert device.repository.is_fresh()


def carried_ahead(device: Device, repository: TufRepository) -> None:
    """Have a thief of the online keys carry the time of a device without a clock ahead."""
    device.hands.synchronised = False
    device.restart()
    for role in ("rollouts", "snapshot", "timestamp"):
        repository.signed[role].expires = repository.in_days(10_000)
    repository.set_plans(plan("digits", 1, sequence=2), issued_s=repository.now_s + 29 * DAY_S)
    repository.publish("rollouts")
    device.repository.refresh()


def test_a_rotation_that_signs_a_thief_s_plans_again_does_not_carry_the_clock_away_anew(
    device: Device, repository: TufRepository
) -> None:
    carried_ahead(device, repository)
    for role in ("timestamp", "snapshot"):
        repository.rotate(role)
    for role in ("rollouts", "snapshot", "timestamp"):
        repository.signed[role].expires = repository.in_days(7)
    repository.publish("rollouts")
    assert device.repository.refresh().changed
    assert device.repository.is_fresh()
    assert device.clock.wall_s() < repository.now_s + DAY_S


def test_a_look_that_keeps_nothing_believes_new_keys_wherever_replaced_ones_carried_the_time(
    device: Device, repository: TufRepository
) -> None:
    carried_ahead(device, repository)
    for role in ("rollouts", "snapshot", "timestamp"):
        repository.signed[role].expires = repository.in_days(7)
    repository.set_plans(plan("digits", 2))
    repository.publish("rollouts")
    with pytest.raises(TrustError) as caught:  # no key was replaced yet
        device.repository.verify()
    assert caught.value.reason is Distrust.EXPIRED
    for role in ("timestamp", "snapshot"):
        repository.rotate(role)
    repository.publish("rollouts")
    before = device.digest()
    device.repository.verify()
    assert device.digest() == before
    assert device.clock.wall_s() >= repository.now_s + 29 * DAY_S
    repository.signed["timestamp"].expires = repository.in_days(-100)
    repository.announce()
    device.hands.system_s = repository.now_s
    with pytest.raises(TrustError):  # what is expired by the device's own time still is
        device.repository.verify()
    repository.signed["timestamp"].expires = repository.in_days(7)
    repository.announce()
    device.repository.verify()
    assert device.repository.refresh().changed
    assert device.clock.wall_s() == pytest.approx(repository.now_s, abs=1.0)


def test_a_clock_comes_back_from_where_a_thief_carried_it_once_the_root_replaced_the_stolen_keys(
    device: Device, repository: TufRepository
) -> None:
    """The fleet signs for a day, as ever: it need not know how far each clock was carried."""
    device.hands.synchronised = False
    device.restart()
    kept = {role: repository.signed[role].expires for role in ("rollouts", "snapshot", "timestamp")}
    for role in kept:
        repository.signed[role].expires = repository.in_days(10_000)
    repository.set_plans(plan("digits", 1, sequence=2), issued_s=repository.now_s + 29 * DAY_S)
    repository.publish("rollouts")
    device.repository.refresh()
    device.restart()
    assert device.clock.wall_s() == repository.now_s + 29 * DAY_S
    repository.rotate("timestamp")
    repository.rotate("snapshot")
    for role in kept:
        repository.signed[role].expires = repository.in_days(1)
    change(repository)
    assert device.repository.refresh().changed
    assert device.repository.is_fresh()
    device.restart()
    assert device.clock.wall_s() == pytest.approx(repository.now_s, abs=1.0)


def test_a_clock_that_becomes_synchronised_is_believed_wherever_a_thief_carried_the_time(
    device: Device, repository: TufRepository
) -> None:
    device.hands.synchronised = False
    device.restart()
    repository.set_plans(plan("digits", 1, sequence=2), issued_s=repository.now_s + 20 * DAY_S)
    repository.publish("rollouts")
    device.repository.refresh()
    assert device.clock.wall_s() == repository.now_s + 20 * DAY_S
    device.hands.synchronised = True
    for _ in range(2):
        assert device.clock.is_trusted()
        assert device.clock.wall_s() == device.hands.system_s
        device.restart()


def test_a_synchronised_clock_is_not_carried_away_by_a_wrong_one_of_the_fleet(
    device: Device, repository: TufRepository
) -> None:
    repository.set_plans(plan("digits", 1, sequence=2), issued_s=repository.now_s + 20 * DAY_S)
    repository.publish("rollouts")
    device.repository.refresh()
    assert device.clock.floor_s <= device.hands.system_s
    assert device.repository.is_fresh()
