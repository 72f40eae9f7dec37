"""The steps of a release in which the candidate answers real requests, and the way back."""

import asyncio
import logging
from functools import partial
from typing import Final

import msgspec

from edge_runtime.errors import EdgeRuntimeError, NoRoomError
from edge_runtime.release.evidence import Blocks, Evidence
from edge_runtime.release.serving import NoActiveError
from edge_runtime.release.states import Cause, Event
from edge_runtime.release.steps import Means, Outcome, Progress
from edge_runtime.release.trial_steps import LOAD_S, TrialSteps
from edge_runtime.release.watch import Streak, Traffic, Watch
from edge_runtime.routing import LoadedVersion

_log = logging.getLogger(__name__)

_PAUSES_S: Final = (0.2, 2.0)  # before the way back is tried again
_PERMYRIAD_PER_PERCENT: Final = 100
_ALL: Final = 100


class TrafficSteps:
    """Canary, probation, commit and rollback.

    Args:
        means: What the releases of this device share.
        progress: Of the release.
        trial: Compares beside the canary, too.
    """

    def __init__(self, means: Means, progress: Progress, trial: TrialSteps) -> None:
        self._means = means
        self._progress = progress
        self._trial = trial
        self._control: Blocks | None = None

    async def canary(self) -> Outcome:
        """Let the candidate answer a share of the requests, and see how it does."""
        means, release = self._means, self._progress.release
        weight = release.weights[release.stage]
        try:
            async with asyncio.timeout(LOAD_S):
                found = await self._trial.active_or_way()
                if isinstance(found, Outcome):
                    return found
                await self._trial.stands_beside(found)
                await means.serving.add(
                    release.model, release.version, weight * _PERMYRIAD_PER_PERCENT
                )
        except NoRoomError as error:
            return Outcome(Event.NO_ROOM, None, error.message)
        except NoActiveError as error:
            return Outcome(Event.FIRST, None, error.message)
        watch = self._trial.begin_comparing(self._control if weight == _ALL else None)
        active = means.serving.active(release.model)
        candidate = means.serving.loaded(release.model, release.version)
        if watch is None or candidate is None:
            return Outcome(Event.NO_ROOM, None, "one of both versions left memory")
        outcome = await watch.until_decided(Traffic(candidate), Traffic(active))
        control = watch.evidence.snapshot().active
        if control.count:
            self._control = control
        if outcome.event is not Event.PASSED:
            return outcome
        stage = release.stage + 1
        changes = {"method": "availability-preserving"}
        if stage < len(release.weights):
            return outcome._replace(changes={**changes, "stage": stage})
        return outcome._replace(event=Event.DONE, changes=changes)

    async def probation(self) -> Outcome:
        """Let the candidate answer everything, with the active version at hand if there is room."""
        means, release = self._means, self._progress.release
        async with asyncio.timeout(LOAD_S):
            method = await means.serving.replace(release.model, release.version)
        candidate = means.serving.loaded(release.model, release.version)
        if candidate is None:
            why = f"version {release.version} left memory again: somebody unloaded it"
            return Outcome(Event.ROLL_BACK, Cause.LOAD, why, is_sure=False)
        self._progress.release = msgspec.structs.replace(
            release, method=method, digest=candidate.digest
        )
        await means.keep(partial(means.journal.save, self._progress.release))
        evidence = Evidence(means.settings().block_s, control=self._control)
        watch = Watch(means, self._progress, evidence)
        self._trial.watch = watch
        is_alone = means.serving.active(release.model) is None
        return await watch.until_decided(Traffic(candidate), None, early=False, is_alone=is_alone)

    def failed(self, loaded: LoadedVersion) -> None:
        """Note that a request failed on a version on trial, before the active one is asked."""
        watch, release = self._trial.watch, self._progress.release
        if watch is None or loaded.version != str(release.version):
            return
        if watch.streak is None:
            watch.streak = Streak(loaded, self._means.serving.active(release.model))
        watch.streak.failed()
        watch.wake()

    async def commit(self) -> None:
        """Let the slots decide alone: the candidate is what they name now."""
        async with asyncio.timeout(LOAD_S):
            await self._means.serving.settle(self._progress.release.model)

    async def roll_back(self) -> Outcome:
        """Let the version answer that did before; the next request gets it."""
        for pause_s in (*_PAUSES_S, None):
            try:
                async with asyncio.timeout(LOAD_S):
                    await self._means.serving.restore(self._progress.release.model)
                break
            except (EdgeRuntimeError, OSError) as error:
                if pause_s is None:
                    raise
                _log.error("the way back failed, and is tried again: %s", error)
                await asyncio.sleep(pause_s)
        return Outcome(Event.DONE)
