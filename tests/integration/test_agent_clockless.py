"""The installed agent on a device whose clock cannot be believed."""

import signal
import textwrap
import time
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from fleet.documents.release import GuardRails
from fleet.repository.state import now
from tests.agent_site import STORY_S, Site, site
from tests.daemons import eventually
from tests.release_device import MODEL

pytestmark = pytest.mark.integration

DAY_S: Final = 86_400.0
IN_1970: Final = '''
"""The system clock of this process began in 1970; what stands in a file was added since."""
import datetime
import time
from pathlib import Path

_SET = Path(__file__).with_name("set")
_begun_s = time.monotonic()


def _time():
    return time.monotonic() - _begun_s + float(_SET.read_text())


class _Kind(type):
    def __instancecheck__(cls, it):
        return isinstance(it, _datetime)

    def __subclasscheck__(cls, kind):
        return issubclass(kind, _datetime)


_datetime = datetime.datetime


class _Told(_datetime, metaclass=_Kind):
    @classmethod
    def now(cls, tz=None):
        return _datetime.fromtimestamp(_time(), tz)

    @classmethod
    def utcnow(cls):
        return _datetime.fromtimestamp(_time(), datetime.timezone.utc).replace(tzinfo=None)


time.time = _time
time.time_ns = lambda: int(_time() * 1e9)
datetime.datetime = _Told
'''


def _clock_s(here: Site) -> float:
    return float(here.agent.status()["clock"]["wall_s"])


def _explained(here: Site) -> str:
    return str(here.agent.ask("explain", MODEL))


def test_a_thief_of_the_online_key_who_moves_the_clock_gets_no_more_changes_than_are_signed(
    tmp_path: Path,
) -> None:
    """Every order is signed as if a week had passed; the offline key allows one change a day."""
    rails = GuardRails(changes_per_day_max=1)
    with site(tmp_path) as here:
        text = here.agent.config.read_text("utf-8")
        text = text.replace('clock_is_trusted = "yes"', 'clock_is_trusted = "no"')
        here.agent.config.write_text(text, "utf-8")
        for version in (1, 2, 3):
            here.repository.add(here.bundle(f"bundle-{version}", version), guard_rails=rails)
        here.agent.start()
        here.plan(2)
        here.reached("succeeded", 2)
        weeks = 0

        def steal(version: int, **plan: object) -> None:
            nonlocal weeks
            weeks += 1
            at = now() + timedelta(weeks=weeks)
            here.plan(version, at=at, rollout=f"stolen-{weeks}", **plan)
            eventually(
                lambda: _clock_s(here) > time.time() + 7 * DAY_S * weeks - 60, "the move", STORY_S
            )

        for _ in range(3):
            steal(3)
            eventually(lambda: "changes-per-day" in _explained(here), "the hold", STORY_S)
        # The way back is one more than that, and the last.
        steal(2, order="revert", revert_to=1)
        eventually(lambda: here.device.status().active == 1, "the way back", STORY_S)
        here.agent.stop(signal.SIGKILL)
        here.agent.start()
        eventually(here.agent.is_up, "the agent", STORY_S)
        for version in (3, 2):
            steal(version)
            eventually(lambda: "changes-per-day" in _explained(here), "the hold", STORY_S)
        assert here.device.status().active == 1
        assert here.device.release(3) is None
        assert here.device.traffic.faults() == []


def test_a_device_that_wakes_up_in_1970_follows_its_plan_and_recovers_when_its_clock_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lying = tmp_path / "lying"
    lying.mkdir()
    (lying / "sitecustomize.py").write_text(textwrap.dedent(IN_1970), "utf-8")
    (lying / "set").write_text("0", "utf-8")
    with site(tmp_path) as here:
        monkeypatch.setenv("PYTHONPATH", str(lying))
        here.agent.start()
        monkeypatch.delenv("PYTHONPATH")
        here.publish(2, here.bundle("good", 2))
        here.reached("succeeded", 2)
        clock = here.agent.status()["clock"]
        assert not clock["is_trusted"]
        # It knows what the plan says, and no more.
        assert time.time() - 300 < clock["wall_s"] <= time.time() + 1
        (lying / "set.new").write_text(str(time.time()), "utf-8")
        (lying / "set.new").replace(lying / "set")
        eventually(lambda: here.agent.status()["clock"]["is_trusted"], "trust", STORY_S)
        assert here.agent.ask("check-now")["problem"] == ""
        assert here.agent.stop() == 0
