"""Signed commands over a real broker, and a broker that forges them: the installed agent."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.envelope import unwrap, write_command
from agent.messages import Command, CommandResult
from agent.topics import Kind, Topics, parse
from edge_runtime.trust.signatures import SigningKey
from tests.agent_site import FLEET, NAME, STORY_S, Site, key_of, site
from tests.daemons import eventually
from tests.repositories import tree
from tests.signing import public_key_file, signing_key

pytestmark = pytest.mark.integration

KEY = signing_key("commands")
TOPICS = Topics(FLEET, NAME)
FLOOD = 300
RSS_BYTES_MAX = 40_000_000
"""By so much the process may grow while it is attacked."""


@dataclass
class Commander:
    """Gives commands to the device, and hears its answers.

    Attributes:
        here: The site.
        counter: Of the last command.
    """

    here: Site
    counter: int = 0
    sent: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def order(
        self, op: str, *, key: SigningKey = KEY, late: bool = False, **arguments: object
    ) -> str:
        """Sign and send a command; gives its name."""
        self.counter += 1
        name = f"c{self.counter}"
        command = Command(
            fleet=FLEET,
            device=NAME,
            op=op,
            id=name,
            counter=self.counter,
            expires_s=time.time() + (-60.0 if late else 600.0),
            arguments=arguments,
        )
        self.sent[name] = TOPICS.command(op, name), write_command(command, key.sign)
        self.again(name)
        return name

    def again(self, name: str) -> None:
        """Send the same bytes."""
        self.here.operator.publish(*self.sent[name])

    def answers(self, name: str) -> list[CommandResult]:
        """Give the answers to a command, whose signatures are checked; each number once."""
        key = key_of(self.here.agent)
        found: dict[tuple[str, int], CommandResult] = {}
        for topic, data in self.here.operator.everything():
            parsed = parse(topic)
            if parsed is None or parsed.kind is not Kind.RESULT or parsed.id != name:
                continue
            envelope, payload = unwrap(parsed, data, {key.key_id: key.public_key})
            result = msgspec.json.decode(payload, type=CommandResult)
            found[envelope.boot_id, envelope.seq] = result
        return list(found.values())

    def answer(self, name: str) -> CommandResult:
        """Wait for the answer."""
        eventually(lambda: bool(self.answers(name)), f"the answer to {name}", STORY_S)
        return self.answers(name)[0]

    def refused(self) -> dict[str, int]:
        """Give how many commands the device refused, by reason."""
        found: dict[str, int] = self.here.agent.status()["commands"]["refused"]
        return found

    def seen(self) -> int:
        """Give how many messages the device refused or dropped."""
        found: dict[str, Any] = self.here.agent.status()["commands"]
        return int(sum(found["refused"].values()) + found["dropped"])


@pytest.fixture
def commander(tmp_path: Path) -> Iterator[Commander]:
    with site(tmp_path, "[telemetry]\ninterval_s = 3600.0\n") as here:
        here.agent.set("mqtt", f'command_key = "{public_key_file(tmp_path, "commands")}"')
        here.agent.start()
        eventually(here.agent.is_up, "the agent", STORY_S)
        # What is ordered before the broker knows that it listens is kept for nobody: presence is
        # said after that.
        eventually(lambda: bool(here.operator.heard.get(TOPICS.state)), "its presence", STORY_S)
        yield Commander(here)


def test_signed_commands_are_obeyed_and_answered_and_replays_are_refused(
    commander: Commander,
) -> None:
    here = commander.here
    before = len(here.operator.of(Kind.METRICS))
    first = commander.order("collect")
    assert commander.answer(first).state == "succeeded"
    eventually(lambda: len(here.operator.of(Kind.METRICS)) > before, "a batch", STORY_S)
    checked_s = here.agent.status()["repository"]["checked_s"]
    assert commander.answer(commander.order("check-now")).state == "succeeded"
    eventually(
        lambda: here.agent.status()["repository"]["checked_s"] > checked_s, "a look", STORY_S
    )
    louder = commander.answer(commander.order("log-level", level="debug"))
    assert (louder.state, louder.data) == ("succeeded", {"level": "debug"})
    wrong = commander.answer(commander.order("log-level", level="everything"))
    assert (wrong.state, "level" in wrong.text) == ("rejected", True)
    unknown = commander.answer(commander.order("reboot"))
    assert (unknown.state, "unknown" in unknown.text) == ("rejected", True)

    commander.again(first)
    eventually(lambda: "replayed" in commander.refused(), "the refusal", STORY_S)
    here.agent.stop()
    here.agent.start()
    eventually(here.agent.is_up, "the agent", STORY_S)
    eventually(lambda: here.agent.status()["broker"]["is_connected"], "the link", STORY_S)
    commander.again(first)
    eventually(lambda: "replayed" in commander.refused(), "the refusal again", STORY_S)
    assert commander.answer(commander.order("collect")).state == "succeeded"
    assert len(commander.answers(first)) == 1


def test_updates_are_paused_until_the_end_of_the_pause_and_then_go_on(
    commander: Commander,
) -> None:
    here = commander.here
    until_s = time.time() + 3600.0
    paused = commander.answer(commander.order("pause-updates", until_s=until_s))
    assert (paused.state, paused.data) == ("succeeded", {"until_s": until_s})
    too_long = commander.order("pause-updates", until_s=time.time() + 400 * 86_400.0)
    assert commander.answer(too_long).state == "rejected"
    here.publish(2, here.bundle("good", 2))
    eventually(
        lambda: any("paused" in each["text"] for each in _outlooks(here)), "the reason", STORY_S
    )
    assert "paused" in here.agent.command("explain", "m").stdout
    assert here.device.release(2) is None
    here.agent.stop()
    here.agent.start()
    eventually(here.agent.is_up, "the agent", STORY_S)
    assert here.agent.status()["paused_until_s"] == until_s
    # The pause ends by itself, without another command.
    ends_s = time.time() + 3.0
    assert commander.answer(commander.order("pause-updates", until_s=ends_s)).state == "succeeded"
    last = here.reached("succeeded", 2)
    assert last.at_s >= ends_s
    started = [each for each in here.operator.jobs() if each.step == "planned"]
    assert all(each.at_s >= ends_s for each in started)
    assert here.device.traffic.faults() == []


def _outlooks(here: Site) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = here.agent.status()["repository"]["models"]
    return found


def _rss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) * 1024


def test_a_hostile_broker_changes_nothing_on_the_device_and_is_only_counted(
    commander: Commander,
) -> None:
    here = commander.here
    operator, agent = here.operator, here.agent
    here.publish(2, here.bundle("good", 2))
    here.reached("succeeded", 2)
    old = here.repository.timestamp()
    here.publish(3, here.bundle("better", 3))
    here.reached("succeeded", 3)
    assert agent.process is not None
    pid, rss = agent.process.pid, _rss(agent.process.pid)
    trusted, blobs = tree(agent.state / "tuf"), tree(agent.state / "blobs")
    statuses = len(operator.jobs())

    # Announcements: an old timestamp, garbage, and more than a timestamp can be; all retained.
    garbage = (old, b"", b"\xff" * 1000, b"{}", b"[" * 60_000, b"x" * 2_000_000, old)
    for each in garbage:
        operator.announce(each)
    # Commands: forged, of another key, late, at another place, no commands, very large, too many.
    command = TOPICS.command("collect", "x1")
    commander.order("pause-updates", key=signing_key("stranger"), until_s=time.time() + 1000)
    commander.order("collect", late=True)
    moved = commander.sent[commander.order("collect", late=True)][1]
    operator.publish(command, moved)
    for each in (b"", b"\x00" * 100, b'{"payload": 1}', b"9" * 15_000, b"x" * 1_000_000):
        operator.publish(command, each)
    for number in range(FLOOD):
        operator.publish(TOPICS.command("collect", f"y{number}"), b'{"payload":"{}"}')
    # Births and states under the device's name, and what was never meant for it.
    birth = json.dumps({"boot_id": "0", "seq": 1, "payload": "{}", "signature": "", "key_id": ""})
    for topic in (TOPICS.birth, TOPICS.state, TOPICS.reported):
        operator.publish(topic, birth.encode(), retain=True)
        operator.publish(topic, b"\xfe" * 200_000, retain=True)

    # It is there, the same process, and does what it is told rightly: what comes while too many
    # wait is dropped, so these first.
    eventually(lambda: commander.seen() >= FLOOD, "the end of the flood", STORY_S)
    eventually(lambda: agent.status()["broker"]["is_connected"], "the link", STORY_S)
    assert commander.answer(commander.order("collect")).state == "succeeded"
    refused, status = commander.refused(), agent.status()
    assert refused["forged"] >= 2
    assert refused["expired"] >= 1
    assert refused["malformed"] >= 3
    assert status["clone"] == "none"
    assert status["paused_until_s"] == 0
    assert agent.process.pid == pid
    assert agent.process.poll() is None
    assert _rss(pid) < rss + RSS_BYTES_MAX
    assert tree(agent.state / "tuf") == trusted
    assert tree(agent.state / "blobs") == blobs
    assert here.device.status().active == 3
    assert len(operator.jobs()) == statuses
    assert here.device.traffic.faults() == []
    # What is true is heard all the same.
    here.publish(4, here.bundle("best", 4))
    here.reached("succeeded", 4)
    assert "Traceback" not in agent.log(), agent.log()
