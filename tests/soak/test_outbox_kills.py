"""kill -9 at random while the agent reports: 200 times in ``make soak``, a sample in every run."""

from pathlib import Path

import pytest

from agent.identity import device_key
from tests.brokers import mosquitto
from tests.fleet_receiver import Receiver
from tests.outbox_kills import Kills, check

SEED = 20_261_123
TIMES = 200
SAMPLE = 20

pytestmark = [pytest.mark.integration, pytest.mark.soak, pytest.mark.timeout(900)]


def test_no_acknowledged_report_is_lost_and_every_number_is_accounted_for(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    is_soak = request.config.getoption("markexpr", "") == "soak"
    state = tmp_path / "state"
    state.mkdir()
    key = device_key(state)
    with (
        mosquitto(tmp_path, persistence=True) as broker,
        Receiver(broker.port, {key.key_id: key.public_key}) as receiver,
    ):
        kills = Kills(state, broker, SEED)
        kills.run(TIMES if is_soak else SAMPLE)
        kills.drain(receiver)
        total = check(kills, receiver)
    assert total["came"] > 0
    assert receiver.forged == 0
    print(f"{len(kills.said)} runs: {total}")  # noqa: T201 - what make soak shows
