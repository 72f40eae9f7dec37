"""A device whose clock is not to be believed, and one whose disk is full: the installed agent.

The system clock of one process cannot be set to 1970 here (there is no faketime, and namespaces
shift only the clocks that count time awake), so the process is told that its clock is not to be
trusted; what a clock at 1970 means for trust is tested with an injected one in
``test_agent_trust*`` and ``tests/unit/agent/test_clock.py``.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent_fault_runs import large
from tests.agent_site import STORY_S, site
from tests.daemons import eventually

pytestmark = pytest.mark.integration

DISK_BYTES = 4 * 2**20


def test_a_device_without_a_clock_updates_all_the_same(tmp_path: Path) -> None:
    with site(tmp_path) as here:
        text = here.agent.config.read_text("utf-8")
        text = text.replace('clock_is_trusted = "yes"', 'clock_is_trusted = "no"')
        here.agent.config.write_text(text, "utf-8")
        here.agent.start()
        eventually(here.agent.is_up, "the agent", STORY_S)
        assert here.agent.status()["clock"]["is_trusted"] is False
        here.publish(2, here.bundle("good", 2))
        here.reached("succeeded", 2)
        here.agent.stop()
        here.agent.start()
        here.publish(3, here.bundle("better", 3))
        here.reached("succeeded", 3)
        assert here.device.traffic.faults() == []


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount a disk of a few MiB, where that is allowed."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder.mkdir(exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "tmpfs", str(folder)]
    done = subprocess.run([mount, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run([umount, "--lazy", str(folder)], check=True)


def test_a_full_disk_stops_the_update_and_nothing_else_and_room_lets_it_go_on(
    tmp_path: Path,
) -> None:
    with site(tmp_path, "[telemetry]\ninterval_s = 0.5\n") as here, small_disk(here.agent.state):
        agent = here.agent
        agent.start()
        eventually(agent.is_up, "the agent", STORY_S)
        here.publish(2, here.bundle("good", 2))
        here.reached("succeeded", 2)
        ballast = agent.state / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        here.publish(3, here.bundle("large", 3, make=lambda path: large(path, 3)))
        asked = len(here.device.traffic.asked)
        eventually(lambda: len(here.device.traffic.asked) > asked + 200, "answers", STORY_S)
        assert agent.is_up()
        assert agent.process is not None
        assert agent.process.poll() is None
        assert here.device.release(3) is None
        ballast.unlink()
        agent.command("check-now", expect=None)
        here.reached("succeeded", 3)
        assert here.device.status().active == 3
        assert here.device.traffic.faults() == []
        assert agent.stop() == 0
