"""Journals reach the receiver row by row, exactly once, whatever breaks in between."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import NetworkError, RefusedError
from agent.identity import DeviceKey, device_key
from agent.journal_sync.upload import Upload
from agent.runtime_client.admin import Admin
from agent.trust.https import Https
from tests.daemons import Daemon, daemon
from tests.enrolment_server import NOW, Authority
from tests.integration.test_agent_enrolment import Watch
from tests.integration.test_prediction_journal import ALL, configured, keep, rows
from tests.journal_receiver import Receiver, journal_receiver

pytestmark = pytest.mark.integration

AUTHORITY = Authority()


@pytest.fixture
def key(tmp_path: Path) -> DeviceKey:
    return device_key(tmp_path)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Daemon]:
    with daemon("--config", str(configured(tmp_path, ALL))) as it:
        yield it


@pytest.fixture
def receiver(key: DeviceKey) -> Iterator[Receiver]:
    with journal_receiver(AUTHORITY, {"till-7": key.public_key}) as it:
        yield it


def upload(receiver: Receiver, running: Daemon, key: DeviceKey, allowed: int = 1 << 30) -> int:
    left = allowed

    def allows(size: int) -> bool:
        nonlocal left
        left -= size
        return left >= 0

    return Upload(
        receiver.url,
        fleet="shop",
        device="till-7",
        key=key,
        server=Https.believing(AUTHORITY.pem.decode(), Watch(NOW.timestamp())),
        source=Admin(running.admin, 60.0),
        allows=allows,
    ).run(lambda: False)


def test_rows_arrive_once_and_are_let_go_of(
    receiver: Receiver, running: Daemon, key: DeviceKey
) -> None:
    keep(running, 3)
    kept = rows(running)
    assert upload(receiver, running, key) == 3
    assert [name[2] for name in receiver.received] == [1, 2, 3]
    assert rows(running)["rows"] == []
    stored = list(receiver.rows.values())
    assert [row.digest for row in stored] == [row["digest"] for row in kept["rows"]]
    assert upload(receiver, running, key) == 0


def test_a_lost_answer_leads_to_no_second_row(
    receiver: Receiver, running: Daemon, key: DeviceKey
) -> None:
    keep(running, 2)
    cuts = iter([1])
    receiver.breaks = lambda: bool(next(cuts, 0))
    with pytest.raises(NetworkError):
        upload(receiver, running, key)
    assert len(rows(running)["rows"]) == 2
    assert upload(receiver, running, key) == 0
    assert len(receiver.received) == len(receiver.rows) == 2
    assert rows(running)["rows"] == []


def test_nothing_is_sent_beyond_the_byte_budget_and_nothing_is_lost(
    receiver: Receiver, running: Daemon, key: DeviceKey
) -> None:
    keep(running, 1)
    assert upload(receiver, running, key, allowed=10) == 0
    assert receiver.rows == {}
    assert len(rows(running)["rows"]) == 1
    assert upload(receiver, running, key) == 1


def test_rows_that_another_key_signed_are_refused_and_stay_here(
    receiver: Receiver, running: Daemon, tmp_path: Path
) -> None:
    keep(running, 1)
    (tmp_path / "other").mkdir()
    with pytest.raises(RefusedError):
        upload(receiver, running, device_key(tmp_path / "other"))
    assert receiver.rows == {}
    assert len(rows(running)["rows"]) == 1


def test_a_journal_that_began_anew_is_told_from_the_old_one(
    receiver: Receiver, running: Daemon, key: DeviceKey
) -> None:
    keep(running, 2)
    upload(receiver, running, key)
    running.process.terminate()
    assert running.process.wait() == 0
    for file in (running.folder / "state").glob("journal.db*"):
        file.unlink()
    running.restart()
    keep(running, 1)
    assert upload(receiver, running, key) == 1
    journals = {name[1] for name in receiver.rows}
    assert len(journals) == 2
    assert json.dumps(sorted(name[2] for name in receiver.rows)) == "[1, 1, 2]"
