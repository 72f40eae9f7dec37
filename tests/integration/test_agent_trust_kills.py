"""kill -9 and failing disks at every step of a refresh: old or new is believed, never a mixture."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import NetworkError, StateError
from edge_runtime import failpoints
from edge_runtime.failpoints import NAMES, VARIABLE
from tests.hostile_http import HostileServer, status
from tests.trusting import Device, new_device, repository_server
from tests.tuf_attacks import CHANNEL, TufRepository, plan

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent.parent
STEPS = [name for name in NAMES if name.startswith("agent.trust.") and "root" not in name]
OLD, NEW = 2, 3
DISK_FULL = ("agent.trust.verified", "agent.trust.synced", "agent.trust.moved")


@pytest.fixture
def repository(tmp_path: Path) -> TufRepository:
    made = TufRepository(tmp_path / "repository")
    made.set_plans(plan("digits", 1))
    made.publish()
    return made


server = pytest.fixture(repository_server)
device = pytest.fixture(new_device)


def child(device: Device, failpoint: str = "") -> int:
    device.close()
    command = [sys.executable, "-m", "tests.trust_child"]
    done = subprocess.run(
        [*command, str(device.state), device.url, str(device.root)],
        env={**os.environ, VARIABLE: failpoint},
        cwd=ROOT,
        check=False,
        capture_output=True,
    )
    device.restart()
    return done.returncode


def believed(device: Device) -> int | None:
    plans = device.repository.plans(CHANNEL)
    return plans.plans[0].version if plans else None


def names(device: Device) -> list[str]:
    return sorted(path.name for path in device.state.iterdir() if "agent.db" not in path.name)


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("step", STEPS)
def test_killed_anywhere_it_believes_the_old_or_the_new(
    device: Device, repository: TufRepository, step: str, *, is_first: bool
) -> None:
    if not is_first:
        device.repository.refresh()
    repository.set_plans(plan("digits", 2))
    repository.publish()
    assert child(device, f"{step}=kill") == -signal.SIGKILL
    assert believed(device) in {None if is_first else 1, 2}
    assert child(device) == NEW
    assert believed(device) == 2
    assert names(device) == ["tuf"]
    assert device.floors.versions()["rollouts"].version == NEW


def test_killed_while_a_new_root_is_kept_it_still_knows_it(
    device: Device, repository: TufRepository, server: HostileServer
) -> None:
    device.repository.refresh()
    repository.rotate("timestamp")
    server.fault("*timestamp.json", status(500))
    assert child(device, "agent.trust.root=kill") == -signal.SIGKILL
    server.heal()
    server.forget()
    repository.announce()
    assert child(device) == OLD
    assert "/metadata/2.root.json" not in server.paths()
    assert device.folder.joinpath("root.json").readlink() == Path("root_history/2.root.json")


@pytest.fixture
def trap(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def set_trap(text: str) -> None:
        monkeypatch.setattr(failpoints, "_set", failpoints.parse(text))

    return set_trap


@pytest.mark.parametrize("what", ["full", "error"])
@pytest.mark.parametrize("step", DISK_FULL)
def test_a_disk_that_fails_changes_nothing_and_is_asked_again(
    device: Device, repository: TufRepository, trap: Callable[[str], None], step: str, what: str
) -> None:
    device.repository.refresh()
    repository.set_plans(plan("digits", 2))
    repository.publish()
    trap(f"{step}={what}@1")
    before = (device.folder / "timestamp.json").read_bytes()
    with pytest.raises(StateError):
        device.repository.refresh()
    assert (device.folder / "timestamp.json").read_bytes() == before
    assert believed(device) == 1
    device.restart()
    assert believed(device) == 1
    assert device.repository.refresh().changed
    assert believed(device) == 2
    assert names(device) == ["tuf"]


def wreck_json(folder: Path) -> None:
    for path in folder.glob("*.json"):
        target = path.resolve()
        target.write_bytes(b"\0" * target.stat().st_size)


def wreck_history(folder: Path) -> None:
    shutil.rmtree(folder / "root_history")
    (folder / "root_history").write_text("a file")


def wreck_names(folder: Path) -> None:
    for name in ("timestamp.json", "snapshot.json", "rollouts.json", "root.json"):
        (folder / name).unlink()
        (folder / name).mkdir()


def wreck_plans(folder: Path) -> None:
    next((folder / "plans").iterdir()).write_bytes(b"rotten")


def wreck_all(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("a file")


@pytest.mark.parametrize("wreck", [wreck_json, wreck_history, wreck_names, wreck_plans, wreck_all])
def test_metadata_that_cannot_be_read_is_dropped_and_fetched_from_the_shipped_root(
    device: Device, repository: TufRepository, wreck: Callable[[Path], None]
) -> None:
    repository.rotate("root", 2)
    repository.announce()
    device.repository.refresh()
    wreck(device.folder)
    device.restart()
    assert believed(device) is None
    device.repository.refresh()
    assert believed(device) == 1
    device.restart()
    assert believed(device) == 1
    assert not device.repository.refresh().changed


def test_a_network_that_is_away_does_not_keep_wrecked_metadata_from_being_dropped_later(
    device: Device, server: HostileServer
) -> None:
    device.repository.refresh()
    wreck_names(device.folder)
    device.restart()
    server.fault("*", status(500))
    with pytest.raises((NetworkError, StateError)):
        device.repository.refresh()
    server.heal()
    assert device.repository.refresh().changed
    assert believed(device) == 1
