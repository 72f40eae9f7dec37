"""The running agent: one loop over events; updates, the broker and slow servers have threads.

The loop sleeps until something comes or is due; threads only put a word into its queue.
"""

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
from agent.errors import AgentError, BudgetError, RuntimeAwayError, StateError, TrustError
from agent.explaining import explained, explained_if_known, explained_last
from agent.journal_sync.sending import JournalSending
from agent.member import Member
from agent.messages import MetricsBatch, write
from agent.records.command_floor import CommandFloor
from agent.records.outbox_rows import Priority
from agent.records.updates import Update
from agent.self_report import SelfReport
from agent.status import status
from agent.topics import Kind
from agent.transport.clones import Suspicion
from agent.updating import BUDGET, Updating
from edge_runtime.systemd import Notifier, watchdog_interval_s

_log = logging.getLogger(__name__)

STOP_S: Final = 20.0
CALLED_OFF_S: Final = 2.0
"""Longest wait for the thread whose request was called off: it may still look for its server."""
CHECK_S: Final = 300.0


ANYWAY_S: Final = 60.0
"""How often models are looked at where nothing is measured."""


class Event(Enum):
    """What happened; the word is all there is to it, what belongs to it lies elsewhere."""

    MESSAGE = auto()
    BIRTH = auto()
    CHANGED = auto()
    CLONED = auto()
    COLLECT = auto()
    DAMAGED = auto()
    MOVED = auto()
    STOP = auto()


_ENDS: Final = frozenset({Event.DAMAGED, Event.MOVED, Event.STOP})


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
        self._end_by: Event | None = None
        self._started_s = time.time()
        self._progress: dict[int, tuple[str, Progress]] = {}
        self._parts = parts = assemble(
            member,
            Bells(
                on_message=lambda: self._put(Event.MESSAGE),
                on_connected=lambda: self._put(Event.BIRTH),
                on_stranger=lambda: self._put(Event.BIRTH),
                on_cloned=lambda: self._put(Event.CLONED),
                on_progress=self._note_progress,
            ),
        )
        parts.file.heed_damage(lambda: self._put(Event.DAMAGED))
        self._device = member.config.device
        self._topics = parts.messaging.topics
        self._commands = Commands(
            command_keys, CommandFloor(parts.file, command_keys), parts.clock.wall_s, self._obey
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
                on_spent=self._spent,
                changed=lambda: self._put(Event.CHANGED),
            )
        self._journal = JournalSending(parts)
        self._ended = threading.Event()
        self._sending = threading.Thread(
            target=self._journal.run, args=(self._ended,), name="journal", daemon=True
        )
        self._renewal = CertificateRenewal(parts, on_moved=lambda: self._put(Event.MOVED))
        self._are_metrics_held = False
        self._notifier = Notifier()
        self._self_report = SelfReport(parts, self._started_s)
        self._control = Control(locations.control_socket(member.state), self._answers())

    def run(self) -> None:
        """Go on until SIGTERM or SIGINT.

        Raises:
            StateError: agent.db is damaged: the next start sets it aside and begins a new one.
            AgentError: The enrolment server moved something: the next start takes it up.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._put(Event.STOP))
        self._control.start()
        self._leave_sign()
        self._parts.messaging.start()
        if self._updating is not None:
            self._updating.start()
        if self._parts.member.config.journal.url:
            self._sending.start()
        self._renewal.start()
        self._tell_of_loss()
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
        self._check_end()

    def _check_end(self) -> None:
        """Fail where nobody asked for the end: whoever started the agent starts it again."""
        if self._parts.file.damage:
            raise StateError(
                f"{self._parts.file.damage}; the agent ends: its next start puts the file aside, "
                "and takes what guards this device from its copy"
            )
        if self._end_by is Event.MOVED:
            raise AgentError(
                f"the renewal of the certificate brought other values of: "
                f"{', '.join(self._renewal.moved)}; the agent ends: its next start takes them up"
            )

    # -- the loop ------------------------------------------------------------------------------

    def _loop(self) -> None:
        look_s = self._next_look_s()
        watchdog_s = watchdog_interval_s()
        beat_s = time.monotonic() if watchdog_s is not None else float("inf")
        # A daemon that hangs is waited for in every part of a turn: none begins at a stop.
        self._happened(Event.BIRTH)
        while not self._is_over():
            now_s = time.monotonic()
            if watchdog_s is not None and now_s >= beat_s:
                self._notifier.watchdog()
                beat_s = now_s + watchdog_s
            event = self._next(max(0.0, min(look_s, beat_s) - now_s))
            if time.monotonic() >= look_s:
                self._happened(Event.COLLECT)
                self._happened(Event.CHANGED)
                look_s = self._next_look_s()
            self._happened(event)

    def _is_over(self) -> bool:
        return self._end_by is not None

    def _next(self, wait_s: float) -> Event | None:
        try:
            event = self._events.get(timeout=min(wait_s, threading.TIMEOUT_MAX))
        except queue.Empty:
            return None
        self._waiting.discard(event)  # what comes from now on is another one
        return event

    def _happened(self, event: Event | None) -> None:
        if self._is_over():
            return
        if event is Event.MESSAGE:
            self._take_messages()
        elif event is Event.COLLECT:
            if self._parts.sampling.interval_s > 0:
                self._collect()
        elif event is Event.BIRTH:
            self._self_report.birth()
        elif event is Event.CHANGED:
            self._self_report.changed()
        elif event is Event.CLONED:
            self._note_clone()

    def _note_clone(self) -> None:
        """Begin nothing any more, and say so: another device has this one's key."""
        if self._parts.messaging.clones.suspicion is not Suspicion.CLONED:
            return  # somebody has seen to it meanwhile
        try:
            self._parts.clone.note()
        except StateError as error:
            _log.error("it is not remembered that there is a clone: %s", error.message)
        _log.error(
            "another device signs with this one's key: no update begins until this is seen to; "
            "run `edge-agent prepare-image` on the copy, and enrol both again; if the copy is gone "
            "for good, `edge-agent clear-clone`"
        )
        if self._updating is not None:
            self._updating.decide_again()
        self._self_report.birth()

    def _put(self, event: Event) -> None:
        if event in _ENDS and self._end_by is None:
            self._end_by = event
        # Each waits once: whoever takes it looks at everything. So the queue stays short.
        if event not in self._waiting:
            self._waiting.add(event)
            self._events.put(event)

    def _next_look_s(self) -> float:
        return time.monotonic() + (self._parts.sampling.interval_s or ANYWAY_S)

    def _end(self) -> None:
        self._notifier.stopping()
        self._ended.set()
        self._journal.call_off()
        self._control.stop()
        locations.remove_sign(self._parts.member.state)
        if not self._renewal.stop(CALLED_OFF_S):
            _log.warning("the renewal of the certificate does not end; it is tried again later")
        if self._updating is not None and not self._updating.stop(STOP_S):
            _log.error("an update does not end; it goes on at the next start")
        if self._sending.ident is not None:
            self._sending.join(STOP_S)
        try:
            self._parts.messaging.stop()
        except StateError as error:
            _log.error("what waited in memory is lost: %s", error.message)
        try:
            self._parts.close()
        except StateError as error:
            _log.error("what was counted last is not kept: %s", error.message)
        _log.info("stopped")

    def _leave_sign(self) -> None:
        state = self._parts.member.state
        try:
            locations.leave_sign(state, locations.control_socket(state))
        except StateError as error:
            _log.warning("commands find the agent with --socket only: %s", error.message)

    # -- what is said --------------------------------------------------------------------------

    def _distrusted(self, error: TrustError) -> None:
        self._tell("repository", {"distrusted": error.reason, "text": error.message[:1000]})

    def _spent(self, error: BudgetError) -> None:
        self._tell("repository", {"refused": BUDGET, "text": error.message[:1000]})

    def _tell_of_loss(self) -> None:
        """Tell the fleet, once, that the records had to begin anew."""
        try:
            loss = self._parts.file.loss()
            if loss is not None and not loss.is_told:
                told = {"reason": loss.reason[:500], "kept": loss.kept, "lost": loss.lost}
                self._tell("records", told)
                self._parts.file.loss_is_told()
        except StateError as error:
            _log.error("the fleet is not told yet that records were lost: %s", error.message)

    def _tell(self, about: str, what: dict[str, Any]) -> None:
        batch = MetricsBatch(batch={"at_s": self._parts.clock.wall_s(), about: what})
        self._parts.messaging.add(self._topics.metrics, write(batch), Priority.STATUS)

    def _collect(self) -> int:
        found = self._parts.sampling.sample()
        for batch in found:
            payload = write(MetricsBatch(batch=batch))
            self._parts.messaging.add(self._topics.metrics, payload, Priority.METRICS)
        held = self._parts.messaging.held
        if held and not self._are_metrics_held:
            self._tell("telemetry", {"held": held[:1000]})
        self._are_metrics_held = bool(held)
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
            "clear-clone": lambda _: self._clear_clone(),
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
        if self._updating is None:
            return explained(self._parts, model)
        shown = self._updating.shown
        try:
            return explained(self._parts, model, shown.check.problem)
        except RuntimeAwayError as error:
            return explained_last(self._parts, model, shown.outlooks, error)

    def _import(self) -> list[str]:
        if self._updating is None:
            raise AgentError("there is no root to judge files by: enrol the device first")
        check = self._updating.take(self._parts.importing, CHECK_S)
        if check.problem:
            raise AgentError(check.problem)
        return explained_if_known(self._parts)

    def _clear_clone(self) -> dict[str, Any]:
        parts = self._parts
        before = parts.messaging.clones.suspicion
        parts.clone.clear()
        parts.messaging.clear_clone()
        if self._updating is not None:
            self._updating.decide_again()
        self._put(Event.BIRTH)
        return {"was": before.name.lower()}

    def _check_now(self) -> dict[str, Any]:
        if self._updating is None:
            raise AgentError("there is no repository: enrol the device, or set repository.url")
        found: dict[str, Any] = msgspec.to_builtins(self._updating.check_now(CHECK_S))
        return found
