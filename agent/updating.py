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
from dataclasses import dataclass, replace
from typing import Final

from agent.device.plans import Outlook, PlanLooking
from agent.errors import (
    AgentError,
    BudgetError,
    ConfigError,
    NetworkError,
    RuntimeAwayError,
    TrustError,
)
from agent.look_pace import LookPace
from agent.progressing import Check, Progressing
from agent.settings.device import Repository as RepositorySettings
from agent.troubles import Troubles
from agent.trust.complaints import Complaints
from agent.trust.refreshable import Refreshable
from agent.trust.repository import Repository
from agent.update.machine import UpdateMachine

_log = logging.getLogger(__name__)

LOOK_S: Final = 300.0
"""How often it is looked whether what succeeded still runs, while nothing else happens."""
AWAY_S: Final = 10.0
"""Pause before a daemon that was away is asked again about plans."""
RETRY_FIRST_S: Final = 10.0
JITTER: Final = 0.25
"""Of the time between two looks at the repository: a fleet must not look at once."""
NOT_FOLLOWED: Final = "plans cannot be followed now"
NOT_SETTINGS: Final = "the repository cannot be looked at with these settings"
OVER_BUDGET: Final = "the repository is not looked at"
BUDGET: Final = "budget"
"""The word for it, as it is shown and sent."""
FAULT: Final = "updates failed in a way nobody foresaw; they are tried again"


@dataclass(slots=True)
class _Wishes:
    """What others want of the thread; guarded by its condition.

    Attributes:
        announced: A timestamp that was announced.
        announced_at: When it is to be followed, in seconds of the awake clock.
        check: Whether somebody wants the repository looked at now.
        source: What came in another way, and is to be taken.
        decide: Whether plans are to be looked at again.
        stop: Whether it is over.
    """

    announced: bytes | None = None
    announced_at: float = 0.0
    check: bool = False
    source: Refreshable | None = None
    decide: bool = False
    stop: bool = False


class Updating:
    """Looks, decides, works.

    Args:
        repository: What is believed; ``None``: there is none, and only what is under way goes on.
        settings: ``[repository]``.
        looking: Decides about plans.
        machine: Takes updates further.
        wall_s: Seconds since 1970.
        on_distrust: Told once of each reason why the repository is not believed.
        on_spent: Told once that the byte budget lets nobody look at it.
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
        on_spent: Callable[[BudgetError], None],
        changed: Callable[[], None],
    ) -> None:
        self._repository = repository
        self._settings = settings
        self._looking = looking
        self._machine = machine
        self._wall_s = wall_s
        self._on_distrust = on_distrust
        self._on_spent = on_spent
        self._changed = changed
        self._complaints = Complaints()
        self._troubles = Troubles(wall_s)
        self._condition = threading.Condition()
        self._wishes = _Wishes(check=True)
        self._check_due_s = self._decide_due_s = self._look_due_s = 0.0
        self._work_due_s: float | None = 0.0
        self._pace = LookPace(settings.poll_s)
        self._turns = 0
        self._taken = Check()
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
            self._condition.notify_all()
        self._machine.interrupt()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def announced(self, timestamp: bytes) -> None:
        """Follow an announcement, after a random pause; a download makes way for it then.

        While the repository is not believed, no bell has it looked at more often: each look costs
        bytes, and anybody on the way to the broker can ring.
        """
        pause_s = random.uniform(0.0, self._settings.doorbell_jitter_s)  # noqa: S311 - no secret
        with self._condition:
            if self._pace.is_distrusted:
                pause_s = max(pause_s, self._check_due_s - time.monotonic())
            is_first = self._wishes.announced is None
            if is_first:
                self._wishes.announced_at = time.monotonic() + pause_s
            self._wishes.announced = timestamp
            self._condition.notify_all()
        if is_first:
            interrupting = threading.Timer(pause_s, self._machine.interrupt)
            interrupting.daemon = True
            interrupting.start()

    def check_now(self, timeout_s: float) -> Check:
        """Look at the repository now, and wait for what that brings.

        Args:
            timeout_s: How long to wait.

        Raises:
            ConfigError: There is no repository.
            NetworkError: It takes longer than this.
        """
        return self._awaited(lambda: self.shown.check, self.ring, timeout_s)

    def take(self, source: Refreshable, timeout_s: float) -> Check:
        """Take what came in another way, and wait for what that brings.

        A refusal says nothing of the repository: it is not complained of, and looked at as before.

        Args:
            source: Such as an import.
            timeout_s: How long to wait.

        Raises:
            ConfigError: There is no repository.
            NetworkError: It takes longer than this.
        """

        def wish() -> None:
            with self._condition:
                self._wishes.source = source
                self.decide_again()

        return self._awaited(lambda: self._taken, wish, timeout_s)

    def ring(self) -> None:
        """Look at the repository now."""
        with self._condition:
            self._wishes.check = True
            self._condition.notify_all()
        self._machine.interrupt()

    def _awaited(
        self, newest: Callable[[], Check], wish: Callable[[], None], timeout_s: float
    ) -> Check:
        if self._repository is None:
            raise ConfigError("there is no repository: enrol the device, or set repository.url")
        with self._condition:
            asked_in = self._turns  # what it brings may be older than the question
            wish()
            if not self._condition.wait_for(lambda: newest().turn > asked_in, timeout_s):
                raise NetworkError("the repository is still being looked at; ask again later")
            return newest()

    def decide_again(self) -> None:
        """Look at the plans again: something about the device has changed."""
        with self._condition:
            self._wishes.decide = True
            self._condition.notify_all()
        self._machine.interrupt()

    # -- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._machine.resume()
        except Exception as error:  # noqa: BLE001 - the same
            self._troubles.note(FAULT, f"{type(error).__name__}: {error}", fault=True)
        while self._waited():
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001 - logged; the device must stay reachable
                self._troubles.note(FAULT, f"{type(error).__name__}: {error}", fault=True)
                later_s = time.monotonic() + RETRY_FIRST_S
                self._work_due_s = later_s
                self._check_due_s = max(self._check_due_s, later_s)
                self._decide_due_s = max(self._decide_due_s, later_s)
                self._look_due_s = max(self._look_due_s, later_s)
            else:
                self._troubles.settle(FAULT)
            self._changed()

    def _waited(self) -> bool:
        """Wait until there is something to do; false: it is over."""
        with self._condition:
            while not self._wishes.stop:
                now_s = time.monotonic()
                due_s = self._due_s()
                wishes = self._wishes
                if wishes.check or wishes.decide or due_s <= now_s:
                    # Here: whoever wishes anything later, an end too, interrupts what begins now.
                    self._machine.heed()
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
        now_s = time.monotonic()
        with self._condition:
            self._turns += 1
            wishes, self._wishes = self._wishes, _Wishes(stop=self._wishes.stop)
            is_rung = wishes.announced is not None and wishes.announced_at <= now_s
            if wishes.announced is not None and not is_rung:
                self._wishes.announced = wishes.announced
                self._wishes.announced_at = wishes.announced_at
        if self._repository is not None and wishes.source is not None:
            self._take(wishes.source)
            self._repository.reread()
        must_decide = wishes.decide or now_s >= min(self._decide_due_s, self._look_due_s)
        if self._repository is not None and (wishes.check or is_rung or now_s >= self._check_due_s):
            self._refresh(self._repository, wishes.announced if is_rung else None)
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

    def _take(self, source: Refreshable) -> None:
        taken = Check(turn=self._turns, at_s=self._wall_s())
        try:
            with contextlib.nullcontext() if self._looking is None else self._looking.lock:
                found = source.refresh()
        except AgentError as error:
            _log.warning("an import is refused: %s", error.message)
            taken = replace(taken, problem=error.message)
        else:
            version, changed = found.timestamp_version, found.changed
            taken = replace(taken, timestamp_version=version, changed=changed)
            self.shown = replace(self.shown, check=replace(taken, turn=self.shown.check.turn))
        with self._condition:
            self._taken = taken
            self._condition.notify_all()

    def _refresh(self, repository: Repository, announced: bytes | None) -> None:
        believed = self.shown.check.timestamp_version
        check = Check(turn=self._turns, at_s=self._wall_s(), timestamp_version=believed)
        pause_s = self._settings.poll_s
        try:
            with contextlib.nullcontext() if self._looking is None else self._looking.lock:
                found = repository.refresh(announced)
        except TrustError as error:
            check = replace(check, problem=error.message, reason=error.reason)
            if self._complaints.is_new(error):
                _log.error("the repository is not believed: %s", error.message)
                self._on_distrust(error)
            pause_s = self._pace.failed(is_distrusted=True)
        except ConfigError as error:
            self._troubles.note(NOT_SETTINGS, error.message)
            check = replace(check, problem=error.message)
        except BudgetError as error:
            check = replace(check, problem=error.message, reason=BUDGET)
            if self._troubles.of(OVER_BUDGET) is None:
                self._on_spent(error)
            self._troubles.note(OVER_BUDGET, error.message)
        except AgentError as error:
            if error.message != self.shown.check.problem:
                _log.warning("the repository cannot be looked at: %s", error.message)
            check = replace(check, problem=error.message)
            pause_s = self._pace.failed()
        else:
            if self._complaints.settle():
                _log.info("the repository is believed again")
            self._troubles.settle(NOT_SETTINGS)
            self._troubles.settle(OVER_BUDGET)
            if self._pace.succeeded():
                with self._condition:
                    self._wishes.announced_at = time.monotonic()  # bells are heard again
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
            self._troubles.note(NOT_FOLLOWED, error.message)
            trouble = self._troubles.of(NOT_FOLLOWED)
            self.shown = replace(self.shown, plans_trouble=trouble)
            self._decide_due_s = time.monotonic() + RETRY_FIRST_S
            return
        self._troubles.settle(NOT_FOLLOWED)
        are_stored = [self._follows(outlook) for outlook in outlooks]
        self._decide_due_s = self._next_decision_s(outlooks)
        if not all(are_stored):
            self._decide_due_s = time.monotonic() + RETRY_FIRST_S
        self.shown = replace(
            self.shown, outlooks=tuple(outlooks), runtime_problem="", plans_trouble=None
        )

    def _follows(self, outlook: Outlook) -> bool:
        """Have a model's plan followed; a fault in that is no other model's trouble."""
        model = outlook.model
        what = f"the plan for {model} is not followed by a fault of this program"
        try:
            is_stored = self._machine.consider(
                model, outlook.plan, outlook.decision, outlook.manifest_sha256
            )
        except Exception as error:  # noqa: BLE001 - logged, and tried again
            self._troubles.note(what, f"{type(error).__name__}: {error}", fault=True)
            return False
        self._troubles.settle(what)
        return is_stored

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
