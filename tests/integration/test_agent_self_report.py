"""What a device says of itself over MQTT is true: around a release, and without a daemon."""

import os
import signal
from pathlib import Path
from typing import Final

import msgspec
import pytest

from agent.messages import Presence, Reported, State
from agent.topics import Kind, Topics
from tests.agent_site import FLEET, NAME, STORY_S, Site, site
from tests.daemons import eventually

pytestmark = pytest.mark.integration

OWN: Final = Topics(FLEET, NAME)


def reported(here: Site) -> Reported:
    """Give what was reported last."""
    found = here.operator.of(Kind.REPORTED)
    return msgspec.json.decode(found[-1]["payload"], type=Reported) if found else Reported()


def since_s(here: Site) -> float | None:
    """Give since when the model is as it was reported last."""
    found = reported(here).models.get("m")
    return None if found is None else found.since_s


def states(here: Site) -> list[State]:
    return [
        msgspec.json.decode(data, type=Presence).state
        for name, data in here.operator.everything()
        if name == OWN.state
    ]


def test_a_daemon_that_hangs_keeps_neither_explain_from_the_last_checks_nor_the_agent_from_its_end(
    tmp_path: Path,
) -> None:
    with site(tmp_path, "[telemetry]\ninterval_s = 1.0\n") as here:
        here.agent.set("runtime", "timeout_s = 2.0")
        here.agent.start()
        here.publish(2, here.bundle("good", 2))
        here.reached("succeeded", 2)
        pid = here.device.daemon.process.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            eventually(lambda: reported(here).runtime == "away", "what is not known", STORY_S)
            shown = here.agent.command("explain").stdout
            assert shown.startswith("nothing can be decided now: the runtime does not answer")
            assert "\nbefore that:\nm: " in shown
            assert "  + fleet: " in shown
            assert here.agent.stop() == 0
        finally:
            os.kill(pid, signal.SIGCONT)


def test_a_device_says_what_really_answers_since_when_and_what_was_so_before_its_daemon_went(
    tmp_path: Path,
) -> None:
    with site(tmp_path, "[telemetry]\ninterval_s = 0.3\n") as here:
        here.agent.start()
        eventually(lambda: State.READY in states(here), "the device's presence", STORY_S)
        assert states(here)[0] is State.INIT
        heard = here.operator.everything()
        names = [name for name, _ in heard]
        is_ready = [name == OWN.state and b"ready" in data for name, data in heard].index(True)
        assert {OWN.birth, OWN.reported} <= set(names[:is_ready])
        shown = here.agent.command("status").stdout
        assert "m: version 1 answers, as the daemon's configuration says" in shown

        here.publish(2, here.bundle("good", 2))
        here.reached("succeeded", 2)
        assert "m: version 2 answers (" in here.agent.command("status").stdout
        release = here.device.release(2)
        assert release is not None
        eventually(lambda: since_s(here) == release.updated_s, "since")
        before = reported(here)
        assert (before.runtime, before.models["m"].active) == ("", 2)

        here.device.is_up.clear()
        here.device.daemon.process.kill()
        eventually(lambda: reported(here).runtime == "away", "what is not known", STORY_S)
        after = reported(here)
        assert after.models == before.models
        assert after.known_s is not None
        # When it was so for sure: the daemon may be gone before it was asked once more.
        assert release.updated_s <= after.known_s <= after.at_s
        assert here.agent.stop() == 0
        here.agent.start()
        eventually(lambda: len(states(here)) > 3, "the next run", STORY_S)
        eventually(lambda: reported(here).at_s > after.at_s, "its word", STORY_S)
        assert reported(here).models == before.models
