"""How sure a measured number is: bounds from samples, and how many samples would be enough.

Pure numbers. All bounds are for candidate and float model on the same samples, in pairs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

SAMPLES_MIN: Final = 20
"""Fewer samples say too little of how far scores spread; then nothing can be told."""

SAMPLES_FORESEEN_MAX: Final = 10_000_000
"""More are not foreseen: the ratio is then as good as on the floor."""

_LOST_SHARE: Final = 0.8
"""Part of the allowed error that goes to samples lost; the rest goes to those gained."""
_SPREAD_SHARE: Final = 0.5
"""Part of the allowed error that a bootstrap is given: its bounds promise too much while samples
are few and losses uneven (the coverage test)."""
_PACE_SHARE: Final = 0.2
"""Part of the allowed error that the bootstrap of a median is given, for the same reason."""
_RARE: Final = 10
"""Samples that lose something, below which they cannot show how much others would lose."""
_RESAMPLES: Final = 2000
_NUMBERS_AT_ONCE: Final = 1 << 22
_SEED: Final = 20_406_080


@dataclass(frozen=True)
class Bound:
    """A one-sided lower bound of the share of the float model's score that is kept.

    Attributes:
        low: The bound; ``None``: too few samples to tell.
        ratio: The share that was seen.
        samples: How many samples there were.
        at: The bound that so many times the samples would give, if rates and spread stay.
    """

    low: float | None
    ratio: float
    samples: int
    at: Callable[[float], float]

    def samples_needed(self, floor: float) -> int | None:
        """Say how many samples would be enough for the bound to reach a floor.

        Args:
            floor: Least share that must be kept.

        Returns:
            The least number, if rates and spread stay as they were seen; ``None`` where the bound
            is above the floor already, or where no number helps.
        """
        if self.ratio <= floor or (self.low is not None and self.low >= floor):
            return None
        few = 0 if self.low is None else self.samples
        enough = max(self.samples, SAMPLES_MIN if self.low is None else 1)
        while self.at(enough / self.samples) < floor:
            few, enough = enough, enough * 2
            if enough > SAMPLES_FORESEEN_MAX:
                return None
        while enough - few > 1:
            middle = (few + enough) // 2
            if self.at(middle / self.samples) < floor:
                few = middle
            else:
                enough = middle
        return max(enough, SAMPLES_MIN) if self.low is None else enough


def shares_kept(candidate: Numbers, reference: Numbers, confidence: float) -> Bound:
    """Bound the kept ratio of scores that are shares: 1 is all right, 0 all wrong.

    Where every sample is right or wrong, the bound is exact for any number of samples. It adds two
    Clopper-Pearson bounds: an upper one of the samples lost among those that the float model has
    right, and a lower one of those gained; both counts are binomial once the other samples are
    left aside. A share between 0 and 1 is bounded as ``means_kept`` does, and additionally as if a
    sample that loses anything lost everything while such samples are rare.

    Args:
        candidate: Score of each sample, ``[n]``.
        reference: The float model's, ``[n]``; its mean is above 0.
        confidence: Of the bound, for example 0.95.
    """
    samples = len(candidate)
    allowed = 1 - confidence
    kept = float(candidate.mean() / reference.mean())
    if np.isin(candidate, (0, 1)).all() and np.isin(reference, (0, 1)).all():
        right = float(reference.sum())
        lost = float(np.sum((reference == 1) & (candidate == 0)))
        gained = float(np.sum((reference == 0) & (candidate == 1)))

        def exact(scale: float) -> float:
            most_lost = most(lost * scale, right * scale, allowed * _LOST_SHARE)
            won = least(gained * scale, (gained + right) * scale, allowed * (1 - _LOST_SHARE))
            return 1 - most_lost + won / (1 - won)

        return Bound(exact(1), kept, samples, exact)
    spread = means_kept(candidate, reference, confidence)
    losing = float(np.sum(candidate < reference))
    mean = float(reference.mean())

    def guarded(scale: float) -> float:
        low = spread.at(scale)
        if losing * scale < _RARE:
            low = min(low, 1 - most(losing * scale, samples * scale, allowed) / mean)
        return low

    return Bound(None if spread.low is None else guarded(1), kept, samples, guarded)


def means_kept(candidate: Numbers, reference: Numbers, confidence: float) -> Bound:
    """Bound ``mean(candidate) / mean(reference)`` from below; swap both for errors.

    The lower one of two bootstrap bounds, BCa and studentised, which err on different kinds of
    data; each is given half of the allowed error. It speaks of data like that which was seen: what
    is too rare to be among the samples cannot be bounded by them.

    Args:
        candidate: Of each sample, ``[n]``, not negative on average.
        reference: Of the same samples, ``[n]``; its mean is above 0.
        confidence: Of the bound.

    Source:
        Efron (1987), Better bootstrap confidence intervals; Hall (1988), Theoretical comparison of
        bootstrap confidence intervals.
    """
    samples = len(candidate)
    kept = float(candidate.mean() / reference.mean())
    if samples < SAMPLES_MIN:
        return Bound(None, kept, samples, lambda _: kept)
    allowed = (1 - confidence) * _SPREAD_SHARE
    low = _bootstrap_low(candidate, reference, allowed)

    def widened(scale: float) -> float:
        return kept - (kept - low) / math.sqrt(scale)

    return Bound(low, kept, samples, widened)


def ratio_interval(
    candidate: Numbers, reference: Numbers, *, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Find the two-sided interval of ``median(candidate / reference)``.

    A percentile bootstrap of pairs. Neighbours in time are drawn together, in circular blocks,
    because a busy spell of the machine lasts longer than one pair.

    Args:
        candidate: Times in the order they were measured, ``[n]``, above 0.
        reference: The pairs' other times, ``[n]``, above 0.
        confidence: Of the interval.
        seed: Of what is drawn.

    Returns:
        Lower and upper end.

    Source:
        Politis and Romano (1992), A circular block-resampling procedure for stationary data.
    """
    each = np.asarray(candidate) / np.asarray(reference)
    pairs = len(each)
    length = max(1, round(math.sqrt(pairs) / 2))
    random = np.random.default_rng(seed)
    ratios: list[Numbers] = []
    for count in _portions(pairs):
        starts = random.integers(0, pairs, (count, -(-pairs // length)))
        places = (starts[:, :, None] + np.arange(length)).reshape(count, -1)[:, :pairs] % pairs
        ratios.append(np.median(each[places], axis=1))
    tail = _PACE_SHARE * (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(ratios), (tail, 1 - tail))
    return float(low), float(high)


def most(count: float, trials: float, allowed: float) -> float:
    """Give the Clopper-Pearson upper bound of a probability.

    Args:
        count: Trials that it happened in; fractions are interpolated.
        trials: All trials.
        allowed: Probability that the bound is too low.
    """
    return 1.0 if count >= trials else _beta_quantile(count + 1, trials - count, 1 - allowed)


def least(count: float, trials: float, allowed: float) -> float:
    """Give the Clopper-Pearson lower bound of a probability; see ``most``."""
    return 0.0 if count <= 0 else _beta_quantile(count, trials - count + 1, allowed)


def _beta_quantile(first: float, second: float, probability: float) -> float:
    # The base install has no scipy, and verifying a bundle needs no bound.
    from scipy.special import betaincinv  # noqa: PLC0415

    return float(betaincinv(first, second, probability))


def _bootstrap_low(upper: Numbers, lower: Numbers, allowed: float) -> float:
    """Give the lower one of the BCa and the studentised bound of ``sum(upper) / sum(lower)``."""
    ratio = float(upper.sum() / lower.sum())
    scale = np.abs(lower).max()
    # Distances from the ratio, not the numbers themselves: differences of 1e-9 are still exact.
    rest = (upper - ratio * lower) / scale
    rest, lower = rest - rest.mean(), lower / scale
    influence = rest / lower.mean()
    deviation = float(np.sqrt((influence**2).sum())) / len(rest)
    if deviation <= np.finfo(np.float64).eps * abs(ratio):
        return ratio  # all samples agree: there is no spread to resample
    # A resample's ratio and its deviation need no more of it than these five sums.
    sums = np.stack(_resampled_sums([rest, lower, rest**2, rest * lower, lower**2]))
    tops, bottoms, squares, products, others = sums[:, sums[1] > 0]
    shifts = tops / bottoms
    variances = squares - 2 * shifts * products + shifts**2 * others
    deviations = np.sqrt(np.maximum(variances, 0)) / bottoms
    spread = deviations > 0
    errors = shifts[spread] / deviations[spread]
    studentised = -float(np.quantile(errors, 1 - allowed)) * deviation
    return ratio + min(studentised, _bca_low(shifts, influence, allowed))


def _bca_low(shifts: Numbers, influence: Numbers, allowed: float) -> float:
    """Give the BCa bound of a statistic, as its distance from what was seen."""
    normal = NormalDist()
    below = float(np.mean(shifts < 0) + np.mean(shifts == 0) / 2)
    if not 0 < below < 1:
        return float(shifts.min())
    bias = normal.inv_cdf(below)
    skew = float((influence**3).sum() / (6 * (influence**2).sum() ** 1.5))
    moved = bias + normal.inv_cdf(allowed)
    point = normal.cdf(bias + moved / (1 - skew * moved))
    return float(np.quantile(shifts, point))


def _resampled_sums(terms: Sequence[Numbers]) -> list[Numbers]:
    """Give each term's sum in every resample; all terms are resampled alike."""
    samples = len(terms[0])
    random = np.random.default_rng(_SEED)
    sums: list[list[Numbers]] = [[] for _ in terms]
    for count in _portions(samples):
        places = random.integers(0, samples, (count, samples), dtype=np.int32)
        for each, term in zip(sums, terms, strict=True):
            each.append(term[places].sum(axis=1))
    return [np.concatenate(each) for each in sums]


def _portions(samples: int) -> list[int]:
    """Cut the resamples into portions that do not need much memory at once."""
    portion = max(1, min(_RESAMPLES, _NUMBERS_AT_ONCE // samples))
    full, rest = divmod(_RESAMPLES, portion)
    return [portion] * full + ([rest] if rest else [])
