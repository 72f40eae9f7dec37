"""Sends what waits in the outbox: never more than the broker takes, never faster than agreed.

All of it runs on the link's thread. A message leaves the outbox when the broker has acknowledged
it, and not before.
"""

import logging
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from agent.envelope import SIGNED, Sign, report_message, wrap
from agent.messages import MESSAGE_BYTES_MAX, Loss
from agent.records.outbox import Outbox
from agent.records.outbox_rows import Key, Priority, Row
from agent.settings import messaging
from agent.topics import parse
from agent.transport.backoff import Uniform
from agent.transport.terms import Grants

_log = logging.getLogger(__name__)

LONG_AWAY_S: Final = 60.0
"""Who was away longer drains after a random pause: the whole fleet may be back."""
ACKNOWLEDGED_S: Final = 120.0
"""Longest silence of a broker about a message."""
REFUSED_S: Final = 300.0
"""What was refused is tried again after so long, and then after twice as long each time: access
rules may have been mended."""
REFUSED_S_MAX: Final = 21_600.0
REFUSED_MAX: Final = 1000
"""Refused statuses that are held; no more of them go before they are tried again."""
UNLIMITED: Final = 2**63
_PACKET_BYTES: Final = 32  # of a publish, beside its topic and payload
_FAILED: Final = 0x80


class Publisher(Protocol):
    """A connection, as the sender needs it."""

    def publish(
        self, topic: str, payload: bytes, *, retain: bool, expiry_s: float | None
    ) -> int | None:
        """Send a message; gives its number there, or nothing where the connection has ended."""


class Meter(Protocol):
    """The byte budget, as the sender needs it."""

    def spent(self, size_bytes: int) -> None:
        """Count what goes over the link: of every message, each time that it is sent."""

    def metrics_room(self) -> int:
        """Bytes of metrics that may go now; statuses and births always go."""


class Unmetered:
    """No budget."""

    def spent(self, size_bytes: int) -> None:
        """Forget it."""

    def metrics_room(self) -> int:
        """Any number."""
        return UNLIMITED


class _Sent(NamedTuple):
    """A message that the broker has not acknowledged.

    Attributes:
        row: The message.
        at_s: When it was sent.
    """

    row: Row
    at_s: float


class Sender:
    """Between the outbox and one connection after the other.

    Args:
        outbox: What waits.
        sign: Signs as this device.
        settings: ``[outbox]``.
        in_flight_max: Most messages without acknowledgement.
        uniform: Such as ``random.uniform``.
        now_s: Seconds that only rise.
        on_arrived: Told of each message that the broker has.
        meter: Of the bytes; metrics wait while it has no room, and the last may go beyond it.

    Attributes:
        refused: How often brokers refused a message, since the agent started.
        problem: What is refused now; empty: nothing.
    """

    def __init__(
        self,
        outbox: Outbox,
        *,
        sign: Sign,
        settings: messaging.Outbox,
        in_flight_max: int,
        uniform: Uniform,
        now_s: Callable[[], float],
        on_arrived: Callable[[Row], None],
        meter: Meter | None = None,
    ) -> None:
        self._outbox = outbox
        self._sign = sign
        self._settings = settings
        self._in_flight_max = in_flight_max
        self._uniform = uniform
        self._now_s = now_s
        self._on_arrived = on_arrived
        self._meter = meter or Unmetered()
        self._publisher: Publisher | None = None
        self._grants: Grants | None = None
        self._in_flight: dict[int, _Sent] = {}
        self._refusals: Counter[Priority] = Counter()  # without one that was taken between
        self._held: Counter[Priority] = Counter()
        self._refused_topics: dict[str, Priority] = {}
        self._try_s: float | None = None
        self._try_pause_s = REFUSED_S
        self._room = in_flight_max
        self._tokens = 0.0
        self._tokens_s = 0.0
        self._lost_s: float | None = None
        self._drain_s = 0.0
        self._are_metrics_held = False
        self._newest_held: Key | None = None
        self._metrics_s = 0.0
        self._newest_old: Key | None = None
        self.refused = 0
        self.problem = ""

    def connected(self, publisher: Publisher, grants: Grants) -> None:
        """Begin to send."""
        now_s = self._now_s()
        self._publisher, self._grants = publisher, grants
        self._room = max(1, min(self._in_flight_max, grants.receive_max))
        self._tokens, self._tokens_s = float(self._room), now_s
        self._forget_refusals()
        self._try_pause_s = REFUSED_S
        self._outbox.connected()
        waiting = self._outbox.waiting()
        was_long = self._lost_s is None or now_s - self._lost_s >= LONG_AWAY_S
        is_much = waiting.statuses + waiting.metrics > self._room
        self._drain_s = now_s
        if was_long and is_much:
            self._drain_s += self._uniform(0.0, self._settings.drain_jitter_s)
        self._newest_old = self._outbox.newest

    def turn(self) -> float | None:
        """Send what may be sent now.

        Returns:
            Seconds until there may be more to do; ``None``: nothing before a word of somebody.
        """
        publisher, grants = self._publisher, self._grants
        if publisher is None or grants is None:
            return None
        now_s = self._now_s()
        if self._try_s is not None and now_s >= self._try_s:
            self._outbox.try_refused()
            self._forget_refusals()
            self._try_pause_s = min(2 * self._try_pause_s, REFUSED_S_MAX)
        self._refill(now_s)
        while self._room > len(self._in_flight):
            count = min(self._room - len(self._in_flight), int(self._tokens))
            classes = self._open_classes(now_s)
            if Priority.METRICS in classes and count > 1:
                count = min(count, max(1, self._meter.metrics_room() // MESSAGE_BYTES_MAX))
            rows = self._outbox.take(count, classes)
            if not rows:
                break
            self._tokens -= len(rows)
            if not all(self._send(row, publisher, grants, now_s) for row in rows):
                break
        self._outbox.settle()
        return self._next_turn_s(now_s)

    def acknowledged(self, message: int, reason: int) -> None:
        """Note what the broker said about a message."""
        sent = self._in_flight.pop(message, None)
        if sent is None:
            return
        row = sent.row
        if reason < _FAILED:
            self._outbox.arrived(row.key)
            self._refusals[row.priority] = 0
            if self._refused_topics.pop(row.topic, None) is not None and not self._refused_topics:
                self.problem = ""
            self._on_arrived(row)
            return
        # It stays taken for a while: to send it again at once is no use.
        self._outbox.refused(row.key)
        self.refused += 1
        self._refusals[row.priority] += 1
        self._held[row.priority] += 1
        if self._try_s is None:
            self._try_s = self._now_s() + self._try_pause_s
        self.problem = f"the broker refuses messages for {row.topic} (reason {reason})"
        if row.priority not in self._refused_topics.values():
            _log.warning("%s; they are kept, and tried again later", self.problem)
        self._refused_topics[row.topic] = row.priority

    def is_stuck(self) -> bool:
        """Tell whether the broker takes messages and never says so."""
        oldest = next(iter(self._in_flight.values()), None)
        return oldest is not None and self._now_s() - oldest.at_s > ACKNOWLEDGED_S

    def lost(self) -> None:
        """Stop; what was not acknowledged is sent again."""
        if self._publisher is None:
            return
        self._publisher = self._grants = None
        self._lost_s = self._now_s()
        self._in_flight.clear()
        self._outbox.settle()
        self._outbox.lost()

    @property
    def in_flight(self) -> int:
        """How many messages the broker has not acknowledged."""
        return len(self._in_flight)

    def _forget_refusals(self) -> None:
        self._refusals.clear()
        self._held.clear()
        self._try_s = None

    def _refill(self, now_s: float) -> None:
        rate = self._settings.drain_per_s
        self._tokens = min(self._tokens + (now_s - self._tokens_s) * rate, max(self._room, 1.0))
        self._tokens_s = now_s

    def _open_classes(self, now_s: float) -> tuple[Priority, ...]:
        classes = tuple(each for each in Priority if self._is_open(each))
        if not self._may_send_metrics(now_s):
            classes = tuple(each for each in classes if each is not Priority.METRICS)
        if now_s < self._drain_s:
            return tuple(each for each in classes if each is Priority.LATEST)
        return classes

    def _is_open(self, priority: Priority) -> bool:
        # Metrics have one topic: who refuses some refuses all, and few are safe in the outbox.
        held_max = self._room if priority is Priority.METRICS else REFUSED_MAX
        return self._refusals[priority] < self._room and self._held[priority] < held_max

    def _may_send_metrics(self, now_s: float) -> bool:
        if self._meter.metrics_room() <= 0:
            self._are_metrics_held = True
            return False
        if self._are_metrics_held:
            # What was held is old by now, and a new month begins for the whole fleet at once.
            self._are_metrics_held = False
            self._newest_held = self._outbox.newest
            self._metrics_s = now_s + self._uniform(0.0, self._settings.drain_jitter_s)
        return now_s >= self._metrics_s

    def _is_old(self, row: Row) -> bool:
        newest = (self._newest_old, self._newest_held if row.priority is Priority.METRICS else None)
        return any(key is not None and row.key <= key for key in newest)

    def _send(self, row: Row, publisher: Publisher, grants: Grants, now_s: float) -> bool:
        """Send one message; false where the connection has ended."""
        topic = parse(row.topic)
        signature = None
        if topic is not None and topic.kind in SIGNED:
            message = report_message(topic, row.boot_id, row.key.seq, row.payload)
            signature = self._sign(message)
        wire = wrap(row.boot_id, row.key.seq, row.payload, signature, historical=self._is_old(row))
        size = len(wire) + len(row.topic) + _PACKET_BYTES
        if 0 < grants.packet_bytes_max < size:
            self._refuse_size(row, size)
            return True
        self._meter.spent(size)  # before it goes: whatever ends this process, it is counted
        retain = row.retain and grants.takes_retained
        number = publisher.publish(row.topic, wire, retain=retain, expiry_s=row.expiry_s)
        if number is None:
            return False
        self._in_flight[number] = _Sent(row, now_s)
        return True

    def _refuse_size(self, row: Row, size: int) -> None:
        self.refused += 1
        self.problem = f"the broker takes no message of {size} bytes (for {row.topic})"
        self._outbox.drop(row.key, Loss.TOO_LARGE)

    def _next_turn_s(self, now_s: float) -> float | None:
        waits_s: list[float] = []
        if self._in_flight:
            oldest = next(iter(self._in_flight.values()))
            waits_s.append(max(0.0, oldest.at_s + ACKNOWLEDGED_S - now_s) + 1.0)
        if self._try_s is not None:
            waits_s.append(max(0.0, self._try_s - now_s))
        if now_s < self._drain_s:
            waits_s.append(self._drain_s - now_s)
        else:
            if self._tokens < 1 and len(self._in_flight) < self._room:
                waits_s.append((1.0 - self._tokens) / self._settings.drain_per_s)
            if now_s < self._metrics_s:
                waits_s.append(self._metrics_s - now_s)
        return min(waits_s, default=None)
