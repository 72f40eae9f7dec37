"""A trial: a candidate is tested, then compared with the active version, in processes of its own.

The candidate never runs in the daemon here. Whatever it does to its process, a crash, a hang, all
the memory, is a finding; the daemon is told in words and goes on.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from edge_runtime.errors import ArtifactError, InvalidTensorError
from edge_runtime.failpoints import reached
from edge_runtime.manifest import TensorDescription
from edge_runtime.release.compatibility import incompatible
from edge_runtime.release.states import Cause
from edge_runtime.release.trial_limits import Kind, Limits
from edge_runtime.release.trial_messages import (
    ACTIVE,
    CANDIDATE,
    Ask,
    Compared,
    Device,
    Pair,
    Ready,
    Subject,
    Tried,
    Try,
    split,
)
from edge_runtime.release.trial_process import TrialDiedError, TrialProcess
from edge_runtime.release.variants import Candidate, eligible, fastest
from edge_runtime.tensors import Array

Tensors = tuple[Sequence[TensorDescription], Sequence[TensorDescription]]
"""Inputs and outputs, as ``compatibility.described`` gives them."""

STARTS_MAX: Final = 4
"""Processes that are started for comparisons; each one that dies costs one."""

_CAUSES: Final[Mapping[Kind, Cause]] = {
    "crashed": Cause.SELF_TEST,
    "memory": Cause.SELF_TEST,
    "cpu-time": Cause.SELF_TEST,
    "hung": Cause.SELF_TEST,
    "killed": Cause.SELF_TEST,
    "starved": Cause.DEADLINE,
    "broken": Cause.INTERNAL,
    "ended": Cause.ABORTED,
}
_REASONS_MAX: Final = 3
_KILLED_MAX: Final = 2
"""Times that somebody else may end a process before that is the model's fault."""
_BLAMED: Final[frozenset[Kind]] = frozenset({"crashed", "cpu-time", "hung"})


class SelfTest(msgspec.Struct, frozen=True, kw_only=True):
    """What the self-test found.

    Attributes:
        passed: Whether the version may go on.
        cause: Why not; ``None``: it passed. ``load``: it could not be loaded; ``self-test``: it
            ran and is bad; ``deadline``: the device had no time for it; ``internal``: we failed,
            which says nothing of the model; ``aborted``: the trial was ended.
        reason: The same as one sentence; of one that passed, what was found.
        variant: Name of the variant to be served; empty: none.
        variant_reason: Why that one.
        digest: Of that variant.
        latency_s: Median time of one run in seconds, undisturbed; 0: not measured. This and what
            follows are of the variant that was chosen, or of the first if none was.
        wall_s: The same as it passed beside everything else on this device.
        memory_bytes: Memory that loading and running added; 0: not measured.
        goldens: Golden files that were run.
        runs: How often it ran.
        cpu_s: CPU time of all tests.
        failures: What is wrong, a sentence each, of all variants.
        notes: What else somebody should know.
    """

    passed: bool
    cause: Cause | None = None
    reason: str = ""
    variant: str = ""
    variant_reason: str = ""
    digest: str = ""
    latency_s: float = 0.0
    wall_s: float = 0.0
    memory_bytes: int = 0
    goldens: int = 0
    runs: int = 0
    cpu_s: float = 0.0
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class _Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one variant: what its test found, or how it died."""

    variant: str
    tried: Tried
    cause: Cause | None = None


class Trial:
    """Tries one candidate out; used on the event loop's thread.

    Args:
        candidate: What is tried out. A variant that is named there counts as chosen.
        active: What it is compared with, with its variant and digest; ``None``: nothing.
        tensors: What the active version takes and gives; ``None``: nothing is active.
        device: How the daemon loads models.
        limits: What it may take.
    """

    def __init__(
        self,
        candidate: Subject,
        *,
        active: Subject | None = None,
        tensors: Tensors | None = None,
        device: Device,
        limits: Limits | None = None,
    ) -> None:
        self._candidate = candidate
        self._active = active
        self._tensors = tensors
        self._device = device
        self._limits = limits or Limits()
        self._process: TrialProcess | None = None
        self._is_idle = True
        self._is_closed = False
        self._is_paired = False
        self._starts = 0
        self._asked = 0
        self._killed: Counter[str] = Counter()
        self._paired_bytes = 0
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Id of the process that there is now; ``None``: there is none."""
        return self._process.pid if self._process is not None else None

    @property
    def doing(self) -> str:
        """What that process says that it is doing; empty: nothing."""
        return self._process.doing if self._process is not None else ""

    async def self_test(self) -> SelfTest:
        """Test the variants that this CPU can run, each in a process of its own.

        Returns:
            What was found. Later comparisons use the variant that was chosen.
        """
        async with self._turn:
            await self._end()
            try:
                names = eligible(self._candidate.manifest, self._device.cpu)
            except ArtifactError as error:
                return _failed(Cause.LOAD, error.message)
            deadline_s = asyncio.get_running_loop().time() + self._limits.self_test_s
            findings: list[_Finding] = []
            skipped: list[str] = []
            for name in names:
                left_s = deadline_s - asyncio.get_running_loop().time()
                if findings and left_s <= 0:
                    skipped.append(name)
                    continue
                try:
                    findings.append(await self._tested(name, max(left_s, 0.0)))
                except OSError as error:
                    return _failed(Cause.INTERNAL, f"no process could be started: {error}")
                finally:
                    await self._end()
                if findings[-1].cause is Cause.ABORTED:
                    return _failed(Cause.ABORTED, "the trial was ended")
            found = _judged(findings, skipped)
            if found.passed:
                self._candidate = msgspec.structs.replace(
                    self._candidate, variant=found.variant, digest=found.digest
                )
            return found

    async def compare(self, feeds: Mapping[str, Array]) -> Compared:
        """Run both versions on the same inputs; one comparison at a time.

        Args:
            feeds: Arrays by input name, as the active version's signature checked them. Nobody
                may change them meanwhile.

        Returns:
            What both did. One that ended its process, or had to be ended, is ``crashed``; the next
            call starts another one, up to ``STARTS_MAX`` of them.
        """
        async with self._turn:
            try:
                heads, parts = split(feeds)
                process = await self._ready()
                if isinstance(process, Compared):
                    return process
                self._asked += 1
                order = Ask(tensors=heads, candidate_first=self._asked % 2 == 0)
                answer = await process.ask(order, parts, within_s=self._limits.compare_s)
                await reached("trial.comparison.answered")
            except TrialDiedError as error:
                if error.kind == "starved" and self._is_idle:
                    self._is_idle = False  # the next one gets more, and is not the model's fault
                    self._starts -= 1
                if error.kind == "killed" and self._is_paired:
                    self._killed[error.doing] += 1
                await self._end()
                return self._blamed(error)
            except InvalidTensorError as error:
                return Compared(skipped=error.loggable)
            except OSError as error:
                return Compared(skipped=f"no process could be started: {error}")
            if isinstance(answer, Compared):
                return answer
            await self._end()
            return Compared(skipped="the process of the trial gave another answer than was asked")

    async def close(self) -> None:
        """End the trial; when this returns there is no process any more. May be called again."""
        self._is_closed = True
        await self._end()

    # -- one variant -----------------------------------------------------------------------------

    async def _tested(self, name: str, within_s: float) -> _Finding:
        """Test a variant: at the lowest priority, or at a low one where that gets no CPU."""
        subject = msgspec.structs.replace(self._candidate, variant=name)
        order = Try(
            subject=subject,
            device=self._device,
            runs=self._limits.runs,
            runs_cpu_s=self._limits.runs_cpu_s,
        )
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + within_s
        killed = 0
        while True:
            left_s = deadline_s - loop.time()
            try:
                process = await self._started(self._limits.self_test_cpu_s)
                await reached("trial.self_test.started")
                answer = await process.ask(
                    order,
                    within_s=left_s,
                    starved_after_s=self._limits.starved_after_s if self._is_idle else 0.0,
                )
                await reached("trial.self_test.answered")
            except TrialDiedError as error:
                killed += error.kind == "killed"
                if error.kind == "starved" and self._is_idle:
                    self._is_idle = False
                    continue
                if error.kind == "killed" and killed < _KILLED_MAX:
                    continue
                return _Finding(
                    variant=name, tried=Tried(problems=(error.why,)), cause=_CAUSES[error.kind]
                )
            if not isinstance(answer, Tried):
                return _Finding(
                    variant=name,
                    tried=Tried(problems=("the process of the trial answered something else",)),
                    cause=Cause.INTERNAL,
                )
            return self._checked(name, answer)

    def _checked(self, name: str, tried: Tried) -> _Finding:
        """Look for what programs would notice, and give the finding its cause."""
        if self._tensors is not None and tried.digest:
            changed = incompatible(self._tensors, (tried.inputs, tried.outputs))
            tried = msgspec.structs.replace(tried, problems=(*changed, *tried.problems))
        cause = None
        if tried.problems:
            cause = Cause.SELF_TEST if tried.is_loaded else Cause.LOAD
        return _Finding(variant=name, tried=tried, cause=cause)

    # -- the process -----------------------------------------------------------------------------

    async def _ready(self) -> TrialProcess | Compared:
        """See to it that both versions are loaded; gives what is known if they cannot be."""
        if self._process is not None and self._process.is_alive and self._is_paired:
            return self._process
        if self._active is None:
            return Compared(skipped="there is no active version to compare with")
        if self._starts >= STARTS_MAX:
            return Compared(skipped=f"the process of the trial died {self._starts} times")
        self._starts += 1
        self._paired_bytes = self._limits.memory_bytes  # nobody is blamed before both are there
        process = await self._started(0.0)
        await reached("trial.comparison.started")
        order = Pair(active=self._active, candidate=self._candidate, device=self._device)
        answer = await process.ask(
            order,
            within_s=self._limits.load_s,
            starved_after_s=self._limits.starved_after_s if self._is_idle else 0.0,
        )
        await reached("trial.comparison.loaded")
        if not isinstance(answer, Ready):
            await self._end()
            return Compared(skipped="the process of the trial gave another answer than was asked")
        if answer.side == CANDIDATE:
            await self._end()
            return Compared(candidate_error=answer.why)
        if answer.side == ACTIVE:
            await self._end()
            return Compared(skipped=f"the active version cannot be loaded beside it: {answer.why}")
        self._is_paired = True
        held = process.usage()
        self._paired_bytes = held.resident_bytes if held is not None else 0
        return process

    def _blamed(self, error: TrialDiedError) -> Compared:
        """Say whose fault a death during a comparison was."""
        side = error.doing.partition(": ")[0]
        is_blamed = {
            # Both together may need more than one may have: that is the fault of none.
            "memory": error.resident_bytes - self._paired_bytes > self._limits.memory_bytes // 2,
            "killed": self._killed[error.doing] >= _KILLED_MAX,
        }.get(error.kind, error.kind in _BLAMED)
        if is_blamed and side == CANDIDATE:
            return Compared(crashed=CANDIDATE, candidate_error=error.why)
        if is_blamed and side == ACTIVE:
            return Compared(crashed=ACTIVE, active_error=error.why)
        return Compared(skipped=f"the process of the trial {error.why}")

    async def _started(self, cpu_s: float) -> TrialProcess:
        await self._end()
        if self._is_closed:
            raise TrialDiedError("ended", "the trial was ended", "")
        self._process = TrialProcess(
            memory_bytes=self._limits.memory_bytes, cpu_s=cpu_s, is_idle=self._is_idle
        )
        return self._process

    async def _end(self) -> None:
        process, self._process, self._is_paired = self._process, None, False
        if process is not None:
            await process.close()


def _failed(cause: Cause, reason: str) -> SelfTest:
    return SelfTest(passed=False, cause=cause, reason=reason, failures=(reason,))


def _judged(findings: Sequence[_Finding], skipped: Sequence[str]) -> SelfTest:
    """Choose among the variants that passed, or say why none did."""
    several = len(findings) + len(skipped) > 1
    failures = tuple(
        f"{finding.variant}: {problem}" if several else problem
        for finding in findings
        for problem in finding.tried.problems
    )
    cpu_s = sum(finding.tried.cpu_s for finding in findings)
    passed = [finding for finding in findings if finding.cause is None]
    if not passed:
        first = findings[0].tried
        return SelfTest(
            passed=False,
            cause=findings[0].cause,
            reason="; ".join(failures[:_REASONS_MAX]),
            latency_s=first.latency_s,
            wall_s=first.wall_s,
            memory_bytes=first.memory_bytes,
            goldens=first.goldens,
            runs=first.runs,
            cpu_s=cpu_s,
            failures=failures,
            notes=first.notes,
        )
    name, why = fastest([Candidate(each.variant, each.tried.latency_s) for each in passed])
    reasons = [f"{name}: {why}", *failures]
    if skipped:
        reasons.append(f"no time was left to try {', '.join(skipped)}")
    tried = next(each.tried for each in passed if each.variant == name)
    return SelfTest(
        passed=True,
        reason=f"{tried.goldens} goldens and {tried.runs} runs, {why}",
        variant=name,
        variant_reason="; ".join(reasons),
        digest=tried.digest,
        latency_s=tried.latency_s,
        wall_s=tried.wall_s,
        memory_bytes=tried.memory_bytes,
        goldens=tried.goldens,
        runs=tried.runs,
        cpu_s=cpu_s,
        failures=failures,
        notes=tried.notes,
    )
