"""The running agent: one loop over events, one thread for updates, one for the broker.

The loop sleeps until something comes or is due; threads only put a word into its queue.
"""

import contextlib
import logging
import queue
import signal
import threading
import time
from enum import Enum, auto
from typing import Any, Final

import msgspec

from agent import __version__, locations
from agent.assembly import Bells, assemble
from agent.certificate import CertificateRenewal
from agent.commands import CheckNow, Collect, Commands, LogLevel, Order, PauseUpdates
from agent.control import Answer, Control
from agent.download.notices import Progress
from agent.errors import AgentError, RuntimeAwayError, StateError, TrustError
from agent.explaining import explained, explained_if_known
from agent.journal_sync.sending import JournalSending
from agent.member import Member
from agent.messages import MetricsBatch, write
from agent.presence import birth, reported
from agent.records.command_floor import CommandFloor
from agent.records.outbox_rows import Priority
from agent.records.updates import Update
from agent.status import status
from agent.topics import Kind
from agent.update.standing import Standing
from agent.updating import Updating
from edge_runtime.systemd import Notifier, watchdog_interval_s

_log = logging.getLogger(__name__)

STOP_S: Final = 20.0
CHECK_S: Final = 300.0


class Event(Enum):
    """What happened; the word is all there is to it, what belongs to it lies elsewhere."""

    MESSAGE = auto()
    CONNECTED = auto()
    CHANGED = auto()
    CLONED = auto()
    COLLECT = auto()
    STOP = auto()


class Agent:
    """The agent while it runs.

    Args:
        member: Who this device is.
        command_keys: Public keys that may command, by their id.

    Raises:
        AgentError: It cannot be put together.
    """

    def __init__(self, member: Member, command_keys: dict[str, bytes]) -> None:
        # Of all queues only this one may be put into by a signal's handler.
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._waiting: set[Event] = set()
        self._started_s = time.time()
        self._progress: dict[int, tuple[str, Progress]] = {}
        self._parts = parts = assemble(
            member,
            Bells(
                on_message=lambda: self._put(Event.MESSAGE),
                on_connected=lambda: self._put(Event.CONNECTED),
                on_cloned=lambda: self._put(Event.CLONED),
                on_progress=self._note_progress,
            ),
        )
        self._device = member.config.device
        self._topics = parts.messaging.topics
        self._commands = Commands(
            command_keys, CommandFloor(parts.file), parts.clock.wall_s, self._obey
        )
        self._updating: Updating | None = None
        if parts.machine is not None:
            self._updating = Updating(
                parts.repository,
                member.config.repository,
                parts.looking,
                parts.machine,
                wall_s=parts.clock.wall_s,
                on_distrust=self._distrusted,
                changed=lambda: self._put(Event.CHANGED),
            )
        self._journal = JournalSending(parts)
        self._ended = threading.Event()
        self._sending = threading.Thread(
            target=self._journal.run, args=(self._ended,), name="journal", daemon=True
        )
        self._renewal = CertificateRenewal(parts)
        self._notifier = Notifier()
        self._said: dict[str, Standing] | None = None
        self._control = Control(locations.control_socket(member.state), self._answers())

    def run(self) -> None:
        """Go on until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._put(Event.STOP))
        self._control.start()
        self._parts.messaging.start()
        if self._updating is not None:
            self._updating.start()
        if self._parts.member.config.journal.url:
            self._sending.start()
        self._notifier.ready()
        _log.info(
            "edge-agent %s runs as %s in the fleet %s",
            __version__,
            self._device.id,
            self._device.fleet,
        )
        try:
            self._loop()
        finally:
            self._end()

    # -- the loop ------------------------------------------------------------------------------

    def _loop(self) -> None:
        telemetry_s = self._next_telemetry_s()
        watchdog_s = watchdog_interval_s()
        beat_s = time.monotonic() if watchdog_s is not None else float("inf")
        self._say_birth()
        while True:
            now_s = time.monotonic()
            if watchdog_s is not None and now_s >= beat_s:
                self._notifier.watchdog()
                beat_s = now_s + watchdog_s
            due_s = min(telemetry_s, beat_s, self._renewal.due_s)
            event = self._next(max(0.0, due_s - now_s))
            if event is Event.STOP:
                return
            if event is Event.COLLECT or time.monotonic() >= telemetry_s:
                self._collect()
                telemetry_s = self._next_telemetry_s()
            self._happened(event)
            self._renewal.run_if_due()

    def _next(self, wait_s: float) -> Event | None:
        try:
            event = self._events.get(timeout=min(wait_s, threading.TIMEOUT_MAX))
        except queue.Empty:
            return None
        self._waiting.discard(event)  # what comes from now on is another one
        return event

    def _happened(self, event: Event | None) -> None:
        if event is Event.MESSAGE:
            self._take_messages()
        elif event is Event.CONNECTED:
            self._say_birth()
        elif event is Event.CHANGED:
            self._say_what_changed()
        elif event is Event.CLONED:
            self._note_clone()

    def _note_clone(self) -> None:
        """Begin nothing any more, and say so: another device has this one's key."""
        try:
            self._parts.clone.note()
        except StateError as error:
            _log.error("it is not remembered that there is a clone: %s", error.message)
        _log.error(
            "another device signs with this one's key: no update begins until this is seen to; "
            "run `edge-agent prepare-image` on the copy, and enrol both again"
        )
        if self._updating is not None:
            self._updating.decide_again()
        self._say_birth()

    def _put(self, event: Event) -> None:
        # Each waits once: whoever takes it looks at everything. So the queue stays short.
        if event not in self._waiting:
            self._waiting.add(event)
            self._events.put(event)

    def _next_telemetry_s(self) -> float:
        interval_s = self._parts.sampling.interval_s
        return time.monotonic() + interval_s if interval_s > 0 else float("inf")

    def _end(self) -> None:
        self._notifier.stopping()
        self._ended.set()
        self._control.stop()
        if self._updating is not None and not self._updating.stop(STOP_S):
            _log.error("an update does not end; it goes on at the next start")
        if self._sending.ident is not None:
            self._sending.join(STOP_S)
        try:
            self._parts.messaging.stop()
        except StateError as error:
            _log.error("what waited in memory is lost: %s", error.message)
        self._parts.close()
        _log.info("stopped")

    # -- what is said --------------------------------------------------------------------------

    def _standings(self) -> dict[str, Standing]:
        with contextlib.suppress(RuntimeAwayError):
            return self._parts.runtime.standings()
        return {}

    def _say_birth(self) -> None:
        standings = self._standings()
        parts = self._parts
        message = birth(
            self._device,
            parts.cpu,
            boot_id=parts.messaging.outbox.boot_id,
            started_s=self._started_s,
            memory_bytes=parts.conditions.host().memory_bytes,
            standings=standings,
            suspicion=parts.messaging.clones.suspicion,
        )
        parts.messaging.add(self._topics.birth, write(message), Priority.LATEST, retain=True)
        self._said = None
        self._say_reported(standings)

    def _say_what_changed(self) -> None:
        self._say_reported(self._standings())

    def _say_reported(self, standings: dict[str, Standing]) -> None:
        if standings == self._said:
            return
        self._said = standings
        message = reported(standings, self._parts.clock.wall_s())
        self._parts.messaging.add(
            self._topics.reported, write(message), Priority.LATEST, retain=True
        )

    def _distrusted(self, error: TrustError) -> None:
        batch = MetricsBatch(
            batch={
                "at_s": self._parts.clock.wall_s(),
                "repository": {"distrusted": error.reason, "text": error.message[:1000]},
            }
        )
        self._parts.messaging.add(self._topics.metrics, write(batch), Priority.STATUS)

    def _collect(self) -> int:
        found = self._parts.sampling.sample()
        for batch in found:
            payload = write(MetricsBatch(batch=batch))
            if self._parts.budget.allows("telemetry", len(payload)):
                self._parts.messaging.add(self._topics.metrics, payload, Priority.METRICS)
        return len(found)

    def _note_progress(self, update: Update, file: str, progress: Progress) -> None:
        self._progress = {update.id: (file, progress)}  # of one update at a time

    # -- what is heard -------------------------------------------------------------------------

    def _take_messages(self) -> None:
        for message in self._parts.messaging.inbox.take():
            if message.topic.kind is Kind.ANNOUNCEMENT:
                if self._updating is not None:
                    self._updating.announced(message.payload)
                continue
            try:
                result = self._commands.receive(message.topic, message.payload)
            except StateError as error:
                _log.error("a command cannot be obeyed now: %s", error.message)
                continue
            if result is not None:
                topic = self._topics.result(message.topic.op, message.topic.id)
                self._parts.messaging.add(topic, write(result), Priority.STATUS)

    def _obey(self, order: Order) -> dict[str, Any]:
        match order:
            case Collect():
                return {"batches": self._collect()}
            case CheckNow():
                if self._updating is not None:
                    self._updating.ring()
                return {}
            case LogLevel(level=level):
                logging.getLogger().setLevel(level.upper())
                return {"level": level}
            case PauseUpdates(until_s=until_s):
                self._parts.pause.set(until_s)
                if self._updating is not None:
                    self._updating.decide_again()
                return {"until_s": until_s}

    # -- what is asked -------------------------------------------------------------------------

    def _answers(self) -> dict[str, Answer]:
        return {
            "status": lambda _: self._status(),
            "explain": self._explain,
            "check-now": lambda _: self._check_now(),
            "import": lambda _: self._import(),
        }

    def _status(self) -> dict[str, Any]:
        shown = None if self._updating is None else self._updating.shown
        found = status(self._parts, shown, self._progress, self._started_s)
        refused = {word.value: count for word, count in self._commands.refused.items()}
        return {
            **found,
            "commands": {"refused": refused, "dropped": self._parts.messaging.inbox.dropped},
        }

    def _explain(self, model: str) -> list[str]:
        problem = "" if self._updating is None else self._updating.shown.check.problem
        return explained(self._parts, model, problem)

    def _import(self) -> list[str]:
        if self._updating is None:
            raise AgentError("there is no root to judge files by: enrol the device first")
        check = self._updating.check_now(CHECK_S, self._parts.imported())
        if check.problem:
            raise AgentError(check.problem)
        return explained_if_known(self._parts)

    def _check_now(self) -> dict[str, Any]:
        if self._updating is None:
            raise AgentError("there is no repository: enrol the device, or set repository.url")
        found: dict[str, Any] = msgspec.to_builtins(self._updating.check_now(CHECK_S))
        return found
