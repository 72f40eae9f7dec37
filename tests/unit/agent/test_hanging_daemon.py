"""A daemon that takes connections and answers none holds up neither the agent's turns nor its stop.

It is a socket here that listens and is never read: the kernel counts who connected.
"""

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from agent import daemon
from agent.config import Config
from agent.daemon import ANYWAY_S, Agent, Event
from agent.device.plans import Outlook
from agent.errors import AgentError, RuntimeAwayError
from agent.explaining import explained_last
from agent.member import Member
from agent.messages import Reported
from agent.presence import AWAY
from agent.runtime_client import admin as admin_socket
from agent.runtime_client.admin import Admin
from agent.settings.device import Device, Runtime
from agent.settings.messaging import Broker, Mqtt, Telemetry

SHORT_S = 0.05


@dataclass
class Hanging:
    """The daemon's socket."""

    path: Path
    listening: socket.socket

    def asked(self) -> int:
        """Count who connected since the last time."""
        count = 0
        try:
            while True:
                self.listening.accept()[0].close()
                count += 1
        except BlockingIOError:
            return count


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Hanging]:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()
        listening.settimeout(0)
        yield Hanging(path, listening)


@pytest.fixture
def agent(tmp_path: Path, hanging: Hanging) -> Iterator[Agent]:
    config = Config(
        device=Device(id="till-7", fleet="shop"),
        runtime=Runtime(admin_socket=str(hanging.path), timeout_s=SHORT_S),
        mqtt=Mqtt(brokers=(Broker(host="127.0.0.1", port=9),)),  # the link is not started
        telemetry=Telemetry(interval_s=0.0),
    )
    state = tmp_path / "agent"
    state.mkdir(mode=0o700)
    agent = Agent(Member(config, state, None), {})
    yield agent
    agent._control.stop()
    agent._parts.messaging.stop()
    agent._parts.close()


def test_one_question_waits_for_a_daemon_that_hangs_and_the_next_ones_do_not(
    hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_socket, "AWAY_S", 3600.0)  # these four are within it
    admin = Admin(hanging.path, SHORT_S)
    with pytest.raises(RuntimeAwayError, match="timed out"):
        admin.metrics()
    for _ in range(3):
        with pytest.raises(RuntimeAwayError, match="timed out"):
            admin.releases()
    assert hanging.asked() == 1


def test_a_daemon_that_is_not_there_is_asked_each_time(tmp_path: Path) -> None:
    admin = Admin(tmp_path / "none", SHORT_S)
    with pytest.raises(RuntimeAwayError, match="No such file"):
        admin.metrics()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / "none"))  # it begins: refused now, not "no such file"
        with pytest.raises(RuntimeAwayError, match="refused"):
            admin.metrics()


@pytest.mark.parametrize("end", [Event.STOP, Event.DAMAGED, Event.MOVED])
def test_nothing_is_asked_any_more_once_the_agent_ends(
    agent: Agent, hanging: Hanging, end: Event
) -> None:
    for event in (Event.BIRTH, Event.CHANGED, end):
        agent._put(event)
    agent._loop()
    assert hanging.asked() == 0


def test_without_telemetry_a_daemon_that_is_away_is_reported_within_a_minute(
    agent: Agent,
) -> None:
    before_s = time.monotonic()
    assert before_s < agent._next_look_s() <= time.monotonic() + ANYWAY_S
    assert ANYWAY_S <= 60.0
    agent._happened(Event.COLLECT)
    outbox = agent._parts.messaging.outbox
    assert outbox.take(9) == []  # nothing is measured
    agent._happened(Event.CHANGED)
    (row,) = outbox.take(9)
    assert msgspec.json.decode(row.payload, type=Reported).runtime == AWAY


def test_a_loop_without_telemetry_looks_at_its_time(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "ANYWAY_S", SHORT_S)
    seen: list[Event | None] = []

    def happened(event: Event | None) -> None:
        seen.append(event)
        if event is Event.CHANGED:
            agent._put(Event.STOP)

    monkeypatch.setattr(agent, "_happened", happened)
    agent._loop()
    assert seen[:3] == [Event.BIRTH, Event.COLLECT, Event.CHANGED]


def test_an_agent_that_ends_for_another_enrolment_fails_and_says_what_moved(
    agent: Agent,
) -> None:
    agent._renewal.moved = ("brokers", "journal")
    agent._put(Event.MOVED)
    agent._put(Event.STOP)
    with pytest.raises(AgentError, match=r"other values of: brokers, journal; the agent ends"):
        agent._check_end()


def test_explain_says_that_the_daemon_is_away_and_what_was_decided_before(agent: Agent) -> None:
    last = [Outlook("m"), Outlook("n")]
    away = RuntimeAwayError("it hangs")
    assert explained_last(agent._parts, "n", last, away) == [
        "nothing can be decided now: it hangs",
        "before that:",
        "n: none, because the channel has no plan for it",
    ]
    assert len(explained_last(agent._parts, "", last, away)) == 4
    with pytest.raises(RuntimeAwayError, match="it hangs"):
        explained_last(agent._parts, "x", last, away)
