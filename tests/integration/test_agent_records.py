"""A damaged agent.db: the device stays guarded, and says what was lost, signed and once.

Damage that comes while the agent runs ends it, as does nothing else that a disk may say: its next
start mends it.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.records.guards import NOT_KEPT
from agent.topics import Kind
from edge_runtime.exit_codes import ExitCode
from tests.agent_site import STORY_S, AgentProcess, Operator
from tests.brokers import mosquitto
from tests.daemons import eventually
from tests.repositories import TestRepository, make_repository

pytestmark = pytest.mark.integration


def births(operator: Operator) -> list[dict[str, Any]]:
    """Give what the births say; they are signed, so their payloads are text."""
    found = operator.of(Kind.BIRTH)
    assert all(each["signature"] for each in found)
    return [json.loads(each["payload"]) for each in found]


def losses(operator: Operator) -> list[dict[str, Any]]:
    """Give what was said of lost records; each number once, since a broker may say it again."""
    batches = {
        (each["boot_id"], each["seq"]): each["payload"].get("batch") or {}
        for each in operator.of(Kind.METRICS)
    }
    return [each["records"] for each in batches.values() if "records" in each]


@contextlib.contextmanager
def lonely_agent(tmp_path: Path) -> Iterator[tuple[AgentProcess, TestRepository]]:
    """Run an agent without broker and daemon; it has looked at its repository."""
    folder = tmp_path / "a"
    folder.mkdir()
    with make_repository(tmp_path / "origin", fleet="shop") as repository:
        agent = AgentProcess(
            folder,
            '[device]\nid = "till-7"\nfleet = "shop"\nclock_is_trusted = "yes"\n'
            f'[runtime]\nadmin_socket = "{folder}/nobody.sock"\n'
            f'[repository]\nurl = "{repository.url}"\nroot = "{repository.root}"\n'
            "[telemetry]\ninterval_s = 1\n",
        )
        try:
            agent.start()
            eventually(agent.is_up, "an agent", STORY_S)
            eventually(lambda: agent.status()["repository"]["checked_s"] > 0, "a look", STORY_S)
            yield agent, repository
        finally:
            agent.close()


def overwrite(database: Path) -> bool:
    """Fill a database that is in use with rubbish, and have its user look at it again.

    Pages that a process has in memory are read again only when somebody else has written.

    Returns:
        Whether that was possible: not in the middle of a transaction of its user.
    """
    connecting = sqlite3.connect(database, isolation_level=None, timeout=0.0)
    with contextlib.closing(connecting) as connection:
        try:
            connection.execute("PRAGMA user_version = 1")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            return False
    for each in (database, database.with_name(database.name + "-wal")):
        with each.open("r+b") as file:
            file.write(b"\xff" * each.stat().st_size)
    return True


def test_an_agent_whose_database_is_damaged_while_it_runs_ends_so_that_it_is_started_anew(
    tmp_path: Path,
) -> None:
    with lonely_agent(tmp_path) as (agent, repository):
        assert agent.process is not None
        database = agent.state / "agent.db"

        def is_rubbish() -> bool:
            with agent.frozen():
                return overwrite(database)

        eventually(is_rubbish, "the damage", STORY_S)
        repository.refresh()

        def has_ended() -> bool:
            assert agent.process is not None
            if agent.process.poll() is None:
                agent.command("check-now", expect=None)
            return agent.process.poll() is not None

        eventually(has_ended, "the end", STORY_S)
        assert agent.process.returncode == ExitCode.FAILED  # Restart=on-failure
        [line] = [each for each in agent.log().splitlines() if each.startswith("edge-agent: ")]
        assert str(database) in line
        assert "damaged" in line
        assert "Traceback" not in agent.log()
        agent.start()
        eventually(agent.is_up, "the agent again", STORY_S)
        assert "versions of metadata" in agent.status()["records"]["kept"]
        agent.command("check-now")
        assert agent.stop() == ExitCode.DONE


@pytest.mark.parametrize("is_empty", [False, True])
def test_a_database_that_is_gone_or_empty_is_said_until_the_next_start(
    tmp_path: Path, *, is_empty: bool
) -> None:
    with lonely_agent(tmp_path) as (agent, _):
        assert agent.stop() == ExitCode.DONE
        (agent.state / "agent.db").unlink()
        if is_empty:
            (agent.state / "agent.db").touch()
        agent.start()
        eventually(agent.is_up, "the next agent", STORY_S)
        text = agent.command("status").stdout
        assert "agent.db began anew: it was gone" in text
        assert "versions of metadata" in text
        assert agent.stop() == ExitCode.DONE
        agent.start()
        eventually(agent.is_up, "another agent", STORY_S)
        assert not agent.status()["records"]["problem"]


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
