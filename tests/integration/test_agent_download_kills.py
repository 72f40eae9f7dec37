"""kill -9 and failing disks at every step of a download: the next try goes on where it was."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import DiskFullError, StateError
from agent.records.budget import RESERVATION_BYTES
from edge_runtime import failpoints
from edge_runtime.failpoints import NAMES, VARIABLE
from fleet.documents.chunks import write_chunks
from tests.agent_downloads import PROMPT, SignedFile, World, chunked, noise, publish, world
from tests.hostile_http import PIECE_BYTES

pytestmark = pytest.mark.integration

SIZE = 50_000
OLD = noise(20 * SIZE)
NEW = OLD[: 5 * SIZE] + noise(8 * SIZE, seed=1) + OLD[13 * SIZE :]
NEW_BYTES = 8 * SIZE
STEPS = [name for name in NAMES if name.startswith("agent.download.")]
WHOLE = [(step, False) for step in STEPS if step != "agent.download.copied"]
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as found:
        yield found


def _ordered(here: World, *, reuse: bool) -> SignedFile:
    """Order the new file of a device, which has the old one."""
    file = publish(here.web, NEW)
    device = here.device()
    device.store.add(OLD)
    said = {"size": file.size, "sha256": file.sha256, "url_path": file.url_path}
    (device.folder / "order.json").write_text(json.dumps(said), "utf-8")
    if reuse:
        (device.folder / "new.chunks").write_bytes(write_chunks(chunked(NEW, SIZE)))
        (device.folder / "old.chunks").write_bytes(write_chunks(chunked(OLD, SIZE)))
    device.close()
    return file


def _child(here: World, failpoint: str = "") -> int:
    command = [sys.executable, "-m", "tests.download_child", str(here.folder / "device")]
    done = subprocess.run(
        [*command, here.server.url],
        env={**os.environ, VARIABLE: failpoint},
        cwd=ROOT,
        check=False,
        capture_output=True,
    )
    return done.returncode


@pytest.mark.parametrize(("step", "reuse"), [*WHOLE, *((step, True) for step in STEPS)])
def test_killed_anywhere_it_goes_on_where_it_was(here: World, step: str, *, reuse: bool) -> None:
    file = _ordered(here, reuse=reuse)
    late = "received" in step or "written" in step or "copied" in step
    died = _child(here, f"{step}=kill@{3 if late else 1}")
    assert died == -signal.SIGKILL
    part = here.folder / "device" / "blobs" / f"{file.sha256}.part"
    there = part.stat().st_size if part.exists() else len(NEW)
    assert there > 0
    here.server.forget()
    assert _child(here) == 0
    blobs = here.folder / "device" / "blobs"
    assert [path.name for path in blobs.iterdir() if "tags" not in path.name] == [file.sha256]
    assert (blobs / file.sha256).read_bytes() == NEW
    missing = range(there, len(NEW)) if not reuse else range(max(there, 5 * SIZE), 13 * SIZE)
    assert here.server.sent_bytes.get(file.path, 0) == len(missing)
    device = here.device()
    wasted = device.budget.spent("artifact") - (NEW_BYTES if reuse else len(NEW))
    device.close()
    # Whatever had arrived is in the count; what was reserved and had not is too.
    assert 0 <= wasted <= RESERVATION_BYTES["artifact"] + PIECE_BYTES


def test_killed_again_and_again_it_loses_no_byte_and_comes_to_its_end(here: World) -> None:
    file = _ordered(here, reuse=True)
    lives = 0
    while _child(here, "agent.download.written=kill@4") != 0:
        lives += 1
        assert lives < 40
    assert lives >= 3
    assert (here.folder / "device" / "blobs" / file.sha256).read_bytes() == NEW
    begun = [int(seen.headers["range"][6:].partition("-")[0]) for seen in here.server.requests]
    assert begun == sorted(begun)
    device = here.device()
    assert device.budget.spent("artifact") >= NEW_BYTES
    device.close()


def test_killed_after_a_reservation_no_byte_is_missing_from_the_count(here: World) -> None:
    _ordered(here, reuse=False)
    assert _child(here, "agent.budget.reserved=kill") == -signal.SIGKILL
    device = here.device()
    assert 0 < device.budget.spent("artifact") <= RESERVATION_BYTES["artifact"]
    device.close()


@pytest.mark.parametrize("step", STEPS)
def test_a_disk_that_fails_is_told_and_the_next_try_goes_on(
    here: World, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = publish(here.web, NEW)
    device = here.device()
    device.store.add(OLD)
    indexes = (chunked(NEW, SIZE), [chunked(OLD, SIZE)])
    monkeypatch.setattr(failpoints, "_set", failpoints.parse(f"{step}=error@1"))
    with pytest.raises(StateError, match="check the disk"):
        device.fetch(file, *indexes)
    assert device.fetch(file, *indexes) == NEW
    assert (device.store.folder / chunked(OLD, SIZE).file_sha256).read_bytes() == OLD


def test_what_is_there_is_kept_when_the_disk_is_full_and_the_reserve_is_free(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = publish(here.web, NEW)
    device = here.device()
    monkeypatch.setattr(failpoints, "_set", failpoints.parse("agent.download.written=full@4"))
    with pytest.raises(DiskFullError, match="make room"):
        device.fetch(file)
    there = device.downloads.part(file.sha256).stat().st_size
    assert there >= 3 * 1000
    here.server.forget()
    assert device.fetch(file) == NEW
    assert here.server.sent_bytes[file.path] == len(NEW) - there


def test_what_is_there_goes_when_even_the_reserve_is_eaten(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = publish(here.web, NEW)
    device = here.device()
    other = device.downloads.blob("0" * 64)
    other.write_bytes(b"another artifact")
    monkeypatch.setattr(failpoints, "_set", failpoints.parse("agent.download.written=full@4"))
    device.tell = lambda _: None
    device.downloads._settings = type(PROMPT)(reserve_bytes=1 << 60)
    monkeypatch.setattr(device.downloads, "preflight", lambda _: None)
    with pytest.raises(DiskFullError):
        device.fetch(file)
    assert not device.downloads.part(file.sha256).exists()
    assert other.read_bytes() == b"another artifact"
