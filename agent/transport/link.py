"""The device's standing connection to its fleet: one thread, one broker at a time, for ever."""

import logging
import os
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from agent.clock import Clock
from agent.errors import AgentError, ConfigError, NetworkError
from agent.messages import Presence, State, write
from agent.settings.messaging import Broker, Mqtt
from agent.topics import Topics
from agent.transport.backoff import Attempt, Backoff, Outcome, Uniform
from agent.transport.connection import CONNECT_S, Connection
from agent.transport.sender import Publisher
from agent.transport.terms import Grants, Subscription, Will

_log = logging.getLogger(__name__)

GOODBYE_S: Final = 3.0
"""Longest wait for the broker's word about what was said last."""
ANSWER_S: Final = 5.0
"""Longest wait for a broker's yes or no where it may not understand this version of MQTT."""
_FAILED: Final = 0x80
_KEEPALIVE_PART: Final = 4
_END_S: Final = 30.0


class Traffic(Protocol):
    """What goes over the connection; called on the link's thread only."""

    def connected(self, publisher: Publisher, grants: Grants) -> None:
        """The connection stands."""

    def turn(self) -> float | None:
        """Send; gives the seconds until there may be more to do, or nothing."""

    def received(self, topic: str, payload: bytes) -> None:
        """A message came; anybody may have written it."""

    def acknowledged(self, message: int, reason: int) -> None:
        """The broker has a message, or refuses it: then the reason is 128 or more."""

    def is_stuck(self) -> bool:
        """Whether the broker does not say what became of messages."""

    def is_idle(self) -> bool:
        """Whether nothing waits for the broker's word."""

    def must_hold(self) -> bool:
        """Whether this device is in another's way, and should come back late."""

    def taken_over(self) -> None:
        """Another connection came with this device's name."""

    def lost(self) -> None:
        """The connection ended."""


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """How the link does.

    Attributes:
        is_connected: Whether a broker has said yes.
        broker: Which one is, or was, tried.
        is_v5: Whether MQTT 5 is spoken, or else 3.1.1.
        problem: Why there is no connection, or what is wrong with it; empty: nothing.
        connections: How many there have been.
    """

    is_connected: bool = False
    broker: str = ""
    is_v5: bool = True
    problem: str = "no broker has been tried yet"
    connections: int = 0


class Link:
    """Connects, and connects again.

    Args:
        settings: ``[mqtt]``, with one broker or more.
        topics: Of this device.
        boot_id: Which run of the agent this is.
        traffic: What goes over it.
        clock: Judges the dates of certificates.
        uniform: Such as ``random.uniform``.
        now_s: Seconds that only rise.
    """

    def __init__(
        self,
        settings: Mqtt,
        *,
        topics: Topics,
        boot_id: str,
        traffic: Traffic,
        clock: Clock,
        uniform: Uniform,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._topics = topics
        self._boot_id = boot_id
        self._traffic = traffic
        self._clock = clock
        self._now_s = now_s
        first_s, most_s = settings.reconnect_first_s, settings.reconnect_most_s
        self._backoff = Backoff(len(settings.brokers), first_s, most_s, uniform, settings.protocol)
        self._state = State.INIT
        self._said: State | None = None
        self._presence: set[int] = set()
        self._connection: Connection | None = None
        self._connected_s: float | None = None
        self._is_stopping = threading.Event()
        self._hurry = threading.Event()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self.status = LinkStatus()

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def stop(self) -> None:
        """Say goodbye, and end the thread."""
        self._is_stopping.set()
        self._ring()
        if self._thread.ident is not None:
            self._thread.join(_END_S)
        if not self._thread.is_alive() and self._bell >= 0:
            os.close(self._bell)
            self._bell = -1

    def wake(self) -> None:
        """Make the link look at the outbox; any thread may."""
        if self.status.is_connected:
            self._ring()

    def try_now(self) -> None:
        """End a pause, if there is one: the network has changed, or somebody asks."""
        self._hurry.set()
        self._ring()

    def say(self, state: State) -> None:
        """Say how the device is there, until the connection ends: the next begins with ``init``."""
        self._state = state
        self.wake()

    def connected(self, grants: Grants) -> None:
        """Go on after the broker's yes; the connection calls it."""
        connection = self._connection
        if connection is None:
            return
        self._connected_s = self._now_s()
        self._backoff.accepted()
        self._state, self._said = State.INIT, None
        self._presence.clear()
        connection.subscribe(
            [
                Subscription(self._topics.announcement),
                Subscription(self._topics.commands),
                Subscription(self._topics.birth, is_own=True),
            ]
        )
        self._say_state(connection)
        self._traffic.connected(connection, grants)
        self.status = replace(
            self.status,
            is_connected=True,
            is_v5=grants.is_v5,
            problem="",
            connections=self.status.connections + 1,
        )
        version = "5" if grants.is_v5 else "3.1.1"
        _log.info("connected to the broker %s with MQTT %s", self.status.broker, version)

    def received(self, topic: str, payload: bytes, *, is_retained: bool) -> None:  # noqa: ARG002
        """Pass a message on; the connection calls it."""
        self._traffic.received(topic, payload)

    def acknowledged(self, message: int, reason: int) -> None:
        """Pass the broker's word on; the connection calls it."""
        if message in self._presence:
            self._presence.discard(message)
        else:
            self._traffic.acknowledged(message, reason)

    def subscribed(self, reasons: list[int]) -> None:
        """Look at what the broker grants; the connection calls it."""
        if any(reason >= _FAILED for reason in reasons):
            problem = "the broker does not let this device subscribe; look at its access rules"
            _log.warning("%s", problem)
            self.status = replace(self.status, problem=problem)

    def _run(self) -> None:
        attempt = self._backoff.first()
        while not self._is_stopping.is_set():
            self._pause(attempt.pause_s)
            if self._is_stopping.is_set():
                return
            attempt = self._attempted(attempt)

    def _attempted(self, attempt: Attempt) -> Attempt:
        """Connect, stay as long as it lasts, and say what to try next."""
        broker = self._settings.brokers[attempt.broker]
        self.status = replace(self.status, broker=_place(broker), is_v5=attempt.is_v5)
        self._connected_s = None
        outcome, problem = Outcome.UNREACHABLE, ""
        try:
            connection = self._opened(broker, is_v5=attempt.is_v5)
            try:
                self._connection = connection
                self._stay(connection, ANSWER_S if attempt.is_in_doubt else CONNECT_S)
            finally:
                outcome, problem = connection.outcome, connection.problem
                self._connection = None
                connection.close()
                self._traffic.lost()
                self._forget_hurry()
            if connection.is_taken_over:
                self._traffic.taken_over()
        except (NetworkError, ConfigError) as error:
            problem = error.message
        except (AgentError, OSError, ValueError) as error:
            problem = f"{type(error).__name__}: {error}"
        except Exception:  # noqa: BLE001 - whatever it is, the device must come back
            problem = "a fault in the link, see the log"
            _log.exception("the link failed; it connects again")
        is_news = problem != self.status.problem
        self.status = replace(self.status, is_connected=False, problem=problem)
        hold = self._traffic.must_hold()
        following = self._backoff.after(outcome, self._lasted_s(), hold=hold)
        if is_news and not self._is_stopping.is_set():
            _log.warning("%s; next try in %.1f s", problem, following.pause_s)
        return following

    def _forget_hurry(self) -> None:
        """Forget what was asked while connected: it ends no pause that comes later."""
        if self._connected_s is not None:
            self._hurry.clear()

    def _lasted_s(self) -> float:
        return 0.0 if self._connected_s is None else self._now_s() - self._connected_s

    def _opened(self, broker: Broker, *, is_v5: bool) -> Connection:
        gone = write(Presence(state=State.LOST, boot_id=self._boot_id))
        return Connection(
            broker,
            self._settings,
            client_id=self._topics.client_id,
            will=Will(self._topics.state, gone, self._settings.will_delay_s),
            events=self,
            is_v5=is_v5,
            clock=self._clock,
        )

    def _stay(self, connection: Connection, answer_s: float) -> None:
        """Turn a connection until it ends or the agent does."""
        opened_s = self._now_s()
        goodbye_s: float | None = None
        while True:
            now_s = self._now_s()
            due_s: float | None = max(0.0, opened_s + answer_s - now_s)
            if self._connected_s is not None:
                due_s = self._traffic.turn()
                self._say_state(connection)
            elif due_s == 0.0:
                connection.problem = "the broker does not answer"
                return
            if self._is_stopping.is_set():
                goodbye_s = now_s + GOODBYE_S if goodbye_s is None else goodbye_s
                is_said = not self._presence and self._traffic.is_idle()
                if self._connected_s is None or is_said or now_s >= goodbye_s:
                    self._leave(connection)
                    return
                due_s = goodbye_s - now_s
            if self._traffic.is_stuck():
                connection.problem = "the broker takes messages and does not acknowledge them"
                return
            if not self._turn(connection, due_s):
                return

    def _turn(self, connection: Connection, due_s: float | None) -> bool:
        """Wait for the broker, for somebody who rings, or until it is time; false: it has ended."""
        most_s = self._settings.keepalive_s / _KEEPALIVE_PART
        wait_s = most_s if due_s is None else min(due_s, most_s)
        descriptor = connection.fileno()
        if descriptor < 0:
            return False
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        poll.register(
            descriptor, select.POLLIN | (select.POLLOUT if connection.wants_to_write else 0)
        )
        ready = dict(poll.poll(0 if connection.has_unread else wait_s * 1000 + 1))
        if self._bell in ready:
            os.eventfd_read(self._bell)
        events = ready.get(descriptor, 0)
        return connection.turn(
            is_readable=connection.has_unread or bool(events & ~select.POLLOUT),
            is_writable=bool(events & select.POLLOUT),
        )

    def _leave(self, connection: Connection) -> None:
        connection.disconnect()
        end_s = self._now_s() + GOODBYE_S
        while connection.fileno() >= 0 and connection.wants_to_write and self._now_s() < end_s:
            self._turn(connection, GOODBYE_S)

    def _say_state(self, connection: Connection) -> None:
        state = State.DISCONNECTED if self._is_stopping.is_set() else self._state
        if state is self._said:
            return
        payload = write(Presence(state=state, boot_id=self._boot_id))
        number = connection.publish(self._topics.state, payload, retain=True, expiry_s=None)
        if number is not None:
            self._said = state
            self._presence.add(number)

    def _pause(self, pause_s: float) -> None:
        end_s = self._now_s() + pause_s
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        while not (self._is_stopping.is_set() or self._hurry.is_set()):
            left_s = end_s - self._now_s()
            if left_s <= 0:
                break
            if poll.poll(left_s * 1000 + 1):
                os.eventfd_read(self._bell)
        self._hurry.clear()

    def _ring(self) -> None:
        if self._bell >= 0:
            os.eventfd_write(self._bell, 1)


def _place(broker: Broker) -> str:
    return broker.unix or f"{broker.host}:{broker.port}{broker.websocket_path}"
