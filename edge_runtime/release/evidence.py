"""What is known of a candidate beside the active version: honest counts, thinned and bounded.

A camera's frames are much alike, and so are the requests of one second: as samples they would count
the same fact many times, and any test over them would promise too much. A comparison therefore
counts once per time block and only for an input that has not been counted before. Real traffic
counts once per time block: the share of each side's runs that failed, the mean time of the others,
and whose the errors were. What the policy gets as *n* is the number of blocks. Pure: the caller
says what time it is.
"""

import math
from typing import Final, NamedTuple

import msgspec

BLOCKS_MAX: Final = 8192
"""Blocks that are kept unless told otherwise; later ones are not counted."""


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """Both versions on one input, run one right after the other.

    Attributes:
        at_s: When, in awake seconds.
        input_digest: SHA-256 over the inputs, or another digest that tells them apart.
        is_error_candidate: The candidate gave no answer.
        is_error_active: The active version gave none.
        is_bad: The candidate's answer has NaN or infinity where the active one's has a number.
        agrees: Share of the answer's rows on which both agree, 0 to 1; ``True`` for all.
        active_s: Time of the active version's run, in seconds; not used unless both answered.
        candidate_s: Time of the candidate's run, in seconds; the same.
    """

    at_s: float
    input_digest: bytes
    is_error_candidate: bool = False
    is_error_active: bool = False
    is_bad: bool = False
    agrees: float = 1.0
    active_s: float = 0.0
    candidate_s: float = 0.0


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """What one version did in a piece of time; without cache hits and warm-up.

    Attributes:
        runs: Runs that ended, good or not.
        errors: Those of them that failed; of a candidate, only those that the active version then
            answered, if that is known: an input that both refuse says nothing.
        answered_s: Time of all the others together, in seconds.
    """

    runs: int = 0
    errors: int = 0
    answered_s: float = 0.0

    def plus(self, other: "Side") -> "Side":
        """Add up two pieces of time."""
        return Side(
            runs=self.runs + other.runs,
            errors=self.errors + other.errors,
            answered_s=self.answered_s + other.answered_s,
        )


class Blocks(msgspec.Struct, frozen=True, kw_only=True):
    """One version over many blocks.

    Attributes:
        count: Blocks in which it ran: the effective *n*.
        errors: Sum over the blocks of the share of runs that failed, 0 to ``count``.
        log_means: Natural logarithm of the mean time in seconds, of each block that has one.
    """

    count: int = 0
    errors: float = 0.0
    log_means: tuple[float, ...] = ()


class Contested(NamedTuple):
    """The errors of one block in which both sides ran.

    Attributes:
        errors: The candidate's share of them, 0 to 1.
        runs: The candidate's share of the block's runs: what is to be expected of the errors if
            both are as good. Above 0 and below 1.
    """

    errors: float
    runs: float


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All that the policy is told.

    Attributes:
        blocks: Blocks that say something of the candidate: the effective *n*.
        seen: Comparisons that were made, those that did not count among them.
        pairs: Comparisons that count.
        errors_candidate: Those of them in which the candidate gave no answer.
        errors_active: Those in which the active version gave none.
        answered: Those in which both answered.
        bad: Those of these with NaN or infinity of the candidate alone.
        agreements: Sum of the shares on which these agree, 0 to ``answered``.
        log_ratios: Natural logarithm of candidate's over active's time, of those that were timed.
        candidate: The candidate under real traffic.
        active: The active version under the same traffic, or the control of an earlier step.
        is_control: It is the latter.
        shared: Blocks in which both ran.
        contested: Those of them with errors.
    """

    blocks: int = 0
    seen: int = 0
    pairs: int = 0
    errors_candidate: int = 0
    errors_active: int = 0
    answered: int = 0
    bad: int = 0
    agreements: float = 0.0
    log_ratios: tuple[float, ...] = ()
    candidate: Blocks = Blocks()
    active: Blocks = Blocks()
    is_control: bool = False
    shared: int = 0
    contested: tuple[Contested, ...] = ()


class Evidence:
    """Collects what is seen in one step of a release.

    Args:
        block_s: Length of a time block, in seconds.
        blocks_max: Blocks that are kept; further ones are not counted.
        control: The active version in an earlier step, for a step in which it gets no traffic of
            its own; ``None``: it is watched in this step.
    """

    def __init__(
        self, block_s: float, blocks_max: int = BLOCKS_MAX, *, control: Blocks | None = None
    ) -> None:
        self._block_s = block_s
        self._blocks_max = blocks_max
        self._control = control
        self._digests: set[bytes] = set()  # of what was counted: never more than blocks_max
        self._block = -math.inf
        self._seen = self._errors_candidate = self._errors_active = 0
        self._answered = self._bad = 0
        self._agreements: list[float] = []
        self._log_ratios: list[float] = []
        self._traffic_block = -math.inf
        self._traffic: list[tuple[Side, Side]] = []  # candidate and active, by block
        self._candidate_blocks = 0

    @property
    def blocks(self) -> int:
        """Blocks that say something of the candidate; cheap, for asking often."""
        return max(len(self._digests), self._candidate_blocks)

    def add(self, observation: Observation) -> bool:
        """Take a comparison.

        Returns:
            Whether it counts; if not, its time block or its input has been counted already.
        """
        self._seen += 1
        block = math.floor(observation.at_s / self._block_s)
        digest = observation.input_digest
        full = len(self._digests) >= self._blocks_max
        if full or block <= self._block or digest in self._digests:
            return False
        self._block = block
        self._digests.add(digest)
        self._errors_candidate += observation.is_error_candidate
        self._errors_active += observation.is_error_active
        if observation.is_error_candidate or observation.is_error_active:
            return True
        self._answered += 1
        self._bad += observation.is_bad
        self._agreements.append(0.0 if observation.is_bad else _share(observation.agrees))
        candidate, active = _log(observation.candidate_s), _log(observation.active_s)
        if candidate is not None and active is not None:
            self._log_ratios.append(candidate - active)
        return True

    def add_block(self, at_s: float, *, candidate: Side, active: Side) -> bool:
        """Take what real traffic did since the last call.

        Args:
            at_s: When, in awake seconds.
            candidate: What was sent to the candidate.
            active: What was sent to the active version in the same time.

        Returns:
            Whether it begins a new block; if not, it was added to the present one, or there was
            nothing to add or no room.
        """
        if not candidate.runs and not active.runs:
            return False
        block = math.floor(at_s / self._block_s)
        if block <= self._traffic_block:
            before = self._traffic[-1]
            self._candidate_blocks += not before[0].runs and candidate.runs > 0
            self._traffic[-1] = (before[0].plus(candidate), before[1].plus(active))
            return False
        if len(self._traffic) >= self._blocks_max:
            return False
        self._traffic_block = block
        self._traffic.append((candidate, active))
        self._candidate_blocks += candidate.runs > 0
        return True

    def snapshot(self) -> Snapshot:
        """Sum up; what comes later does not change it."""
        active = self._control
        if active is None:
            active = _blocks([each[1] for each in self._traffic])
        shared = [each for each in self._traffic if each[0].runs and each[1].runs]
        return Snapshot(
            blocks=self.blocks,
            seen=self._seen,
            pairs=len(self._digests),
            errors_candidate=self._errors_candidate,
            errors_active=self._errors_active,
            answered=self._answered,
            bad=self._bad,
            agreements=math.fsum(self._agreements),
            log_ratios=tuple(self._log_ratios),
            candidate=_blocks([each[0] for each in self._traffic]),
            active=active,
            is_control=self._control is not None,
            shared=len(shared),
            contested=tuple(
                Contested(
                    _share(ours.errors / (ours.errors + theirs.errors)),
                    ours.runs / (ours.runs + theirs.runs),
                )
                for ours, theirs in shared
                if ours.errors + theirs.errors > 0
            ),
        )


def _blocks(sides: list[Side]) -> Blocks:
    ran = [side for side in sides if side.runs > 0]
    means = [
        _log(side.answered_s / (side.runs - side.errors)) for side in ran if side.runs > side.errors
    ]
    return Blocks(
        count=len(ran),
        errors=math.fsum(_share(side.errors / side.runs) for side in ran),
        log_means=tuple(mean for mean in means if mean is not None),
    )


def _share(value: float) -> float:
    """Keep a share between 0 and 1; what is no number agrees with nothing."""
    return min(1.0, max(0.0, value)) if math.isfinite(value) else 0.0


def _log(seconds: float) -> float | None:
    """Take the logarithm of a time; ``None`` for what is no time."""
    return math.log(seconds) if 0 < seconds < math.inf else None
