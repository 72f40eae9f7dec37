"""What goes over MQTT counts into the month's byte budget, and who waits when that is spent."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.clock import Clock
from agent.identity import device_key
from agent.messages import Loss
from agent.messaging import Messaging
from agent.records import budget, floors, outbox_rows
from agent.records.budget import Budget
from agent.records.file import RecordsFile
from agent.records.floors import Floors
from agent.records.outbox_rows import Priority
from agent.settings import messaging as settings
from agent.topics import Kind, Topics
from tests.agent_site import FLEET, NAME, STORY_S, AgentProcess, Operator
from tests.brokers import Mosquitto, mosquitto
from tests.daemons import eventually
from tests.fleet_receiver import Receiver
from tests.linked_device import local, metrics, status

pytestmark = pytest.mark.integration

MONTH_BYTES = 20_000


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path) as running:
        yield running


class Device:
    """The agent's messaging over a real broker, on a metered link with a small budget."""

    def __init__(self, state: Path, broker: Mosquitto, limit: int) -> None:
        state.mkdir()
        self.topics = Topics("test", "dev-1")
        self.file = RecordsFile(
            state / "agent.db", [budget.SCHEMA, floors.SCHEMA, outbox_rows.SCHEMA]
        )
        self.limits = {"metered": limit}
        self.link = "metered"
        self.budget = Budget(
            self.file,
            lambda: 1_800_000_000.0,
            lambda: self.link,  # type: ignore[arg-type, return-value]
            self.limits,  # type: ignore[arg-type]
        )
        self.key = device_key(state)
        outbox = {"metrics_bytes": 4096, "memory_bytes": 2048, "drain_jitter_s": 0.0}
        self.messaging = Messaging(
            local(broker.port, in_flight_max=2),
            msgspec.convert({"drain_per_s": 10_000.0, **outbox}, settings.Outbox),
            file=self.file,
            folder=state,
            topics=self.topics,
            key=self.key,
            clock=Clock(Floors(self.file), "yes"),
            budget=self.budget,
            on_message=nothing,
            on_connected=nothing,
            on_stranger=nothing,
            on_cloned=nothing,
            is_cloned=False,
        )

    def say(self, count: int, size: int = 500) -> None:
        """Have measurements sent."""
        for number in range(count):
            self.messaging.add(self.topics.metrics, metrics(number, size), Priority.METRICS)


def nothing() -> None:
    """Hear of something."""


@contextmanager
def connected(state: Path, broker: Mosquitto, limit: int) -> Iterator[Device]:
    device = Device(state, broker, limit)
    device.messaging.start()
    try:
        eventually(lambda: device.messaging.status.is_connected, "the broker", STORY_S)
        yield device
    finally:
        device.messaging.stop()
        device.file.close()


def heard(receiver: Receiver, topic: str) -> int:
    return sum(name == topic for name, _ in receiver.raw)


def test_every_byte_that_goes_over_mqtt_counts_as_telemetry(
    tmp_path: Path, broker: Mosquitto
) -> None:
    with connected(tmp_path / "s", broker, 0) as device, Receiver(broker.port, {}) as receiver:
        device.say(5)
        device.messaging.add(device.topics.job("r1"), status(), Priority.STATUS)
        eventually(lambda: heard(receiver, device.topics.metrics) == 5, "measurements", STORY_S)
        eventually(lambda: heard(receiver, device.topics.job("r1")) == 1, "the status", STORY_S)
        said = [(topic, data) for topic, data in receiver.raw if topic != device.topics.state]
        assert device.budget.spent("telemetry") >= sum(
            len(topic) + len(data) for topic, data in said
        )
        assert device.budget.spent("metadata") == device.budget.spent("artifact") == 0


def test_over_budget_measurements_wait_in_order_and_are_counted_as_gaps_and_statuses_go(
    tmp_path: Path, broker: Mosquitto
) -> None:
    with connected(tmp_path / "s", broker, MONTH_BYTES) as device:
        keys = {device.key.key_id: device.key.public_key}
        with Receiver(broker.port, keys) as receiver:
            while not device.messaging.held:
                device.say(1)
                eventually(
                    lambda: (
                        not device.messaging.outbox.waiting().metrics or bool(device.messaging.held)
                    ),
                    "the end of the budget",
                    STORY_S,
                )
            # Of what is under way nobody knows yet on which side it counts.
            sender = device.messaging._sender
            eventually(lambda: sender.in_flight == 0, "the broker's word", STORY_S)
            outbox = device.messaging.outbox
            before = outbox.newest.seq - outbox.waiting().metrics
            eventually(lambda: heard(receiver, device.topics.metrics) == before, "those", STORY_S)
            assert MONTH_BYTES * 0.9 < device.budget.spent("telemetry") < MONTH_BYTES
            assert "month's budget" in device.messaging.held
            device.say(60)  # the oldest of those that may be under way stay: over 22
            for number in range(3):
                device.messaging.add(
                    device.topics.job("r1"), status(step=str(number)), Priority.STATUS
                )
            run = receiver.runs[device.messaging.outbox.boot_id]
            eventually(lambda: heard(receiver, device.topics.job("r1")) == 3, "all", STORY_S)
            eventually(lambda: run.lost > 0, "the gap", STORY_S)
            assert {gap.reason for gap in run.gaps} == {Loss.QUOTA}
            told = [data for topic, data in receiver.raw if topic == device.topics.metrics]
            assert all("gaps" in json.loads(data)["payload"] for data in told[before:])
            assert device.messaging.outbox.waiting().metrics > 0
            # Over a link that costs nothing, what waited comes, and no number is missing.
            device.link = "unmetered"
            device.messaging._meter._asked_s = float("-inf")  # time goes by
            device.messaging.wake()
            eventually(lambda: device.messaging.outbox.waiting().metrics == 0, "the rest", STORY_S)
            last = device.messaging.outbox.newest.seq
            eventually(
                lambda: len(run.missing(last)) == run.lost, "every number or its gap", STORY_S
            )


def test_a_running_agent_tells_once_that_its_measurements_wait(
    tmp_path: Path, broker: Mosquitto
) -> None:
    text = (
        f'[device]\nid = "{NAME}"\nfleet = "{FLEET}"\nlink = "metered"\n'
        f'[runtime]\nadmin_socket = "{tmp_path}/no"\n'
        f"[downloads]\nmetered_month_bytes = {MONTH_BYTES}\n"
        "[telemetry]\ninterval_s = 0.05\nstretch = 1\n"
        f'[[mqtt.brokers]]\nhost = "127.0.0.1"\nport = {broker.port}\ntls = false\n'
    )
    operator = Operator(broker)
    agent = AgentProcess(tmp_path, text)
    try:
        agent.start()
        eventually(lambda: bool(held(operator)), "the word that they wait", STORY_S)
        found = agent.status()
        assert "month's budget" in found["outbox"]["held"]
        assert found["bytes_this_month"]["telemetry"] > MONTH_BYTES * 0.9
        assert "waits in the outbox" in agent.command("status").stdout
        waiting = found["outbox"]["metrics"]
        eventually(
            lambda: agent.status()["outbox"]["metrics"] > waiting, "more that waits", STORY_S
        )
        assert len(held(operator)) == 1
        assert agent.stop() == 0
        assert agent.log().count("measurements wait") == 1
    finally:
        agent.close()
        operator.close()


def held(operator: Operator) -> list[dict[str, Any]]:
    """Give what was said of measurements that wait."""
    batches = [each["payload"].get("batch") or {} for each in operator.of(Kind.METRICS)]
    return [batch["telemetry"] for batch in batches if "telemetry" in batch]
