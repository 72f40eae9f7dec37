"""A damaged agent.db: the device stays guarded, and says what was lost, signed and once."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent.records.guards import NOT_KEPT
from agent.topics import Kind
from tests.agent_site import STORY_S, AgentProcess, Operator
from tests.brokers import mosquitto
from tests.daemons import eventually
from tests.repositories import make_repository

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def births(operator: Operator) -> list[dict[str, Any]]:
    """Give what the births say; they are signed, so their payloads are text."""
    found = operator.of(Kind.BIRTH)
    assert all(each["signature"] for each in found)
    return [json.loads(each["payload"]) for each in found]


def losses(operator: Operator) -> list[dict[str, Any]]:
    batches = [each["payload"].get("batch") or {} for each in operator.of(Kind.METRICS)]
    return [each["records"] for each in batches if "records" in each]


def test_a_damaged_database_is_reported_once_and_the_device_stays_guarded(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    with (
        make_repository(tmp_path / "origin", fleet="shop") as repository,
        mosquitto(folder) as broker,
    ):
        operator = Operator(broker)
        agent = AgentProcess(
            folder,
            '[device]\nid = "till-7"\nfleet = "shop"\nclock_is_trusted = "yes"\n'
            f'[runtime]\nadmin_socket = "{folder}/nobody.sock"\n'
            f'[repository]\nurl = "{repository.url}"\nroot = "{repository.root}"\n'
            "[outbox]\ndrain_jitter_s = 0\n[telemetry]\ninterval_s = 1\n"
            f'[[mqtt.brokers]]\nhost = "127.0.0.1"\nport = {broker.port}\ntls = false\n',
        )

        def lives(runs: int) -> bool:
            return agent.is_up() and len({each["boot_id"] for each in births(operator)}) == runs

        def conditions() -> object:
            return births(operator)[-1].get("conditions", [])

        try:
            agent.start()
            eventually(lambda: lives(1), "a birth", STORY_S)
            eventually(lambda: agent.status()["repository"]["checked_s"] > 0, "a look", STORY_S)
            assert conditions() == []
            assert agent.stop() == 0
            database = agent.state / "agent.db"
            database.write_bytes(b"\xff" * database.stat().st_size)
            agent.start()
            eventually(lambda: lives(2), "the next birth", STORY_S)
            assert conditions() == ["records-lost"]
            eventually(lambda: bool(losses(operator)), "the report", STORY_S)
            [loss] = losses(operator)
            assert loss["reason"].startswith("it was damaged")
            assert "versions of metadata" in loss["kept"]
            assert loss["lost"] == list(NOT_KEPT)
            text = agent.command("status").stdout
            assert "agent.db began anew" in text
            assert str(database) + ".damaged" in text
            assert agent.stop() == 0
            agent.start()
            eventually(lambda: lives(3), "another birth", STORY_S)
            assert conditions() == []
            assert len(losses(operator)) == 1
            # Whoever is at the device sees it until the old file was taken away.
            assert agent.status()["records"]["aside"]
            (agent.state / "agent.db.damaged").unlink()
            assert not agent.status()["records"]["problem"]
        finally:
            operator.close()
            agent.close()
