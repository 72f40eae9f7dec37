"""What follows a step of a release: stored first, then done.

The one exception is the way back, which the machine takes before it is stored: requests are sent to
the active version first, because that is right whatever the disk says.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from edge_runtime.errors import EdgeRuntimeError, StorageError
from edge_runtime.failpoints import failpoint, wall_time
from edge_runtime.release.disk_thread import ANSWER_S
from edge_runtime.release.proof import IS_PROVEN, Step, proof, steps_of
from edge_runtime.release.records import BadDigest, Release, Transition
from edge_runtime.release.slot_changes import slots_after
from edge_runtime.release.states import SERVES_TRAFFIC, Cause, State, next_state
from edge_runtime.release.steps import Means, Outcome, Progress
from edge_runtime.release.traffic_steps import TrafficSteps
from edge_runtime.release.trial_steps import TrialSteps

_log = logging.getLogger(__name__)

ROWS_MAX: Final = 1_000  # of a model's history, when it is asked how a release passed

#: Ends after which the same bundle is not taken again unless somebody insists.
BAD: Final = frozenset({Cause.VERDICT, Cause.SELF_TEST, Cause.ERRORS, Cause.CRASHED, Cause.LOAD})

#: Where tests make the process die, between what is stored and what is done about it.
_STORED: Final[Mapping[State, str]] = {
    State.SELF_TESTING: "release.self_test.begun",
    State.STAGED: "release.staged",
    State.SHADOWING: "release.shadow.begun",
    State.PROBATION: "release.probation.begun",
    State.COMMITTED: "release.committed",
    State.ROLLING_BACK: "release.roll_back",
}
_BEFORE: Final[Mapping[State, str]] = {
    State.STAGED: "release.self_test.passed",
    State.COMMITTED: "release.commit",
    State.ROLLED_BACK: "release.rolled_back",
}


class Moves:
    """Takes one release from a state to the next.

    Args:
        means: What the releases of this device share.
        progress: Of the release.
        trial: Its steps in processes of their own.
        traffic: Its steps that answer requests.
    """

    def __init__(
        self, means: Means, progress: Progress, trial: TrialSteps, traffic: TrafficSteps
    ) -> None:
        self._means = means
        self._progress = progress
        self._trial = trial
        self._traffic = traffic

    async def move(self, outcome: Outcome, stored: Callable[[State], None]) -> None:
        """Store what follows a step, and do it.

        Args:
            outcome: How the step ended.
            stored: Called with the new state when it is stored, before it is done.

        Raises:
            StorageError: The disk takes nothing; nothing happened.
        """
        before = self._progress.release
        state = next_state(before.state, outcome.event)
        if state in _BEFORE:
            await self._kept(lambda: failpoint(_BEFORE[state]))
        if before.state == State.STAGED and state is State.PROBATION:  # promoted by hand
            try:
                beside = await self._trial.beside()
            except StorageError:
                raise
            except EdgeRuntimeError as error:
                beside = {}  # it answers nobody either: this one is not to wait for it
                _log.warning("%s has nothing to go back to: %s", self._shown, error)
            outcome = outcome._replace(changes={**outcome.changes, **beside})
        if state is State.COMMITTED:
            outcome = await self._with_proof(before, outcome)
        after = self._after(before, state, outcome)
        serving, store = self._means.serving, self._means.store
        slots = slots_after(
            serving.slots(after.model),
            before,
            after,
            installed=lambda: store.versions(after.model),
            is_active_there=serving.active(after.model) is not None,
        )
        is_over = state is State.FAILED and slots is not None  # nothing will answer
        bad = None
        if state in {State.ROLLING_BACK, State.FAILED} and outcome.cause in BAD and outcome.is_sure:
            bad = BadDigest.of(after, wall_time())
        row = Transition.between(
            before,
            after,
            outcome.event,
            digest="" if is_over else self._running(after),
            wall_s=wall_time(),
            awake_s=self._means.clock.now_s(),
            boot_id=self._means.boot_id,
            numbers=dict(outcome.numbers),
        )
        journal = self._means.journal
        await self._kept(lambda: journal.move(after, row, slots=slots, bad=bad))
        if slots is not None:
            self._means.serving.take(slots)
        self._progress.release = after
        stored(state)
        self._means.serving.choose(after)
        _log.info(
            "release of %s: %s -> %s%s", self._shown, before.state, state, _because(after.reason)
        )
        if state not in {State.SHADOWING, State.CANARY}:
            await self._trial.end()
        await self._passed(before, after)
        if state is State.COMMITTED:
            await self._settle()
        if is_over:
            await self._means.serving.stand(after.model)

    async def _with_proof(self, before: Release, outcome: Outcome) -> Outcome:
        """Say with the commit what it rests on."""
        journal, model = self._means.journal, before.model
        rows = await self._means.keep(lambda: journal.history(model, ROWS_MAX))
        last = Step(before.state, outcome.reason, bool(outcome.numbers.get(IS_PROVEN)))
        found = proof(before, [last, *steps_of(rows, before.id)])
        return outcome._replace(
            reason=found.reason,
            numbers={**outcome.numbers, "proof": found.word},
            changes={**outcome.changes, "proof": found.word},
        )

    async def _settle(self) -> None:
        """Let go of what is not active any more; the candidate answers already."""
        try:
            await self._traffic.commit()
        except (EdgeRuntimeError, OSError) as error:
            _log.error("%s is committed and answers, but: %s", self._shown, error)

    async def _kept(self, work: Callable[[], object]) -> None:
        """Have the journal's thread do something, for which there is no way but to wait.

        To give up would be to not know what is stored: the disk may do it when it wakes up.
        """
        result = self._means.keep.patiently(work)
        await asyncio.wait((result,), timeout=ANSWER_S)
        if not result.done():
            self.waits(
                f"the disk has not answered for {ANSWER_S:g} s; the release goes on when it does"
            )
        await asyncio.shield(result)
        self._progress.problem = ""

    def waits(self, why: str) -> None:
        """Say why nothing moves now."""
        if not self._progress.problem:
            _log.error("the release of %s waits: %s", self._shown, why)
        self._progress.problem = why

    async def _passed(self, before: Release, after: Release) -> None:
        """Pass the failpoint between what is stored and what is done about it."""
        name = _STORED.get(State(after.state), "")
        if after.state == State.CANARY:
            name = "release.canary.step" if before.state == after.state else "release.canary.begun"
        if name:
            with contextlib.suppress(OSError):  # what is stored, is stored
                await self._kept(lambda: failpoint(name))

    def _after(self, before: Release, state: State, outcome: Outcome) -> Release:
        settings = self._means.settings()
        lasts_s = {
            State.SELF_TESTING: settings.self_test_s,
            State.SHADOWING: settings.shadow_s,
            State.CANARY: settings.canary_s,
            State.PROBATION: settings.probation_s,
        }.get(state, 0.0)
        changes = dict(outcome.changes)
        if before.state != State.ROLLING_BACK:  # after that, why it began still counts
            changes["cause"] = outcome.cause or ""
            changes["reason"] = outcome.reason
        elif state is State.FAILED:
            changes["reason"] = f"{before.reason}; the way back failed: {outcome.reason}"
        if state in SERVES_TRAFFIC and before.state not in SERVES_TRAFFIC:
            changes["crashes"] = 0  # what died before that, did not die of it
        return msgspec.structs.replace(
            before,
            state=str(state),
            looks=0,
            awake_deadline_s=self._means.clock.now_s() + lasts_s if lasts_s else 0.0,
            updated_s=wall_time(),
            **changes,
        )

    def _running(self, after: Release) -> str:
        """Name what really answers after a change."""
        return self._means.serving.running_digest(after.model)

    @property
    def _shown(self) -> str:
        return f"{self._progress.release.model} version {self._progress.release.version}"


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""
