"""A device refreshes what it believes from a real repository over real HTTP."""

from pathlib import Path

import pytest

from agent.errors import ConfigError, NetworkError, RefusedError
from tests.hostile_http import HostileServer, status
from tests.trusting import Device, new_device, repository_server
from tests.tuf_attacks import CHANNEL, TufRepository, plan

pytestmark = pytest.mark.integration

FILES = {"manifest.json": b"{}", "model.onnx": b"weights", "sub/model.onnx.chunks": b"index"}


@pytest.fixture
def repository(tmp_path: Path) -> TufRepository:
    made = TufRepository(tmp_path / "repository")
    made.add_release("digits", 1, FILES)
    made.set_plans(plan("digits", 1))
    made.publish()
    return made


server = pytest.fixture(repository_server)
device = pytest.fixture(new_device)


def test_knows_plans_and_releases_after_a_refresh(device: Device) -> None:
    assert device.repository.plans(CHANNEL) is None
    assert device.repository.release("digits", 1) is None
    assert not device.repository.is_fresh()
    refreshed = device.repository.refresh()
    assert (refreshed.changed, refreshed.timestamp_version, refreshed.plans_version) == (True, 2, 2)
    assert refreshed.fetched_bytes == sum(device.counted) > 3000
    plans = device.repository.plans(CHANNEL)
    assert plans is not None
    assert plans.of("digits") == plan("digits", 1)
    assert device.repository.plans("other") is None
    release = device.repository.release("digits", 1)
    assert release is not None
    assert release.facts.counter == 1
    assert set(release.artifacts) == set(FILES)
    artifact = release.artifacts["sub/model.onnx.chunks"]
    assert artifact.size == len(b"index")
    assert artifact.url_path == f"models/digits/1/sub/{artifact.sha256}.model.onnx.chunks"
    assert device.repository.release("digits", 2) is None
    assert device.repository.is_fresh()


def test_knows_the_same_after_a_restart_without_a_network(
    device: Device, server: HostileServer
) -> None:
    device.repository.refresh()
    plans, release = device.repository.plans(CHANNEL), device.repository.release("digits", 1)
    before = device.digest()
    server.fault("*", status(500))
    server.forget()
    device.restart()
    assert device.repository.plans(CHANNEL) == plans
    assert device.repository.release("digits", 1) == release
    assert device.repository.is_fresh()
    assert server.paths() == []
    assert device.digest() == before


def test_another_process_can_read_while_a_refresh_is_under_way(device: Device) -> None:
    device.repository.refresh()
    device.folder.with_name("tuf.new").mkdir()
    before = device.digest()
    device.restart()
    assert device.repository.plans(CHANNEL) is not None
    assert device.digest() == before
    device.folder.rename(device.folder.with_name("tuf.old"))  # in the middle of being replaced
    before = device.digest()
    device.restart()
    assert device.repository.plans(CHANNEL) is not None
    assert device.digest() == before


def test_a_look_at_nothing_new_costs_two_requests_and_writes_nothing(
    device: Device, server: HostileServer
) -> None:
    device.repository.refresh()
    before = device.digest()
    inode = device.folder.stat().st_ino
    server.forget()
    refreshed = device.repository.refresh()
    assert not refreshed.changed
    assert server.paths() == ["/metadata/2.root.json", "/metadata/timestamp.json"]
    assert refreshed.fetched_bytes < 1500
    assert (device.digest(), device.folder.stat().st_ino) == (before, inode)


def test_an_announced_timestamp_is_not_downloaded_again(
    device: Device, server: HostileServer, repository: TufRepository
) -> None:
    device.repository.refresh()
    repository.set_plans(plan("digits", 1, sequence=2))
    repository.publish("rollouts")
    server.forget()
    refreshed = device.repository.refresh(repository.timestamp())
    assert refreshed.changed
    assert "/metadata/timestamp.json" not in server.paths()
    assert server.paths()[:2] == ["/metadata/2.root.json", "/metadata/3.snapshot.json"]
    assert len(server.paths()) == 4  # and the metadata of plans, and the plans
    plans = device.repository.plans(CHANNEL)
    assert plans is not None
    assert plans.plans[0].sequence == 2
    server.forget()
    assert not device.repository.refresh(repository.timestamp()).changed
    assert server.paths() == ["/metadata/2.root.json"]


@pytest.mark.parametrize("what", [b"", b"garbage", b"{}" * 100_000, b"[" * 20_000])
def test_a_garbled_announcement_is_as_if_there_was_none(
    device: Device, server: HostileServer, what: bytes
) -> None:
    refreshed = device.repository.refresh(what)
    assert refreshed.changed
    assert "/metadata/timestamp.json" in server.paths()


def test_an_old_announcement_is_as_if_there_was_none(
    device: Device, repository: TufRepository
) -> None:
    old = repository.timestamp()
    repository.announce()
    assert device.repository.refresh().timestamp_version == 3
    repository.announce()
    assert device.repository.refresh(old).timestamp_version == 4


def test_follows_many_roots(device: Device, repository: TufRepository) -> None:
    device.repository.refresh()
    for _ in range(20):
        repository.rotate("root", 2)
    repository.rotate("timestamp")
    repository.announce()
    device.repository.refresh()
    device.restart()
    assert device.floors.versions()["root"].version == 22
    assert device.repository.is_fresh()


def test_a_stick_is_as_good_as_a_server(
    device: Device, repository: TufRepository, server: HostileServer
) -> None:
    device.url = f"file://{repository.folder}"
    device.restart()
    assert device.repository.refresh().changed
    assert device.repository.plans(CHANNEL) is not None
    assert not device.repository.refresh().changed
    assert server.paths() == []


def test_a_channel_without_plans_has_none(device: Device, repository: TufRepository) -> None:
    del repository.signed["rollouts"].targets[f"rollouts/{CHANNEL}.json"]
    repository.publish()
    assert device.repository.refresh().changed
    assert device.repository.plans(CHANNEL) is None
    assert device.repository.release("digits", 1) is not None


def test_a_server_that_is_away_or_fails_is_asked_again_later(
    device: Device, server: HostileServer
) -> None:
    device.repository.refresh()
    before = device.digest()
    for code, error in ((500, NetworkError), (429, NetworkError), (410, RefusedError)):
        server.fault("*timestamp.json", status(code))
        with pytest.raises(error):
            device.repository.refresh()
    server.close()
    with pytest.raises(NetworkError):
        device.repository.refresh()
    assert device.digest() == before
    assert device.repository.plans(CHANNEL) is not None


@pytest.mark.parametrize("text", ["", "not JSON", '{"signed":{},"signatures":[]}'])
def test_a_wrong_first_root_is_the_operators_to_mend(
    device: Device, tmp_path: Path, text: str
) -> None:
    device.root = tmp_path / "root.json"
    device.restart()
    with pytest.raises(ConfigError, match="root"):
        device.repository.refresh()
    device.root.write_text(text)
    with pytest.raises(ConfigError, match="root"):
        device.repository.refresh()
    assert not device.folder.exists()
