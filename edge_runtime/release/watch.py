"""Watches a candidate in one step: collects evidence, asks the policy, ends the step."""

import asyncio
import contextlib
from functools import partial
from typing import Final

import msgspec

from edge_runtime.metrics import VersionStatistics
from edge_runtime.release import policy
from edge_runtime.release.evidence import Evidence, Side, Snapshot
from edge_runtime.release.proof import IS_PROVEN, TOO_LITTLE
from edge_runtime.release.states import Cause, Event
from edge_runtime.release.steps import Means, Outcome, Progress
from edge_runtime.routing import LoadedVersion

_FAILED: Final = "BACKEND"  # Triton's word for a model that failed
_NS: Final = 1e9
_MUTE_BLOCKS: Final = 3


class Traffic:
    """What one version did since the last look, from its counters.

    Args:
        version: In memory; ``None``: it gets no requests.
    """

    def __init__(self, version: LoadedVersion | None) -> None:
        self._version = version
        self._before = _counts(version.statistics) if version is not None else (0, 0, 0)

    def since(self) -> Side:
        """Say what it did since the last call."""
        if self._version is None:
            return Side()
        now = _counts(self._version.statistics)
        runs, errors, ns = (max(0, new - old) for new, old in zip(now, self._before, strict=True))
        self._before = now
        return Side(runs=max(runs, errors), errors=errors, answered_s=ns / _NS)


def _less(side: Side, errors: int) -> Side:
    """Leave out failures, and the runs that they were."""
    return msgspec.structs.replace(side, runs=side.runs - errors, errors=side.errors - errors)


def _counts(statistics: VersionStatistics) -> tuple[int, int, int]:
    """Read runs, failures of the model and the time of the runs in nanoseconds."""
    compute = statistics.compute
    errors = statistics.failures.get(_FAILED, 0)
    return compute.count + errors, errors, compute.ns


class Streak:
    """Failures of a candidate in a row, on requests that the proven version then answered.

    Args:
        candidate: The version on trial.
        proven: What answers where that one fails; ``None``: nothing.
    """

    def __init__(self, candidate: LoadedVersion, proven: LoadedVersion | None) -> None:
        self._candidate = candidate
        self._proven = proven
        self._count = 0
        self._answered = candidate.statistics.success.count
        self._failed_both = self._proven_failures()

    def failed(self) -> None:
        """Count a failure of the candidate, before the proven version is asked."""
        self._settle()
        self._count += 1

    @property
    def count(self) -> int:
        """Failures in a row by now."""
        self._settle()
        return self._count

    def _settle(self) -> None:
        answered = self._candidate.statistics.success.count
        if answered != self._answered:
            self._answered, self._count = answered, 0
        failed = self._proven_failures()
        self._count = max(0, self._count - (failed - self._failed_both))  # wrong for both
        self._failed_both = failed

    def _proven_failures(self) -> int:
        return self._proven.statistics.failures.get(_FAILED, 0) if self._proven is not None else 0


class Watch:
    """One step in which a candidate is compared.

    Args:
        means: What the releases of this device share.
        progress: Of the release.
        evidence: What is known; others add to it.

    Attributes:
        evidence: The same.
        streak: Failures in a row under real traffic; ``None``: it gets none.
        has_passed: Whether the step ended because the evidence was enough.
    """

    def __init__(self, means: Means, progress: Progress, evidence: Evidence) -> None:
        self._means = means
        self._progress = progress
        self.evidence = evidence
        self.streak: Streak | None = None
        self.has_passed = False
        self._condemned = ""
        self._mute_blocks = 0
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Look at the evidence now."""
        self._woken.set()

    def condemn(self, why: str) -> None:
        """End the step: whoever runs the candidate is harmed.

        Args:
            why: As a sentence.
        """
        self._condemned = self._condemned or why
        self._woken.set()

    async def until_decided(
        self,
        candidate: Traffic | None = None,
        active: Traffic | None = None,
        *,
        early: bool = True,
        is_alone: bool = False,
    ) -> Outcome:
        """Wait until the policy decides, or the step's time is over.

        Args:
            candidate: Counts what it does under real traffic; ``None``: it gets none.
            active: The same of the active version.
            early: Whether it may pass before its time is over.
            is_alone: Whether no other version is there: then its errors are judged by themselves.
        """
        wanted = self._means.thresholds(self._progress.release)
        if not is_alone:
            wanted = msgspec.structs.replace(wanted, error_rate_max=0.0)
        if candidate is not None:
            wanted = msgspec.structs.replace(
                wanted,
                traffic_min=wanted.blocks_min,
                # Beside what gets all the traffic nothing is compared any more.
                is_agreement_proven=active is None or self._progress.is_agreement_proven,
            )
        while True:
            if candidate is not None:
                self._count(candidate.since(), active.since() if active is not None else Side())
            outcome = await self._decided(wanted, early=early)
            if outcome is not None:
                return outcome
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._means.settings().block_s):
                    await self._woken.wait()
            self._woken.clear()

    def _count(self, did: Side, beside: Side) -> None:
        # A request that failed on both, one after the other, speaks against nobody.
        both = min(did.errors, beside.errors)
        self.evidence.add_block(
            self._means.clock.now_s(), candidate=_less(did, both), active=_less(beside, both)
        )
        if did.runs:
            self._mute_blocks = self._mute_blocks + 1 if did.errors == did.runs else 0

    async def _decided(self, wanted: policy.Thresholds, *, early: bool) -> Outcome | None:
        means, progress = self._means, self._progress
        release, settings = progress.release, means.settings()
        is_held = progress.is_held()  # then the last look waits, too
        is_over = not is_held and means.clock.now_s() >= release.awake_deadline_s
        is_due = is_over or policy.is_look_due(self.evidence.blocks, release.looks, wanted)
        # A snapshot sorts all that is known; between looks nobody needs it.
        seen = self.evidence.snapshot() if is_due else Snapshot(blocks=self.evidence.blocks)
        judgement = policy.judge(seen, wanted, release.looks, is_over=is_over)
        progress.judged, progress.numbers = judgement.reasons, judgement.numbers
        if judgement.looks != release.looks:  # kept before anything follows from it
            progress.release = msgspec.structs.replace(release, looks=judgement.looks)
            await means.keep(partial(means.journal.save, progress.release))
        reason, numbers = "; ".join(judgement.reasons), judgement.numbers
        harm = self._harm()
        if harm:
            return Outcome(Event.ROLL_BACK, Cause.ERRORS, harm, numbers)
        if judgement.verdict == "fail":
            return Outcome(Event.ROLL_BACK, Cause.VERDICT, reason, numbers)
        if is_held or not (is_over or (early and judgement.verdict == "pass")):
            return None
        if judgement.verdict == "pass":
            self.has_passed = True
            return Outcome(Event.PASSED, None, reason, {**numbers, IS_PROVEN: True})
        if judgement.is_suspect:
            return Outcome(
                Event.ROLL_BACK,
                Cause.VERDICT,
                f"in its time it was not cleared of: {reason}",
                numbers,
            )
        if settings.on_inconclusive == "roll-back":
            return Outcome(
                Event.ROLL_BACK, Cause.DEADLINE, f"too little to tell: {reason}", numbers
            )
        why = f"{TOO_LITTLE}{reason}"
        return Outcome(Event.PASSED, None, why, {**numbers, IS_PROVEN: False})

    def _harm(self) -> str:
        """Say what is wrong beyond doubt, whatever the statistics; empty: nothing."""
        if self._condemned:
            return self._condemned
        if self.streak is not None:
            harm = policy.too_many_errors(self.streak.count)
            if harm:
                return harm
        if self._mute_blocks >= _MUTE_BLOCKS:
            return f"errors: every request of {self._mute_blocks} blocks in a row failed"
        return ""
