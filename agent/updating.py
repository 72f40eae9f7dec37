"""The one thread that looks at the repository and takes updates further.

Outside events only set flags: an announcement, somebody who asks, a setting. The thread sleeps
until one of them comes or something is due.
"""

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from agent.device.plans import Outlook, PlanLooking
from agent.errors import AgentError, ConfigError, NetworkError, RuntimeAwayError, TrustError
from agent.settings.device import Repository as RepositorySettings
from agent.trust.complaints import Complaints
from agent.trust.repository import Repository
from agent.update.machine import UpdateMachine

_log = logging.getLogger(__name__)

LOOK_S: Final = 300.0
"""How often it is looked whether what succeeded still runs, while nothing else happens."""
AWAY_S: Final = 10.0
"""Pause before a daemon that was away is asked again about plans."""
RETRY_FIRST_S: Final = 10.0
RETRY_MOST_S: Final = 1800.0
JITTER: Final = 0.25
"""Of the time between two looks at the repository: a fleet must not look at once."""


@dataclass(frozen=True, slots=True)
class Check:
    """What the last look at the repository brought.

    Attributes:
        number: Rises with each look.
        at_s: When, in seconds since 1970; 0: there was none.
        problem: Why it brought nothing; empty: it was well.
        reason: The same in a frozen word, where the repository was not believed.
        timestamp_version: Of the timestamp that is believed.
        fetched_bytes: What came over the network.
        changed: Whether anything was new.
    """

    number: int = 0
    at_s: float = 0.0
    problem: str = ""
    reason: str = ""
    timestamp_version: int = 0
    fetched_bytes: int = 0
    changed: bool = False


@dataclass(slots=True)
class _Wishes:
    """What others want of the thread; guarded by its condition.

    Attributes:
        announced: A timestamp that was announced.
        announced_at: When it is to be followed, in seconds of the awake clock.
        check: Whether somebody wants the repository looked at now.
        source: Where to look, if not at the repository itself.
        decide: Whether plans are to be looked at again.
        stop: Whether it is over.
    """

    announced: bytes | None = None
    announced_at: float = 0.0
    check: bool = False
    source: Repository | None = None
    decide: bool = False
    stop: bool = False


@dataclass(frozen=True, slots=True)
class Progressing:
    """What the thread shows of itself.

    Attributes:
        check: The last look.
        outlooks: What follows for each model.
        runtime_problem: Why the daemon does not answer; empty: it does.
    """

    check: Check = field(default_factory=Check)
    outlooks: tuple[Outlook, ...] = ()
    runtime_problem: str = ""


class Updating:
    """Looks, decides, works.

    Args:
        repository: What is believed; ``None``: there is none, and only what is under way goes on.
        settings: ``[repository]``.
        looking: Decides about plans.
        machine: Takes updates further.
        wall_s: Seconds since 1970.
        on_distrust: Told once of each reason why the repository is not believed.
        changed: Called after each turn in which something may have changed.
    """

    def __init__(
        self,
        repository: Repository | None,
        settings: RepositorySettings,
        looking: PlanLooking | None,
        machine: UpdateMachine,
        *,
        wall_s: Callable[[], float],
        on_distrust: Callable[[TrustError], None],
        changed: Callable[[], None],
    ) -> None:
        self._repository = repository
        self._settings = settings
        self._looking = looking
        self._machine = machine
        self._wall_s = wall_s
        self._on_distrust = on_distrust
        self._changed = changed
        self._complaints = Complaints()
        self._condition = threading.Condition()
        self._wishes = _Wishes(check=True)
        self._check_due_s = 0.0
        self._decide_due_s = 0.0
        self._work_due_s: float | None = 0.0
        self._look_due_s = 0.0
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="updates", daemon=True)
        self.shown = Progressing()

    # -- any thread ----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """End it; whether that happened in time."""
        with self._condition:
            self._wishes.stop = True
            self._condition.notify()
        self._machine.interrupt()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def announced(self, timestamp: bytes) -> None:
        """Follow an announcement, after a random pause; a download makes way for it then."""
        pause_s = random.uniform(0.0, self._settings.doorbell_jitter_s)  # noqa: S311 - no secret
        with self._condition:
            is_first = self._wishes.announced is None
            if is_first:
                self._wishes.announced_at = time.monotonic() + pause_s
            self._wishes.announced = timestamp
            self._condition.notify()
        if is_first:
            interrupting = threading.Timer(pause_s, self._machine.interrupt)
            interrupting.daemon = True
            interrupting.start()

    def check_now(self, timeout_s: float, source: Repository | None = None) -> Check:
        """Look at the repository now, and wait for what that brings.

        Args:
            timeout_s: How long to wait.
            source: Where to look instead, such as at files that were imported.

        Raises:
            ConfigError: There is no repository.
            NetworkError: It takes longer than this.
        """
        if self._repository is None:
            raise ConfigError("there is no repository: enrol the device, or set repository.url")
        before = self.shown.check.number
        self.ring(source)
        end_s = time.monotonic() + timeout_s
        with self._condition:
            while self.shown.check.number == before:
                if not self._condition.wait(max(0.0, end_s - time.monotonic())):
                    raise NetworkError("the repository is still being looked at; ask again later")
        return self.shown.check

    def ring(self, source: Repository | None = None) -> None:
        """Look at the repository now, or somewhere else."""
        with self._condition:
            self._wishes.check = True
            self._wishes.source = source
            self._condition.notify()
        self._machine.interrupt()

    def decide_again(self) -> None:
        """Look at the plans again: something about the device has changed."""
        with self._condition:
            self._wishes.decide = True
            self._condition.notify()
        self._machine.interrupt()

    # -- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        self._machine.resume()
        while self._waited():
            try:
                self._turn()
            except Exception:  # noqa: BLE001 - logged; the device must stay reachable
                _log.exception("updates failed in a way nobody foresaw; they are tried again")
                later_s = time.monotonic() + RETRY_FIRST_S
                self._work_due_s = later_s
                self._check_due_s = max(self._check_due_s, later_s)
                self._decide_due_s = max(self._decide_due_s, later_s)
                self._look_due_s = max(self._look_due_s, later_s)
            self._changed()

    def _waited(self) -> bool:
        """Wait until there is something to do; false: it is over."""
        with self._condition:
            while not self._wishes.stop:
                now_s = time.monotonic()
                due_s = self._due_s()
                wishes = self._wishes
                if wishes.check or wishes.decide or due_s <= now_s:
                    return True
                self._condition.wait(due_s - now_s)
            return False

    def _due_s(self) -> float:
        due = [self._look_due_s]
        if self._repository is not None:
            due += [self._check_due_s, self._decide_due_s]
        if self._work_due_s is not None:
            due.append(self._work_due_s)
        if self._wishes.announced is not None:
            due.append(self._wishes.announced_at)
        return min(due)

    def _turn(self) -> None:
        # Before the wishes are taken: whoever wishes something later interrupts what begins here.
        self._machine.heed()
        now_s = time.monotonic()
        with self._condition:
            wishes, self._wishes = self._wishes, _Wishes(stop=self._wishes.stop)
            is_rung = wishes.announced is not None and wishes.announced_at <= now_s
            if wishes.announced is not None and not is_rung:
                self._wishes.announced = wishes.announced
                self._wishes.announced_at = wishes.announced_at
        must_decide = wishes.decide or now_s >= min(self._decide_due_s, self._look_due_s)
        if self._repository is not None and (wishes.check or is_rung or now_s >= self._check_due_s):
            source = wishes.source or self._repository
            self._refresh(source, wishes.announced if is_rung else None)
            if source is not self._repository:
                self._repository.reread()
            must_decide = True
        if must_decide:
            self._decide()
        if now_s >= self._look_due_s:
            self._machine.look()
            self._look_due_s = time.monotonic() + LOOK_S
        was_busy = self._work_due_s is not None
        pause_s = self._machine.work()
        if was_busy and pause_s is None and self._looking is not None:
            self._decide_due_s = time.monotonic()  # something came to its end
        self._work_due_s = None if pause_s is None else time.monotonic() + pause_s

    def _refresh(self, repository: Repository, announced: bytes | None) -> None:
        check = replace(self.shown.check, at_s=self._wall_s(), problem="", reason="")
        check = replace(check, fetched_bytes=0, changed=False, number=check.number + 1)
        pause_s = self._settings.poll_s
        try:
            with contextlib.nullcontext() if self._looking is None else self._looking.lock:
                found = repository.refresh(announced)
        except TrustError as error:
            check = replace(check, problem=error.message, reason=error.reason)
            if self._complaints.is_new(error):
                _log.error("the repository is not believed: %s", error.message)
                self._on_distrust(error)
            pause_s = self._after_failure()
        except ConfigError as error:
            check = replace(check, problem=error.message)
        except AgentError as error:
            if error.message != self.shown.check.problem:
                _log.warning("the repository cannot be looked at: %s", error.message)
            check = replace(check, problem=error.message)
            pause_s = self._after_failure()
        else:
            if self._complaints.settle():
                _log.info("the repository is believed again")
            self._failures = 0
            check = replace(
                check,
                timestamp_version=found.timestamp_version,
                fetched_bytes=found.fetched_bytes,
                changed=found.changed,
            )
        self._check_due_s = time.monotonic() + pause_s * random.uniform(1 - JITTER, 1)  # noqa: S311
        with self._condition:
            self.shown = replace(self.shown, check=check)
            self._condition.notify_all()

    def _after_failure(self) -> float:
        self._failures += 1
        pause_s: float = RETRY_FIRST_S * 2.0 ** min(self._failures, 20)
        return min(pause_s, RETRY_MOST_S, self._settings.poll_s)

    def _decide(self) -> None:
        if self._looking is None:
            return
        self._decide_due_s = float("inf")
        try:
            outlooks = self._looking.outlooks()
        except RuntimeAwayError as error:
            if error.message != self.shown.runtime_problem:
                _log.warning("%s", error.message)
            self.shown = replace(self.shown, runtime_problem=error.message)
            self._decide_due_s = time.monotonic() + AWAY_S
            return
        except AgentError as error:
            _log.error("plans cannot be followed now: %s", error.message)
            self._decide_due_s = time.monotonic() + RETRY_FIRST_S
            return
        are_stored = [
            self._machine.consider(
                outlook.model, outlook.plan, outlook.decision, outlook.manifest_sha256
            )
            for outlook in outlooks
        ]
        self._decide_due_s = self._next_decision_s(outlooks)
        if not all(are_stored):
            self._decide_due_s = time.monotonic() + RETRY_FIRST_S
        self.shown = replace(self.shown, outlooks=tuple(outlooks), runtime_problem="")

    def _next_decision_s(self, outlooks: list[Outlook]) -> float:
        """Say when a decision may be another one without another plan: a window opens, ..."""
        pauses = [
            max(1.0, outlook.decision.again_at_s - self._wall_s())
            for outlook in outlooks
            if outlook.decision is not None and outlook.decision.again_at_s is not None
        ]
        pauses += [
            LOOK_S
            for outlook in outlooks
            if outlook.decision is not None and outlook.decision.action.kind == "hold"
        ]
        return time.monotonic() + min(pauses) if pauses else float("inf")
