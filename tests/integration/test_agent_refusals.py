"""A broker whose access rules refuse what the agent says: it is told, and blocks nothing else."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.locations import DATABASE
from agent.records.outbox_rows import Key, Priority
from agent.topics import Topics
from tests.agent_site import FLEET, NAME, STORY_S, AgentProcess, Operator
from tests.brokers import Mosquitto, mosquitto
from tests.daemons import eventually
from tests.linked_device import status

pytestmark = pytest.mark.integration

TOPICS = Topics(FLEET, NAME)


def agent_of(folder: Path, broker: Mosquitto) -> AgentProcess:
    return AgentProcess(
        folder,
        f'[device]\nid = "{NAME}"\nfleet = "{FLEET}"\n'
        f'[runtime]\nadmin_socket = "{folder}/nobody.sock"\n'
        "[outbox]\ndrain_jitter_s = 0\n"
        "[mqtt]\nin_flight_max = 4\nreconnect_first_s = 0.1\nreconnect_most_s = 0.5\n"
        f'[[mqtt.brokers]]\nhost = "127.0.0.1"\nport = {broker.port}\ntls = false\n',
    )


def states(operator: Operator) -> list[str]:
    heard = operator.heard.get(TOPICS.state, [])
    return [json.loads(each)["state"] for each in heard]


def outbox(agent: AgentProcess, holds: Callable[[dict[str, Any]], bool]) -> Callable[[], bool]:
    return lambda: agent.is_up() and holds(agent.status()["outbox"])


def test_a_device_whose_birth_is_refused_is_not_ready_says_so_and_is_once_the_rules_are_mended(
    tmp_path: Path,
) -> None:
    rules = f"topic readwrite {TOPICS.state}\ntopic readwrite {TOPICS.reported}\ntopic read #\n"
    with mosquitto(tmp_path, acl=rules) as broker:
        operator, agent = Operator(broker), agent_of(tmp_path, broker)
        try:
            agent.start()
            told = outbox(agent, lambda found: TOPICS.birth in found["refusal"])
            eventually(told, "word of what is refused", STORY_S)
            eventually(lambda: bool(operator.heard.get(TOPICS.reported)), "the report", STORY_S)
            assert "refused" in agent.command("status").stdout
            assert "ready" not in states(operator)
            (acl,) = tmp_path.glob("mosquitto-*/acl")
            acl.write_text("topic readwrite #\n", "utf-8")
            operator.close()
            broker.restart()
            operator = Operator(broker)
            eventually(lambda: "ready" in states(operator), "ready", STORY_S)
            eventually(outbox(agent, lambda found: not found["refusal"]), "nothing wrong", STORY_S)
        finally:
            agent.close()
            operator.close()


def test_statuses_of_a_former_name_are_dropped_and_told_and_later_ones_arrive(
    tmp_path: Path,
) -> None:
    rules = f"topic readwrite edge/v1/{FLEET}/d/{NAME}/#\ntopic read edge/#\n"
    with mosquitto(tmp_path, acl=rules) as broker:
        operator, agent = Operator(broker), agent_of(tmp_path, broker)
        try:
            agent.start()
            eventually(agent.is_up, "the agent", STORY_S)
            assert agent.stop() == 0
            with closing(sqlite3.connect(agent.state / DATABASE)) as db, db:
                for number in range(6):
                    topic = Topics(FLEET, "till-6").job(f"r{number}")
                    row = (Key(1, 1000 + number).id, Priority.STATUS, topic, status(), 0, None)
                    db.execute("INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?)", row)
            agent.start()

            def told() -> bool:
                batches = [json.loads(each) for each in operator.heard.get(TOPICS.metrics, [])]
                gaps = [gap for each in batches for gap in each["payload"].get("gaps", ())]
                return any(gap["count"] == 6 and gap["reason"] == "superseded" for gap in gaps)

            eventually(told, "word of what was dropped", STORY_S)
            empty = outbox(agent, lambda found: found["statuses"] == 0)
            eventually(empty, "word of the broker for it", STORY_S)
            assert agent.status()["outbox"]["refusal"] == ""
        finally:
            agent.close()
            operator.close()
