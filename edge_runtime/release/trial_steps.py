"""The steps of a release in which the candidate runs in a process of its own."""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from edge_runtime.errors import EdgeRuntimeError, StorageError
from edge_runtime.release.evidence import Blocks, Evidence, Observation
from edge_runtime.release.known_bad import chosen_bad, known_bad
from edge_runtime.release.records import SEED
from edge_runtime.release.shadow import Shadow
from edge_runtime.release.states import Cause, Event
from edge_runtime.release.steps import Means, Outcome, Progress
from edge_runtime.release.watch import Watch
from edge_runtime.routing import LoadedVersion
from edge_runtime.tensors import Array

if TYPE_CHECKING:
    from edge_runtime.release.trial import Trial
    from edge_runtime.release.trial_messages import Compared

LOAD_S: Final = 300.0  # for a load with everything around it; then the step is given up
_SPARE_S: Final = 10.0  # for what surrounds a self-test, which has a deadline of its own


class TrialSteps:
    """Self-test, waiting to go on, and shadow.

    Args:
        means: What the releases of this device share.
        progress: Of the release.
    """

    def __init__(self, means: Means, progress: Progress) -> None:
        self._means = means
        self._progress = progress
        self._trial: Trial | None = None
        self._shadow: Shadow | None = None
        self.watch: Watch | None = None

    async def self_test(self) -> Outcome:
        """Load the candidate in a process of its own, and see whether it keeps its promises."""
        means, release = self._means, self._progress.release
        active = means.serving.active(release.model)
        trial = means.make_trial(means.store.bundle(release.model, release.version), active)
        try:
            async with asyncio.timeout(means.settings().self_test_s + _SPARE_S):
                found = await trial.self_test()
        finally:
            await trial.close()
        numbers = {
            "latency_s": found.latency_s,
            "memory_bytes": found.memory_bytes,
            "goldens": found.goldens,
            "runs": found.runs,
            "cpu_s": found.cpu_s,
        }
        if not found.passed:
            return Outcome(Event.FAILED, found.cause or Cause.SELF_TEST, found.reason, numbers)
        remembered = await means.keep(partial(means.journal.all_bad, release.model))
        bad = known_bad(remembered, release.manifest_sha256, {found.digest})
        if bad is not None:
            why = chosen_bad(bad, found.variant)
            return Outcome(Event.FAILED, Cause.SELF_TEST, why, numbers, {"digest": found.digest})
        changes = {
            "variant": found.variant,
            "variant_reason": found.variant_reason,
            "digest": found.digest,
        }
        return Outcome(Event.PASSED, None, found.reason, numbers, changes)

    async def staged(self) -> Outcome:
        """Wait for whoever has to decide; without anything active there is nothing to compare."""
        progress = self._progress
        while True:
            release = progress.release
            slots = self._means.serving.slots(release.model)
            if release.mode == "automatic" and not progress.is_held() and not slots.traffic:
                break
            await asyncio.sleep(self._means.settings().block_s)
        found = await self.active_or_way()
        if isinstance(found, Outcome):
            return found
        return Outcome(Event.BEGIN, changes=self._named(found))

    async def active_or_way(self) -> LoadedVersion | Outcome:
        """Bring the active version into memory, or say how a release goes on without it.

        That it cannot be had is never the candidate's fault.

        Raises:
            StorageError: The disk does not give it.
        """
        serving, release = self._means.serving, self._progress.release
        try:
            active = await serving.woken(release.model)
        except StorageError:
            raise
        except EdgeRuntimeError as error:
            why = f"the active version cannot be loaded, so nobody is to compare with: {error}"
            return Outcome(Event.FIRST, None, why)
        if active is not None:
            return active
        named = self._named(None)
        why = ""
        if named["active"] is not None:
            why = f"somebody unloaded version {named['active']}, so nobody is to compare with"
        elif release.active is not None:
            why = f"version {release.active} is not active any more, and no other one is"
        return Outcome(Event.FIRST, None, why, changes=named)

    async def beside(self) -> dict[str, object]:
        """Give the fields of the release that name the active version; it is brought into memory.

        Raises:
            EdgeRuntimeError: There is one, and it cannot be loaded.
        """
        return self._named(await self._means.serving.woken(self._progress.release.model))

    def _named(self, active: LoadedVersion | None) -> dict[str, object]:
        """Name the active version, in memory or unloaded by hand; both empty: there is none."""
        serving, model = self._means.serving, self._progress.release.model
        number = int(active.version) if active is not None else serving.unloaded(model)
        if number is None:
            return {"active": None, "active_source": ""}
        return {"active": number, "active_source": serving.slots(model).active_source or SEED}

    async def stands_beside(self, active: LoadedVersion) -> None:
        """Store which version it is compared with, where that is another one than it was."""
        release = self._progress.release
        named = self._named(active)
        if (release.active, release.active_source) != tuple(named.values()):
            self._progress.release = msgspec.structs.replace(release, **named)
            await self._means.keep(partial(self._means.journal.save, self._progress.release))

    async def shadow(self) -> Outcome:
        """Compare the candidate with the active version on sampled real inputs."""
        settings = self._means.settings()
        if not settings.shadow_s:
            return Outcome(Event.PASSED, None, "no shadow is configured (release.shadow_s)")
        async with asyncio.timeout(LOAD_S):
            found = await self.active_or_way()
        if isinstance(found, Outcome):
            return found
        await self.stands_beside(found)
        watch = self.begin_comparing()
        if watch is None:
            return Outcome(Event.FIRST, None, "the active version left memory again")
        outcome = await watch.until_decided()
        self._progress.is_agreement_proven = outcome.event is Event.PASSED and watch.has_passed
        return outcome

    def begin_comparing(self, control: Blocks | None = None) -> Watch | None:
        """Compare from now on, with fresh evidence; ``None``: there is nothing to compare with.

        Args:
            control: The active version under real traffic in an earlier step, for a step in which
                it gets none.
        """
        means, release = self._means, self._progress.release
        evidence = Evidence(means.settings().block_s, control=control)
        self.watch = watch = Watch(means, self._progress, evidence)
        active = means.serving.active(release.model)
        if active is None:
            return None
        if self._shadow is None:
            bundle = means.store.bundle(release.model, release.version)
            self._trial = means.make_trial(bundle, active, release.variant)
            self._shadow = means.taps[release.model] = Shadow(
                self._compared,
                self._observed,
                version=active.version,
                block_s=means.settings().block_s,
                cpu_share=means.settings().shadow_cpu_share,
                clock=means.clock.now_s,
            )
        return watch

    async def _compared(self, feeds: Mapping[str, Array]) -> "Compared":
        """Run both versions; one that kills its process there would kill the daemon later."""
        assert self._trial is not None  # noqa: S101 - there is a shadow, so there is a trial
        found = await self._trial.compare(feeds)
        self._progress.trouble = found.skipped
        if found.crashed == "candidate" and self.watch is not None:
            self.watch.condemn(f"its process {found.candidate_error} on a real request's inputs")
        return found

    def _observed(self, observation: Observation) -> None:
        watch = self.watch
        if watch is not None and watch.evidence.add(observation):
            watch.wake()

    async def end(self) -> None:
        """Stop comparing; no process is left."""
        shadow, self._shadow = self._shadow, None
        trial, self._trial = self._trial, None
        self.watch = None
        if shadow is not None:
            self._means.taps.pop(self._progress.release.model, None)
            await shadow.close()
        if trial is not None:
            await trial.close()
