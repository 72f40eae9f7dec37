"""Two devices with one key, a copied disk: both notice, hold and say so until one is made new."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.messages import Birth
from agent.topics import Kind, Topics
from tests.agent_site import FLEET, NAME, STORY_S, AgentProcess, Operator
from tests.brokers import mosquitto
from tests.daemons import eventually
from tests.repositories import new_repository, served

pytestmark = pytest.mark.integration

WITHIN_S = 150.0


def births(operator: Operator) -> list[Birth]:
    return [msgspec.json.decode(each["payload"], type=Birth) for each in operator.of(Kind.BIRTH)]


def clone_of(agent: AgentProcess) -> str:
    try:
        found: dict[str, Any] = agent.status()
    except Exception:  # noqa: BLE001 - it is starting
        return ""
    return str(found["clone"])


def is_cloned(agent: AgentProcess) -> bool:
    return clone_of(agent) == "cloned"


def has_noted(agent: AgentProcess) -> bool:
    """Tell whether it remembers that also at its next start: it logs after it has written."""
    return "another device signs with this one's key" in agent.log()


def test_a_disk_that_is_copied_while_its_agent_runs_makes_both_hold(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with mosquitto(tmp_path) as broker:
        config = (
            f'[device]\nid = "{NAME}"\nfleet = "{FLEET}"\n'
            f'[runtime]\nadmin_socket = "{tmp_path}/nobody.sock"\n'
            "[mqtt]\nreconnect_first_s = 0.2\nreconnect_most_s = 1.0\n"
            f'[[mqtt.brokers]]\nhost = "127.0.0.1"\nport = {broker.port}\ntls = false\n'
        )
        operator = Operator(broker)
        one, two = (AgentProcess(tmp_path / name, config) for name in ("one", "two"))
        try:
            one.start()
            eventually(lambda: bool(births(operator)), "the first birth", STORY_S)
            with one.frozen():  # a disk is copied as it is at one moment
                shutil.copytree(one.state, two.state, ignore=shutil.ignore_patterns("*.sock"))
            two.start()
            for agent in (one, two):
                eventually(partial(is_cloned, agent), "notice", WITHIN_S)
        finally:
            one.close()
            two.close()
            operator.close()


def test_two_agents_with_one_key_notice_it_hold_and_say_so_until_somebody_sees_to_it(
    tmp_path: Path,
) -> None:
    for name in ("one", "two", "origin", "broker"):
        (tmp_path / name).mkdir()
    repository = new_repository(tmp_path / "origin", fleet="shop")
    repository.add_bundle(model="digits")
    repository.set_plan(model="digits")
    with served(repository), mosquitto(tmp_path / "broker") as broker:
        config = (
            f'[device]\nid = "{NAME}"\nfleet = "{FLEET}"\nclock_is_trusted = "yes"\n'
            f'[runtime]\nadmin_socket = "{tmp_path}/nobody.sock"\n'
            f'[repository]\nurl = "{repository.url}"\nroot = "{repository.root}"\n'
            "[mqtt]\nreconnect_first_s = 0.2\nreconnect_most_s = 1.0\n"
            f'[[mqtt.brokers]]\nhost = "127.0.0.1"\nport = {broker.port}\ntls = false\n'
        )
        operator = Operator(broker)
        one, two = (AgentProcess(tmp_path / name, config) for name in ("one", "two"))
        two.set("mqtt", 'protocol = "3.1.1"')
        try:
            one.start()
            eventually(lambda: bool(births(operator)), "the first birth", STORY_S)
            assert one.stop() == 0
            shutil.copytree(one.state, two.state)
            one.start()
            eventually(one.is_up, "the first agent", STORY_S)
            assert clone_of(one) == "none"
            two.start()
            for agent in (one, two):
                eventually(partial(is_cloned, agent), "notice", WITHIN_S)
                eventually(partial(has_noted, agent), "its being written down", WITHIN_S)
            eventually(
                lambda: any("clone" in birth.conditions for birth in births(operator)),
                "a birth that says so",
                WITHIN_S,
            )
            assert "prepare-image" in one.command("status").stdout
            # It is remembered: a restart alone makes nobody the only one.
            assert one.stop() == 0
            assert two.stop() == 0
            one.start()
            eventually(one.is_up, "the first agent again", STORY_S)
            assert clone_of(one) == "cloned"
            two.command("prepare-image", "--yes")
            two.start()
            eventually(two.is_up, "the copy, made new", STORY_S)
            assert clone_of(two) == "none"
            eventually(
                lambda: len({each["key_id"] for each in operator.of(Kind.BIRTH)}) > 1,
                "a birth with a key of its own",
                STORY_S,
            )
            assert two.stop() == 0
            # A person's word ends it, and nothing that was said before brings it back.
            assert json.loads(one.command("clear-clone", "--json").stdout)["was"] == "cloned"
            assert clone_of(one) != "cloned"
            before = len(births(operator))
            for topic, payload in operator.everything():
                if topic == Topics(FLEET, NAME).birth:
                    operator.publish(topic, payload, retain=True)
            eventually(lambda: len(births(operator)) > before + 2, "the repetition", STORY_S)
            assert one.command("check-now").returncode == 0
            assert clone_of(one) != "cloned"
            assert "nothing to clear" in one.command("clear-clone").stdout
        finally:
            one.close()
            two.close()
            operator.close()
