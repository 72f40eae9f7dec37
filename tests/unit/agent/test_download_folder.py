"""The folder of blobs: what is kept, and how much room is needed."""

import errno
import os
from pathlib import Path

import pytest

from agent.download import disk
from agent.errors import DiskFullError, StateError
from tests.agent_downloads import Device, SignedFile, noise, publish, sha256

DATA = noise(5000)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    web = tmp_path / "web"
    publish(web, DATA)
    return Device(tmp_path / "device", [web.as_uri()])


def _signed(data: bytes = DATA) -> SignedFile:
    digest = sha256(data)
    return SignedFile(len(data), digest, f"models/m/1/{digest}.model.onnx")


def test_what_nobody_needs_is_removed(device: Device) -> None:
    device.fetch(_signed())
    one, other = "1" * 64, "2" * 64
    for digest in (one, other):
        device.downloads.part(digest).write_bytes(b"x")
        Path(f"{device.downloads.part(digest)}.tags").write_bytes(b"{}")
    assert device.downloads.sweep({_signed().sha256, one}) == 2
    left = {path.name for path in device.downloads.blob(one).parent.iterdir()}
    assert left == {_signed().sha256, f"{one}.part", f"{one}.part.tags"}


def test_room_is_needed_for_what_is_missing_and_for_the_copy_of_the_runtime(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = _signed(noise(40_960, seed=1))
    reserve = device.settings.reserve_bytes
    free = [2 * 40_960 + reserve]
    monkeypatch.setattr(disk, "free_bytes", lambda _: free[0])
    device.downloads.preflight([missing])
    free[0] -= 1
    with pytest.raises(DiskFullError, match="make room for 1 more"):
        device.downloads.preflight([missing])
    # What is there already needs no room a second time.
    device.downloads.part(missing.sha256).write_bytes(noise(20_480, seed=1))
    device.downloads.preflight([missing])


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (errno.ENOSPC, DiskFullError),
        (errno.EDQUOT, DiskFullError),
        (errno.EROFS, StateError),
        (errno.EIO, StateError),
    ],
)
def test_errors_of_the_disk_say_who_has_to_act(code: int, error: type[StateError]) -> None:
    with pytest.raises(StateError) as raised, disk.translated(Path("x")):
        raise OSError(code, os.strerror(code))
    assert type(raised.value) is error
    assert "x" in raised.value.message


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "device").write_bytes(b"no folder")
    with pytest.raises(StateError):
        disk.free_bytes(tmp_path / "device" / "blobs")
