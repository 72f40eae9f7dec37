"""One version's passage through this device, step by step: persist, then act.

Each step is safe to begin again. A step ends with an ``Outcome``; ``states`` says what follows; the
journal has it before anything is done about it. The one exception is the way back: requests are
sent to the active version first, because that is right whatever the disk says.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from edge_runtime.errors import EdgeRuntimeError, StorageError, UnavailableError
from edge_runtime.release.moves import Moves
from edge_runtime.release.ordered import Ordered
from edge_runtime.release.records import Release
from edge_runtime.release.states import (
    FINAL,
    TRANSITIONS,
    Cause,
    Event,
    State,
)
from edge_runtime.release.steps import Means, Outcome, Progress
from edge_runtime.release.traffic_steps import TrafficSteps
from edge_runtime.release.trial_steps import TrialSteps
from edge_runtime.routing import LoadedVersion

_log = logging.getLogger(__name__)

RETRY_S: Final = 0.5  # after the disk failed; twice as long each time
RETRY_MAX_S: Final = 10.0
STEP_END_S: Final = 20.0  # for a step that is given up to clean up behind itself


class Machine:
    """Takes one release from where the journal has it to its end.

    Args:
        release: As it is stored.
        means: What the releases of this device share.
        is_held: Whether a local hold keeps it from going on.

    Attributes:
        progress: What it can tell.
    """

    def __init__(self, release: Release, means: Means, is_held: Callable[[], bool]) -> None:
        self.progress = Progress(release, is_held)
        self._means = means
        self._order: Ordered | None = None
        self._present: Ordered | None = None  # the order that is being carried out
        self._trial = TrialSteps(means, self.progress)
        self._traffic = TrafficSteps(means, self.progress, self._trial)
        self._moves = Moves(means, self.progress, self._trial, self._traffic)
        #: Set when the next change was stored and done.
        self.moved = asyncio.Event()

    @property
    def release(self) -> Release:
        """As it is stored."""
        return self.progress.release

    @property
    def is_going_back(self) -> bool:
        """Whether somebody ordered that it goes back, or it does already."""
        orders = [each.outcome for each in (self._order, self._present) if each is not None]
        is_ordered = any(each.event is Event.ROLL_BACK for each in orders)
        return is_ordered or self.release.state == State.ROLLING_BACK

    def order(self, outcome: Outcome) -> Ordered | None:
        """Give up the present step for something else.

        Args:
            outcome: How it ends.

        Returns:
            What tells whether it is done; ``None``: the present state does not allow it, and
            nothing changes.
        """
        if not self.allows(outcome.event):
            return None
        self._dropped(self._order)
        self._order = ordered = Ordered(outcome, self.release)
        if outcome.event is Event.ROLL_BACK:  # it may have to wait for the disk
            self._means.serving.divert(self.release.model)
        self.progress.changed.set()
        return ordered

    def allows(self, event: Event) -> bool:
        """Tell whether something may happen in the present state."""
        state = self.release.state
        known = state in set(State)
        if not known:
            return event is Event.ROLL_BACK
        if self._order is not None and self._order.outcome.event is Event.ROLL_BACK:
            return False
        return (State(state), event) in TRANSITIONS

    def failed(self, loaded: LoadedVersion) -> None:
        """Note that a request failed on a version on trial, before another one is asked."""
        self._traffic.failed(loaded)

    async def run(self) -> None:
        """Go on until the release is over, or the daemon stops."""
        try:
            while self._order is not None or self.release.state not in FINAL:
                outcome = await self._next()
                await self._persistently(outcome)
                if self._present is not None:
                    self._present.answer(is_done=True)
                    self._present = None
        finally:
            self._dropped(self._order)
            self._dropped(self._present)
            await self._trial.end()

    async def _next(self) -> Outcome:
        """Do the present step, unless an order comes first."""
        ordered = self._take_order()
        if ordered is not None:
            return ordered
        step = asyncio.ensure_future(self._step())
        try:
            while not step.done():
                changed = asyncio.ensure_future(self.progress.changed.wait())
                await asyncio.wait((step, changed), return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                self.progress.changed.clear()
                ordered = self._take_order()
                if ordered is not None:
                    return ordered
        finally:
            if not step.done():
                step.cancel()
                await asyncio.wait((step,), timeout=STEP_END_S)
            elif ordered is not None:
                step.exception()  # it is over either way
        return step.result()

    def _take_order(self) -> Outcome | None:
        ordered, self._order = self._order, None
        if ordered is None:
            return None
        state, event = self.release.state, ordered.outcome.event
        # What it was about may have ended while its end was being stored: then it came too late.
        is_late = event is not Event.ROLL_BACK and not ordered.is_about(self.release)
        if is_late or (state in set(State) and (State(state), event) not in TRANSITIONS):
            self._dropped(ordered)
            return None
        self._present = ordered
        return ordered.outcome

    @staticmethod
    def _dropped(ordered: Ordered | None) -> None:
        if ordered is not None:
            ordered.answer(is_done=False)

    async def _step(self) -> Outcome:
        try:
            return await self._steps()[State(self.release.state)]()
        except StorageError as error:
            return self._failed(Cause.DISK, error.message)
        except EdgeRuntimeError as error:
            is_sure = not isinstance(error, UnavailableError)  # another day it may do
            return self._failed(Cause.LOAD, error.message, is_sure=is_sure)
        except TimeoutError:
            return self._failed(Cause.DEADLINE, "the step did not end in its time")
        except OSError as error:
            return self._failed(Cause.DISK, f"the system refused something: {error}")
        except ValueError:
            if self.release.state in set(State):
                raise
            return Outcome(
                Event.ROLL_BACK,
                Cause.UNKNOWN_STATE,
                f"this program does not know the state {self.release.state!r}",
            )
        except Exception:  # noqa: BLE001 - logged; the release goes back
            _log.exception("a step of a release failed in a way nobody foresaw")
            return self._failed(Cause.INTERNAL, "the daemon failed in this step; its log says why")

    def _steps(self) -> Mapping[State, Callable[[], Awaitable[Outcome]]]:
        return {
            State.INSTALLED: self._begin,
            State.SELF_TESTING: self._trial.self_test,
            State.STAGED: self._trial.staged,
            State.SHADOWING: self._trial.shadow,
            State.CANARY: self._traffic.canary,
            State.PROBATION: self._traffic.probation,
            State.ROLLING_BACK: self._traffic.roll_back,
        }

    async def _begin(self) -> Outcome:
        return Outcome(Event.BEGIN)

    def _failed(self, cause: Cause, reason: str, *, is_sure: bool = True) -> Outcome:
        event = Event.ROLL_BACK
        if self.release.state == State.ROLLING_BACK:
            event, is_sure = Event.ERROR, False  # what it was about was said when it began
        elif self.release.state == State.SELF_TESTING:
            event = Event.FAILED
        return Outcome(event, cause, reason, is_sure=is_sure)

    # -- persist -------------------------------------------------------------------------------

    async def _persistently(self, outcome: Outcome) -> None:
        """Store what follows; while the disk takes nothing, nothing else happens."""
        if outcome.event is Event.ROLL_BACK:
            self._means.serving.divert(self.release.model)
        pause_s = RETRY_S
        while True:
            try:
                await self._moves.move(outcome, self._stored)
            except (StorageError, OSError) as error:
                self._moves.waits(str(error))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self.progress.changed.wait()
                self.progress.changed.clear()
                pause_s = min(2 * pause_s, RETRY_MAX_S)
                if self._order is not None and self._order.outcome.event is Event.ROLL_BACK:
                    self._dropped(self._present)
                    self._present, self._order = self._order, None
                    outcome = self._present.outcome
                    self._means.serving.divert(self.release.model)
            else:
                self.progress.problem = ""
                self.moved.set()
                return

    def _stored(self, state: State) -> None:
        """Take in that a change is stored, before anything else is done about it."""
        late = self._order if state in FINAL else None
        if late is not None and late.outcome.cause is Cause.SUPERSEDED:
            self._dropped(late)
            self._order = None  # it came too late: nothing is under way that could be superseded
