"""The updates of this device: stored, then acted on, one step at a time, by one thread.

``consider`` says what a decision about a plan means for what is under way; ``work`` goes a step
further with everything that is; ``resume`` is called once, first. Whatever happens in between, a
kill at any line included, the next start comes to the same end: see ``states``.
"""

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from agent.errors import RuntimeAwayError, StateError
from agent.plan.decision import Decision
from agent.plan.reasons import Reason
from agent.records.updates import INSTALL, Update, Updates
from agent.troubles import Troubles
from agent.update.choices import SUPERSEDED, canceled, is_same, outlives, planned, second_look
from agent.update.deadlines import ALONE_S, SLICE_S, START_S, Deadlines, Stopwatches
from agent.update.following import fallen_back
from agent.update.outcomes import HOLD_S, POLL_S, RETRY_S, Advance, Outcome, Wait
from agent.update.points import passed
from agent.update.ports import Device, Downloads, Plans, Reports
from agent.update.recovery import resumed
from agent.update.reporting import WAITS_MAX, status_of
from agent.update.states import FINAL, HANDED_OVER, UNSUCCESSFUL, Event, State, known, next_state
from agent.update.steps import Means, late, step
from fleet.documents.plan import Plan

_log = logging.getLogger(__name__)

NOT_GOING_ON: Final = "updates cannot go on now"
NOT_LOOKED_AT: Final = "what runs cannot be looked at now"
NOT_REPORTED: Final = "updates cannot be reported now"


class UpdateMachine:
    """Takes updates through their states.

    Every method but ``interrupt`` belongs to one thread, and none raises for what disks, networks
    or the runtime do: that is waited for, and reported.

    Args:
        updates: Where they are stored.
        downloads: Brings files.
        device: The runtime.
        plans: The plan, looked at again.
        reports: The way to the fleet.
        deadlines: Most time of each state.
        now_s: Seconds since 1970.
        elapsed_s: The counter by which version changes are counted.
        poll_s: How often the runtime is looked at while it judges a release.
        awake_s: The clock that goes while the device is awake.
    """

    def __init__(
        self,
        *,
        updates: Updates,
        downloads: Downloads,
        device: Device,
        plans: Plans,
        reports: Reports,
        deadlines: Deadlines,
        now_s: Callable[[], float],
        elapsed_s: Callable[[], float],
        poll_s: float = POLL_S,
        awake_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._poll_s = poll_s
        self._elapsed_s = elapsed_s
        self._updates = updates
        self._troubles = Troubles(now_s)
        self._reports = reports
        self._deadlines = deadlines
        self._watches = Stopwatches(awake_s, updates.tick)
        self._interrupted = threading.Event()
        self._is_newer = False
        self._means = Means(
            downloads=downloads,
            device=device,
            plans=plans,
            now_s=now_s,
            interrupted=self._interrupted,
        )

    def interrupt(self) -> None:
        """Make a download stop soon, from any thread: there is something newer to decide."""
        self._is_newer = True
        self._interrupted.set()

    def heed(self) -> None:
        """Say that the worker is about to decide: downloads may run again after that."""
        self._is_newer = False
        self._interrupted.clear()

    def resume(self) -> None:
        """Take up what the last start left; call it first."""
        try:
            for update in self._unfinished():
                self._updates.tick(update.id, update.used_s + START_S)
                outcome = resumed(update, self._means.downloads)
                if outcome is not None:
                    self._advance(update, outcome)
            self._report_the_rest()
        except StateError as error:
            _log.error("updates cannot be taken up now: %s", error)

    def consider(
        self, model: str, plan: Plan | None, decision: Decision | None, manifest_sha256: str
    ) -> bool:
        """Say what a model's newest plan means: it wins over whatever is not committed.

        Args:
            model: The model's name.
            plan: Its plan; ``None``: the channel has none.
            decision: About it.
            manifest_sha256: Of its release.

        Returns:
            Whether that is stored; if not, the disk refused: say it again later.
        """
        what = f"the plan for {model} cannot be followed now"
        try:
            current = self._current(model)
            if plan is None or decision is None:
                if current is not None and current.state not in HANDED_OVER:
                    self._cancel(current, None)
            else:
                self._follow(current, plan, decision, manifest_sha256)
        except StateError as error:
            self._troubles.note(what, error.message)
            return False
        self._troubles.settle(what)
        return True

    def _follow(
        self, current: Update | None, plan: Plan, decision: Decision, manifest_sha256: str
    ) -> None:
        if current is not None:
            if is_same(current, plan, decision, manifest_sha256):
                self._renew(current, plan)
                return
            if outlives(current, decision):
                return
            self._cancel(current, decision)
        self._begin(planned(plan, decision, manifest_sha256, self._means.now_s()))

    def work(self) -> float | None:
        """Go one step further with everything that is under way.

        A fault of this program at one update is raised after all of them had their turn.

        Returns:
            Seconds until there is more to do, should nothing happen before; ``None``: nothing is
            under way, and everything is reported.
        """
        pauses: list[float] = []
        faults: list[Exception] = []
        try:
            under_way = self._unfinished()
            slice_s = SLICE_S if len(under_way) > 1 else ALONE_S
            for update in under_way:
                try:
                    pauses.append(self._step(update, slice_s))
                except StateError:
                    raise
                except Exception as error:  # noqa: BLE001 - raised below, when the others had their turn
                    faults.append(error)
            if not self._report_the_rest():
                pauses.append(RETRY_S)
        except StateError as error:
            self._troubles.note(NOT_GOING_ON, error.message)
            pauses.append(RETRY_S)
        else:
            self._troubles.settle(NOT_GOING_ON)
        if faults:
            raise faults[0]
        return min(pauses, default=None)

    def look(self) -> None:
        """See whether what had succeeded still runs, and report what does not."""
        try:
            busy = {update.model for update in self._unfinished()}
            for update in self._updates.latest_in(State.SUCCEEDED):
                if update.model in busy:
                    continue
                outcome = fallen_back(update, self._means.device.standing(update.model))
                if outcome is not None:
                    self._advance(update, outcome)
        except RuntimeAwayError:
            return
        except StateError as error:
            self._troubles.note(NOT_LOOKED_AT, error.message)
        else:
            self._troubles.settle(NOT_LOOKED_AT)

    def _unfinished(self) -> list[Update]:
        return self._updates.except_in(FINAL)

    def _current(self, model: str) -> Update | None:
        for update in self._unfinished():
            if update.model == model and update.state != State.CANCELING:
                return update
        return None

    def _begin(self, update: Update | None) -> None:
        if update is None:
            return
        if update.state == State.REJECTED and self._was_rejected(update):
            return
        stored = self._store_new(update)
        _log.info(
            "update %d of %s to %d: %s", stored.id, stored.model, stored.version, stored.state
        )
        self._report(stored)

    def _store_new(self, update: Update) -> Update:
        passed("agent.update.store")
        stored = self._updates.add(update)
        passed("agent.update.stored")
        return stored

    def _was_rejected(self, update: Update) -> bool:
        """Tell whether the fleet has heard just this already, or how it came to it."""
        for each in self._updates.of_model(update.model):
            if (each.rollout, each.version) != (update.rollout, update.version):
                continue
            if each.state == State.REJECTED and each.code == update.code:
                return True
            if each.state in UNSUCCESSFUL and update.code == Reason.REMEMBERED_AS_BAD:
                return True
        return False

    def _renew(self, current: Update, plan: Plan) -> None:
        newer = dataclasses.replace(
            current, sequence=plan.sequence, again=plan.again, bytes_max=plan.bytes_max
        )
        if newer != current:
            self._updates.store(newer)

    def _cancel(self, current: Update, decision: Decision | None) -> None:
        outcome = second_look(current, decision, self._means.now_s())
        if outcome is None and decision is not None:
            # The same version, for another rollout or of another bundle.
            outcome = canceled(SUPERSEDED, "a newer plan takes its place")
        if isinstance(outcome, Advance):
            self._advance(current, _possible(current, outcome))

    def _step(self, update: Update, slice_s: float) -> float:
        # An earlier update's step may have taken hours.
        present = self._updates.get(update.id)
        if present is None or present.state in FINAL:
            return 0.0
        limit_s = self._deadlines.of(present.state)
        used_s = self._watches.used_s(present)
        if known(present.state) is None:
            outcome: Outcome | None = resumed(present, self._means.downloads)
        elif used_s >= limit_s:
            outcome = late(present)
        elif present.state == State.DOWNLOADING:
            with self._watches.watching(present, min(limit_s, used_s + slice_s), self._interrupted):
                outcome = step(present, self._means, used_s)
            self._interrupted.clear()  # its own watch may have set it
            if self._is_newer:  # or somebody else, who says so first, may be just now
                self._interrupted.set()
        else:
            outcome = step(present, self._means, used_s)
        if isinstance(outcome, Advance):
            self._advance(present, outcome)
            return 0.0
        self._watches.store(present)
        if outcome is None:
            return 0.0
        self._wait(present, outcome)
        pause_s = self._poll_s if outcome.pause_s is None else outcome.pause_s
        return max(0.0, min(pause_s, limit_s - self._watches.used_s(present), HOLD_S))

    def _advance(self, update: Update, outcome: Advance) -> bool:
        """Store what follows, and report it; whether the report was taken."""
        now_s = self._means.now_s()
        state = next_state(update.state, outcome.event)
        newer = dataclasses.replace(
            update,
            state=state,
            code=outcome.code,
            reason=outcome.reason,
            used_s=0.0,
            waits=0,
            losses=update.losses + (outcome.event is Event.LOST),
            seen_release=(
                update.seen_release if outcome.seen_release is None else outcome.seen_release
            ),
            ending=outcome.ending if state is State.CANCELING else "",
            is_reported=False,
            updated_s=now_s,
        )
        passed("agent.update.store")
        self._updates.store(
            newer,
            change_at_s=self._elapsed_s() if outcome.does_change else None,
            bad_at_s=now_s if outcome.is_harmful else None,
            is_good=outcome.event is Event.COMMITTED and update.kind == INSTALL,
        )
        passed("agent.update.stored")
        _log.info(
            "update %d of %s to %d: %s -> %s %s %s",
            update.id,
            update.model,
            update.version,
            update.state,
            state,
            outcome.code,
            outcome.reason,
        )
        if state in FINAL:
            self._watches.forget(newer)
            with contextlib.suppress(StateError):
                self._means.downloads.forget(newer)
        return self._report(newer)

    def _wait(self, update: Update, outcome: Wait) -> None:
        phase = update.phase if outcome.phase is None else outcome.phase
        if (outcome.code, phase) == (update.code, update.phase):
            return
        if update.state == State.CANCELING:  # its reason is why it ends, not what that waits for
            return
        is_told = bool(outcome.code) or phase != update.phase
        is_told = is_told and update.waits < WAITS_MAX
        newer = dataclasses.replace(
            update,
            code=outcome.code,
            reason=outcome.reason,
            phase=phase,
            waits=update.waits + is_told,
            is_reported=update.is_reported and not is_told,
        )
        passed("agent.update.store")
        self._updates.store(newer)
        passed("agent.update.stored")
        if is_told:
            self._report(newer)

    def _report(self, update: Update) -> bool:
        """Tell the fleet; what the disk does not take now is told later, as it is then."""
        standing = None
        try:
            standing = self._means.device.standing(update.model)
        except RuntimeAwayError:
            _log.info("the runtime is away: the report of update %d has no digest", update.id)
        if standing is not None and update.state == State.SUCCEEDED:
            # A person, or the runtime itself, may have been faster than the report.
            outcome = fallen_back(update, standing)
            newest = {each.id for each in self._updates.latest_in(State.SUCCEEDED)}
            if outcome is not None and update.id in newest:
                return self._advance(update, outcome)
        try:
            passed("agent.update.report")
            self._reports.job(status_of(update, standing, self._means.now_s()))
            passed("agent.update.reported")
            self._updates.reported(update.id, update.state)
        except StateError as error:
            self._troubles.note(NOT_REPORTED, error.message, level=logging.WARNING)
            return False
        self._troubles.settle(NOT_REPORTED)
        return True

    def _report_the_rest(self) -> bool:
        return all(self._report(update) for update in self._updates.unreported())


def _possible(current: Update, outcome: Advance) -> Advance:
    """Turn a refusal that comes after the hand-over into an order to let go."""
    if outcome.event is Event.REJECT and current.state == State.FOLLOWING:
        return canceled(outcome.code, outcome.reason)
    if outcome.event is Event.REJECT and current.state == State.HANDING_OVER:
        # The runtime may have it: only its word ends that.
        return canceled(outcome.code, outcome.reason)
    return outcome
