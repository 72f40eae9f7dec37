"""Everything about MQTT, put together: what waits, what is sent, what comes."""

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.clock import Clock
from agent.identity import DeviceKey
from agent.messages import State
from agent.records.budget import Budget
from agent.records.file import RecordsFile
from agent.records.outbox import Outbox
from agent.records.outbox_rows import Priority, Row
from agent.settings.messaging import Mqtt
from agent.settings.messaging import Outbox as OutboxSettings
from agent.topics import Topics
from agent.transport.clones import CloneWatch, Suspicion
from agent.transport.courier import Courier
from agent.transport.inbox import Inbox
from agent.transport.link import Link, LinkStatus
from agent.transport.metering import BudgetMeter
from agent.transport.sender import Publisher, Sender
from agent.transport.terms import Grants

METRICS_EXPIRY_S: Final = 604_800.0
"""A broker keeps measurements so long for a receiver that is away (MQTT 5)."""
MARK: Final = "outbox.seq"
_KERNEL: Final = Path("/proc/sys/kernel/random/boot_id")
_NONE: Final = LinkStatus(problem="no broker is configured")


class _Announcing(Courier):
    """Says when the connection stands, and when there is news of clones."""

    on_connecting: Callable[[], None] = staticmethod(lambda: None)
    on_connected: Callable[[], None] = staticmethod(lambda: None)
    on_heard: Callable[[], None] = staticmethod(lambda: None)

    def received(self, topic: str, payload: bytes) -> None:
        """Pass a message on, and look at what it tells of clones."""
        super().received(topic, payload)
        self.on_heard()

    def taken_over(self) -> None:
        """Note it, and look at what that tells of clones."""
        super().taken_over()
        self.on_heard()

    def connected(self, publisher: Publisher, grants: Grants) -> None:
        """Begin to send."""
        self.on_connecting()
        super().connected(publisher, grants)
        self.on_connected()


class Messaging:
    """The outbox and the link.

    Args:
        settings: ``[mqtt]``; without a broker only the outbox is there.
        outbox: ``[outbox]``.
        file: agent.db.
        folder: Where the mark of the last number goes; a tmpfs if there is one.
        topics: Of this device.
        key: Signs reports.
        clock: Judges certificates.
        budget: Counts what is sent; measurements wait while it has no room for them.
        on_message: Called when there is something in the inbox; must not block.
        on_connected: Called when the connection stands; must not block.
        on_stranger: Called when a birth is to be said for another with this device's signature;
            must not block.
        on_cloned: Called when another device was seen with this identity; must not block.
        is_cloned: Whether an earlier run saw one.

    Attributes:
        outbox: What waits.
        inbox: What came.
        clones: What is known of another device of the same name.
    """

    def __init__(
        self,
        settings: Mqtt,
        outbox: OutboxSettings,
        *,
        file: RecordsFile,
        folder: Path,
        topics: Topics,
        key: DeviceKey,
        clock: Clock,
        budget: Budget,
        on_message: Callable[[], None],
        on_connected: Callable[[], None],
        on_stranger: Callable[[], None],
        on_cloned: Callable[[], None],
        is_cloned: bool,
    ) -> None:
        self.topics = topics
        self._meter = BudgetMeter(budget, time.monotonic, clock.wall_s)
        self.outbox = Outbox(
            file,
            kernel=_KERNEL.read_text("ascii").strip(),
            mark=folder / MARK,
            gaps_topic=topics.metrics,
            metrics_bytes=outbox.metrics_bytes,
            memory_bytes=outbox.memory_bytes,
            in_flight_max=settings.in_flight_max,
            own=topics.own,
            now_s=time.monotonic,
        )
        self.inbox = Inbox(topics, on_message)
        self.clones = CloneWatch(
            self.outbox.boot_id,
            self.outbox.own_boot_ids,
            {key.key_id: key.public_key},
            is_known=is_cloned,
        )
        self._is_cloned = is_cloned
        self._on_stranger = on_stranger
        self._on_cloned = on_cloned
        self._before = self.outbox.newest
        self._introduced: set[str] = set()
        self._sender = Sender(
            self.outbox,
            sign=key.sign,
            settings=outbox,
            in_flight_max=settings.in_flight_max,
            uniform=random.uniform,
            now_s=time.monotonic,
            on_arrived=self._arrived,
            meter=self._meter,
        )
        courier = _Announcing(topics, self._sender, self.inbox, self.clones)
        courier.on_connecting = self._begin
        courier.on_connected = on_connected
        courier.on_heard = self._look_for_clones
        self._lock = threading.Lock()
        self._link: Link | None = None
        if settings.brokers:
            self._link = Link(
                settings,
                topics=topics,
                boot_id=self.outbox.boot_id,
                traffic=courier,
                clock=clock,
                uniform=random.uniform,
            )

    @property
    def status(self) -> LinkStatus:
        """How the link does."""
        return _NONE if self._link is None else self._link.status

    @property
    def held(self) -> str:
        """Why measurements wait for a byte budget; empty: they do not."""
        return self._meter.held

    @property
    def refused(self) -> int:
        """How often brokers refused a message since the agent started."""
        return self._sender.refused

    @property
    def refusal(self) -> str:
        """What a broker refuses now; empty: nothing."""
        return self._sender.problem

    def start(self) -> None:
        """Begin to connect."""
        if self._link is not None:
            self._link.start()

    def stop(self) -> None:
        """Say goodbye, and write down what waits.

        Raises:
            StateError: The disk refuses; what was in memory is lost.
        """
        if self._link is not None:
            self._link.stop()
        self.outbox.close()

    def add(self, topic: str, payload: bytes, priority: Priority, *, retain: bool = False) -> None:
        """Have something sent."""
        if self._link is None and priority is not Priority.STATUS:
            return  # nobody will ever want it
        expiry_s = METRICS_EXPIRY_S if priority is Priority.METRICS else None
        self.outbox.add(topic, payload, priority, retain=retain, expiry_s=expiry_s)
        self.wake()

    def wake(self) -> None:
        """Make the link look at the outbox."""
        if self._link is not None:
            self._link.wake()

    def clear_clone(self) -> None:
        """Forget that a clone was seen: somebody has seen to it. The next try is now."""
        self.clones.clear()
        self._is_cloned = False
        self.try_now()

    def try_now(self) -> None:
        """End a pause before the next connection."""
        if self._link is not None:
            self._link.try_now()

    def _look_for_clones(self) -> None:
        if not self._is_cloned and self.clones.suspicion is Suspicion.CLONED:
            self._is_cloned = True
            self._on_cloned()
        if self.clones.is_answer_due():
            self._on_stranger()

    def _begin(self) -> None:
        self._before = self.outbox.newest
        self._introduced.clear()

    def _arrived(self, row: Row) -> None:
        """Say that it is ready when the broker has a birth and a report of this connection."""
        needed = {self.topics.birth, self.topics.reported}
        if row.topic not in needed or row.key <= self._before or self._link is None:
            return
        self._introduced.add(row.topic)
        if self._introduced == needed:
            self._link.say(State.READY)
