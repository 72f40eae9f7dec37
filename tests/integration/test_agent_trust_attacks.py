"""Each attack of the TUF specification against a device: nothing is believed, nothing changes.

What is not here: extraneous dependencies, since a release depends on nothing.
"""

import contextlib
from pathlib import Path

import msgspec
import pytest
from tuf.api.metadata import MetaFile

from agent.errors import Distrust, NetworkError, TrustError
from agent.trust.complaints import Complaints
from tests.hostile_http import (
    Fault,
    HostileServer,
    drip,
    drip_head,
    endless,
    replace,
    reset,
    stall,
    status,
    truncate,
)
from tests.trusting import (
    Device,
    assert_refused,
    change,
    path_of,
    published_repository,
    refreshed_device,
    repository_server,
)
from tests.tuf_attacks import CHANNEL, DAY_S, FLEET, TufRepository, plan, signer

pytestmark = pytest.mark.integration

ROLES = ("timestamp", "snapshot", "targets", "releases", "rollouts")


repository = pytest.fixture(published_repository)
server = pytest.fixture(repository_server)
device = pytest.fixture(refreshed_device)


def hurry(device: Device, **limits: float) -> None:
    """Let it be less patient than devices are, in one way: so it is known what it complains of."""
    device.settings = dict(limits)
    device.restart()


def relent(device: Device) -> None:
    """Let it be patient again, without a restart."""
    http = device.repository._http
    http._settings = msgspec.structs.replace(http._settings, read_s=60.0)


@pytest.mark.parametrize("role", ROLES)
def test_metadata_signed_by_a_stranger_is_refused(
    device: Device, repository: TufRepository, role: str
) -> None:
    repository.signers[role] = [signer()]
    change(repository)
    assert_refused(device, Distrust.THRESHOLD)


def test_a_root_that_too_few_signed_is_refused(device: Device, repository: TufRepository) -> None:
    repository.signed["root"].version += 1
    repository.signers["root"].pop()
    change(repository)
    assert_refused(device, Distrust.THRESHOLD)


def test_a_root_that_only_the_new_keys_signed_is_refused(
    device: Device, repository: TufRepository
) -> None:
    repository.rotate("root", 2)
    repository.write(["root"])
    assert_refused(device, Distrust.THRESHOLD)


@pytest.mark.parametrize("role", ROLES)
def test_endless_metadata_is_refused(
    device: Device, repository: TufRepository, server: HostileServer, role: str
) -> None:
    change(repository)
    server.fault(path_of(repository, role), endless(100))
    assert_refused(device, Distrust.TOO_LARGE)
    # Of two refreshes; what the kernel took beyond it is a matter of its buffers.
    assert sum(device.counted) < 11 * 1024 * 1024


def test_an_endless_root_and_endless_plans_are_refused(
    device: Device, repository: TufRepository, server: HostileServer
) -> None:
    server.fault("/metadata/2.root.json", replace(b" " * 600_000))
    assert_refused(device, Distrust.TOO_LARGE)
    server.heal()
    change(repository)
    server.fault("/artifacts/rollouts/*", endless())
    assert_refused(device, Distrust.TOO_LARGE)


@pytest.mark.parametrize("fault", [drip(), drip_head()], ids=["body", "head"])
@pytest.mark.parametrize("role", ["timestamp", "snapshot", "rollouts"])
def test_a_slow_drip_is_given_up(
    device: Device, repository: TufRepository, server: HostileServer, role: str, fault: Fault
) -> None:
    change(repository)
    server.fault(path_of(repository, role), fault)
    hurry(device, metadata_s=1.0)
    assert_refused(device, Distrust.TOO_SLOW)


@pytest.mark.parametrize("fault", [truncate(50), reset(50), stall(50), stall()])
@pytest.mark.parametrize("role", ["timestamp", "releases"])
def test_a_broken_link_is_no_ones_fault_and_changes_nothing(
    device: Device, repository: TufRepository, server: HostileServer, role: str, fault: Fault
) -> None:
    change(repository)
    before = device.digest()
    server.fault(path_of(repository, role), fault)
    hurry(device, read_s=0.7)
    with pytest.raises(NetworkError):
        device.repository.refresh()
    assert device.digest() == before
    server.heal()
    relent(device)
    assert device.repository.refresh().changed


def test_an_older_repository_is_refused(
    device: Device, repository: TufRepository, tmp_path: Path
) -> None:
    repository.copy_to(tmp_path / "old")
    change(repository)
    device.repository.refresh()
    repository.put_back(tmp_path / "old")
    assert_refused(device, Distrust.ROLLED_BACK)


@pytest.mark.parametrize("role", ["snapshot", "targets", "releases", "rollouts"])
def test_an_older_part_in_a_newer_whole_is_refused(
    device: Device, repository: TufRepository, role: str
) -> None:
    change(repository)
    device.repository.refresh()
    repository.signed[role].version -= 1
    if role == "snapshot":
        repository.announce()
    else:
        repository.signed["snapshot"].meta[f"{role}.json"].version -= 1
        repository.publish("snapshot")
    assert_refused(device, Distrust.ROLLED_BACK)


def test_a_frozen_repository_is_refused_once_it_expired_and_what_is_known_stays(
    device: Device, repository: TufRepository
) -> None:
    device.repository.refresh()
    device.hands.system_s += 31 * DAY_S
    device.restart()
    assert not device.repository.is_fresh()
    error = assert_refused(device, Distrust.EXPIRED)
    complaints = Complaints()
    assert [complaints.is_new(error), complaints.is_new(error)] == [True, False]
    assert complaints.settle()
    for signed in repository.signed.values():
        signed.expires = repository.in_days(60)
    repository.rotate("timestamp")
    repository.publish()
    assert device.repository.refresh().changed
    assert device.repository.is_fresh()


@pytest.mark.parametrize("role", ROLES)
def test_expired_metadata_is_refused(device: Device, repository: TufRepository, role: str) -> None:
    repository.signed[role].expires = repository.in_days(-1)
    change(repository)
    assert_refused(device, Distrust.EXPIRED)


def test_an_expired_root_is_refused_but_known(device: Device, repository: TufRepository) -> None:
    repository.signed["root"].expires = repository.in_days(-1)
    repository.signed["root"].version += 1
    change(repository)
    with pytest.raises(TrustError) as caught:
        device.repository.refresh()
    assert caught.value.reason is Distrust.EXPIRED
    assert (device.folder / "root_history" / "2.root.json").is_file()
    assert_refused(device, Distrust.EXPIRED)


@pytest.mark.parametrize("role", ["snapshot", "targets", "releases", "rollouts"])
def test_parts_of_two_states_are_refused(
    device: Device, repository: TufRepository, server: HostileServer, role: str
) -> None:
    change(repository)
    between = repository.bytes_of(role)
    change(repository)
    server.fault(path_of(repository, role), replace(between))
    assert_refused(device, Distrust.MIXED)


@pytest.mark.parametrize("role", ["snapshot", "targets", "releases"])
def test_another_file_than_was_signed_is_refused(
    device: Device, repository: TufRepository, role: str
) -> None:
    wrong = MetaFile(2, length=None, hashes={"sha256": "0" * 64})
    if role == "snapshot":
        repository.signed["timestamp"].snapshot_meta = wrong
    else:
        repository.signed["snapshot"].meta[f"{role}.json"] = wrong
    change(repository)
    assert_refused(device, Distrust.WRONG_HASH)


def test_other_plans_than_were_signed_are_refused(
    device: Device, repository: TufRepository, server: HostileServer
) -> None:
    change(repository)
    size = len(repository.files[f"rollouts/{CHANNEL}.json"])
    for body in (b"x" * size, b"x", b""):
        server.fault("/artifacts/rollouts/*", replace(body))
        assert_refused(device, Distrust.WRONG_HASH)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>log in</html>",
        b"{}",
        b"[" * 15_000,
        b'{"signed": 1, "signatures": {}}',
        b"\xff",
    ],
)
@pytest.mark.parametrize("role", ["timestamp", "releases"])
def test_garbage_is_refused(
    device: Device, repository: TufRepository, server: HostileServer, role: str, body: bytes
) -> None:
    change(repository)
    server.fault(path_of(repository, role), replace(body))
    assert_refused(device, Distrust.MALFORMED)


def test_one_role_in_the_place_of_another_is_refused(
    device: Device, repository: TufRepository, server: HostileServer
) -> None:
    change(repository)
    server.fault("/metadata/timestamp.json", replace(repository.bytes_of("snapshot")))
    assert_refused(device, Distrust.MALFORMED)


@pytest.mark.parametrize(("fleet", "channel"), [("other", CHANNEL), (FLEET, "other")])
def test_plans_for_others_are_refused(
    device: Device, repository: TufRepository, fleet: str, channel: str
) -> None:
    repository.set_plans(plan("digits", 1), fleet=fleet, channel=channel)
    repository.publish()
    assert_refused(device, Distrust.WRONG_FLEET)


def test_plans_that_nobody_understands_are_refused(
    device: Device, repository: TufRepository
) -> None:
    repository.add_file("rollouts", f"rollouts/{CHANNEL}.json", b'{"schema_version": 99}')
    repository.publish()
    assert_refused(device, Distrust.MALFORMED)


def test_all_is_well_again_after_every_attack(
    device: Device, repository: TufRepository, server: HostileServer
) -> None:
    change(repository)
    for role in ROLES:
        for fault in (replace(b"{}"), truncate(10), status(404), endless()):
            server.fault(path_of(repository, role), fault)
            with contextlib.suppress(Exception):
                device.repository.refresh()
            server.heal()
    assert device.repository.refresh().changed
    assert device.repository.release("digits", 2) is not None
