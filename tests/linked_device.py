"""A device's messaging for tests: outbox, sender and link, as the agent composes them.

``python -m tests.linked_device STATE PORT SEED`` is one under load: it prints each number that it
was given with its class, ``sent`` for each that the broker has, and ends when it is killed.
"""

import os
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import msgspec

from agent.clock import Clock, NoFloor
from agent.identity import device_key
from agent.messages import Birth, JobState, JobStatus, MetricsBatch, State, write
from agent.records import command_floor, outbox_rows
from agent.records.file import RecordsFile
from agent.records.outbox import Outbox
from agent.records.outbox_rows import Priority, Row
from agent.settings import messaging
from agent.settings.messaging import Broker, Mqtt
from agent.topics import Kind, Topics, parse
from agent.transport.clones import CloneWatch
from agent.transport.courier import Courier
from agent.transport.inbox import Inbox
from agent.transport.link import Link
from agent.transport.sender import Sender

FLEET = "test"
KERNEL = "00000000-0000-4000-8000-000000000001"
SCHEMAS = (outbox_rows.SCHEMA, command_floor.SCHEMA)


def local(port: int, **more: Any) -> Mqtt:  # noqa: ANN401 - settings
    """Give settings for a plain broker on loopback that do not wait long."""
    quick: dict[str, Any] = {
        "brokers": (Broker(host="127.0.0.1", port=port, tls=False),),
        "reconnect_first_s": 0.05,
        "reconnect_most_s": 0.2,
        "will_delay_s": 0.0,
        "keepalive_s": 60,
    }
    return msgspec.convert({**quick, **more}, Mqtt)


def outbox_in(state: Path, **changes: Any) -> tuple[RecordsFile, Outbox]:  # noqa: ANN401
    """Open the outbox of a state directory."""
    settings: dict[str, Any] = {
        "kernel": KERNEL,
        "mark": state / "outbox.seq",
        "gaps_topic": Topics(FLEET, "dev-1").metrics,
        "metrics_bytes": 8_388_608,
        "memory_bytes": 262_144,
        "in_flight_max": 20,
        "now_s": time.monotonic,
    }
    state.mkdir(parents=True, exist_ok=True)
    file = RecordsFile(state / "agent.db", SCHEMAS)
    return file, Outbox(file, **(settings | changes))


class LinkedDevice:
    """A device that is, or wants to be, connected.

    Attributes:
        topics: Its topics.
        key: Its key.
        outbox: What waits.
        inbox: What came.
        clones: What is known of another one of the same name.
        sender: Sends.
        link: Its connection.
        arrived: What the broker has.
    """

    def __init__(
        self,
        state: Path,
        settings: Mqtt,
        *,
        device: str = "dev-1",
        outbox_settings: messaging.Outbox | None = None,
        on_arrived: Callable[[Row], None] | None = None,
        clock: Clock | None = None,
        **changes: Any,  # noqa: ANN401 - of the outbox
    ) -> None:
        self.topics = Topics(FLEET, device)
        quick = messaging.Outbox(drain_per_s=10_000, drain_jitter_s=0)
        changes.setdefault("in_flight_max", settings.in_flight_max)
        self.file, self.outbox = outbox_in(state, gaps_topic=self.topics.metrics, **changes)
        self.key = device_key(state)
        self.keys = {self.key.key_id: self.key.public_key}
        self.woken = threading.Event()
        self.inbox = Inbox(self.topics, self.woken.set)
        self.clones = CloneWatch(self.outbox.boot_id, self.outbox.own_boot_ids, self.keys)
        self.arrived: list[Row] = []
        self._on_arrived = on_arrived
        self.sender = Sender(
            self.outbox,
            sign=self.key.sign,
            settings=outbox_settings or quick,
            in_flight_max=settings.in_flight_max,
            uniform=random.uniform,
            now_s=time.monotonic,
            on_arrived=self._arrived,
        )
        self.link = Link(
            settings,
            topics=self.topics,
            boot_id=self.outbox.boot_id,
            traffic=Courier(self.topics, self.sender, self.inbox, self.clones),
            clock=clock or Clock(NoFloor(), "yes"),
            uniform=random.uniform,
        )

    def __enter__(self) -> Self:
        self.link.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.link.stop()
        self.outbox.close()
        self.file.close()

    def is_subscribed(self) -> bool:
        """Tell whether the broker passes on what comes for it: not as soon as it has said yes.

        Its presence goes out after its subscriptions, and the broker has taken it.
        """
        return self.link.status.is_connected and not self.link._presence

    def say(self, topic: str, payload: bytes, priority: Priority, *, retain: bool = False) -> int:
        """Put a message into the outbox."""
        seq = self.outbox.add(topic, payload, priority, retain=retain)
        self.link.wake()
        return seq

    def birth(self) -> int:
        """Say what it is."""
        clones = self.clones
        birth = Birth(
            boot_id=self.outbox.boot_id, challenge=clones.challenge, answers=clones.answers
        )
        return self.say(self.topics.birth, write(birth), Priority.LATEST, retain=True)

    def status(self, rollout: str = "r1", step: str = "downloading") -> int:
        """Say how far a rollout is."""
        payload = status(rollout, step)
        return self.say(self.topics.job(rollout), payload, Priority.STATUS)

    def metrics(self, number: int = 0, size: int = 200) -> int:
        """Send a batch."""
        return self.say(self.topics.metrics, metrics(number, size), Priority.METRICS)

    def _arrived(self, row: Row) -> None:
        self.arrived.append(row)
        topic = parse(row.topic)
        if topic is not None and topic.kind is Kind.BIRTH:
            self.link.say(State.READY)
        if self._on_arrived is not None:
            self._on_arrived(row)


def status(rollout: str = "r1", step: str = "downloading") -> bytes:
    """Give a status of a rollout."""
    return write(JobStatus(rollout=rollout, state=JobState.IN_PROGRESS, step=step))


def metrics(number: int = 0, size: int = 200) -> bytes:
    """Give a batch of about so many bytes."""
    return write(MetricsBatch(batch={"number": number, "filler": "x" * size}))


def main() -> None:
    """Make load until it is killed."""
    state, port, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    chance = random.Random(seed)  # noqa: S311 - for repeating

    def sent(row: Row) -> None:
        os.write(1, f"sent {row.key.seq} {row.boot_id}\n".encode())

    small: dict[str, Any] = {"memory_bytes": 20_000, "metrics_bytes": 60_000}
    device = LinkedDevice(state, local(port), on_arrived=sent, **small)
    os.write(1, f"boot {device.outbox.boot_id}\n".encode())
    with device:
        device.birth()
        os.write(1, b"latest 1\n")
        number = 0
        while True:
            number += 1
            if chance.random() < 0.2:
                os.write(1, f"status {device.status(step=str(number))}\n".encode())
            else:
                os.write(1, f"metrics {device.metrics(number)}\n".encode())
            time.sleep(chance.uniform(0, 0.002))


if __name__ == "__main__":
    main()
