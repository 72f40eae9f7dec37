"""A sender for tests: its outbox, and a connection that keeps what is sent."""

from pathlib import Path

import msgspec

from agent.records.outbox_rows import Priority
from agent.settings import messaging
from agent.topics import Topics
from agent.transport.sender import UNLIMITED, Sender
from agent.transport.terms import Grants
from tests.outbox_world import IN_FLIGHT, World
from tests.signing import signing_key

KEY = signing_key("device")
TOPICS = Topics("test", "dev-1")
GRANTS = Grants(
    is_v5=True, receive_max=100, packet_bytes_max=0, takes_retained=True, has_session=True
)


class Wire:
    """A connection that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.is_open = True

    def publish(
        self, topic: str, payload: bytes, *, retain: bool, expiry_s: float | None
    ) -> int | None:
        """Keep a message."""
        del retain, expiry_s
        if not self.is_open:
            return None
        self.sent.append((topic, payload))
        return len(self.sent)


class Purse:
    """A byte budget of a test."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self.room_bytes = UNLIMITED

    def spent(self, size_bytes: int) -> None:
        """Count."""
        self.size_bytes += size_bytes

    def metrics_room(self) -> int:
        """Say what the test says."""
        return self.room_bytes


class Sending:
    """A sender, its outbox and a connection."""

    def __init__(self, folder: Path, **settings: float) -> None:
        quick = {"drain_per_s": 10_000.0, "drain_jitter_s": 0.0}
        self.world = World(folder)
        self.wire = Wire()
        self.purse = Purse()
        self.sender = Sender(
            self.world.outbox,
            sign=KEY.sign,
            settings=msgspec.convert(quick | settings, messaging.Outbox),
            in_flight_max=IN_FLIGHT,
            uniform=lambda _low, high: high,
            now_s=self.world.clock,
            on_arrived=lambda _row: None,
            meter=self.purse,
        )

    def fill(self, count: int, priority: Priority = Priority.METRICS) -> None:
        """Let messages wait."""
        topic = TOPICS.metrics if priority is Priority.METRICS else TOPICS.job("r1")
        for number in range(count):
            self.world.add(priority, number, topic)

    def turn(self, reason: int = 0) -> None:
        """Let a second pass, and the broker answer all that is under way."""
        self.world.clock.now_s += 1.0
        self.sender.turn()
        for number in list(self.sender._in_flight):
            self.sender.acknowledged(number, reason)

    def acknowledge_all(self) -> None:
        """Let the broker say yes to all that is under way."""
        for number in list(self.sender._in_flight):
            self.sender.acknowledged(number, 0)
