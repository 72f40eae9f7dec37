"""Small exact tests, without scipy: a device has none.

Every test is one-sided, asks whether the first side is *greater* (worse), and gives the chance of
what was seen, or of worse, if it is not. Only ``math.lgamma`` and ``math.erfc`` are needed; scipy
checks all of it in the tests. Values must be finite numbers. Pure.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final

SIGNED_RANK_EXACT_MAX: Final = 25
"""Most pairs of which every assignment of signs is counted; beyond it, the normal distribution."""
RANK_SUM_EXACT_MAX: Final = 25
"""The same for the smaller of two groups of different values, see ``mann_whitney_greater``."""
RANK_SUM_TIED_EXACT_MAX: Final = 20
"""The same for both groups together, where values are equal."""
TRIALS_EXACT_MAX: Final = 512
"""Most trials of different chances that are added up exactly."""
ESTIMATED_MAX: Final = 512
"""Most values of a group that an estimate looks at; of more, evenly spaced ones in their order."""

_STEPS_MAX: Final = 1000
_TINY: Final = 1e-300
_EPSILON: Final = 3e-16
_CLOSE: Final = 1e-12  # of the whole range: an estimate needs no more digits


def fisher_exact_greater(k1: int, n1: int, k2: int, n2: int) -> float:
    """Ask whether events are more frequent on the first side.

    Args:
        k1: Events on the first side, 0 to ``n1``.
        n1: Trials on the first side.
        k2: Events on the second side, 0 to ``n2``.
        n2: Trials on the second side.

    Source:
        Fisher's exact test: the hypergeometric distribution of ``k1``, given all events.
    """
    total = k1 + k2
    whole = _log_choose(n1 + n2, total)
    return min(
        1.0,
        math.fsum(
            math.exp(_log_choose(n1, k) + _log_choose(n2, total - k) - whole)
            for k in range(k1, min(n1, total) + 1)
        ),
    )


def binomial_at_least(k: int, n: int, share: float) -> float:
    """Give the chance of ``k`` or more events in ``n`` trials, each of chance ``share``."""
    if k <= 0:
        return 1.0
    if k > n:
        return 0.0
    return _incomplete_beta(share, k, n - k + 1)


def poisson_binomial_at_least(k: int, shares: Sequence[float]) -> float:
    """Give the chance of ``k`` or more events in trials of which each has a chance of its own.

    Up to ``TRIALS_EXACT_MAX`` trials are added up exactly; beyond it, the normal distribution,
    corrected for continuity.
    """
    if k <= 0:
        return 1.0
    if k > len(shares):
        return 0.0
    if len(shares) > TRIALS_EXACT_MAX:
        variance = math.fsum(share * (1 - share) for share in shares)
        above = k - math.fsum(shares) - 0.5
        return _normal_above(above / math.sqrt(variance)) if variance > 0 else float(above < 0)
    chances = [1.0] + [0.0] * k  # of so many events; the last one: of k or more
    for share in shares:
        chances[k] += chances[k - 1] * share
        for count in range(k - 1, 0, -1):
            chances[count] += (chances[count - 1] - chances[count]) * share
        chances[0] *= 1 - share
    return min(1.0, chances[k])


def clopper_pearson(k: int, n: int, alpha: float) -> tuple[float, float]:
    """Bound the chance of an event, seen ``k`` times in ``n`` trials.

    Args:
        k: Events, 0 to ``n``.
        n: Trials; with 0 nothing is known.
        alpha: Chance of each bound, on its own, to be wrong.

    Returns:
        The lower and the upper bound.

    Source:
        C. J. Clopper and E. S. Pearson, Biometrika 26 (1934).
    """
    low = _root(lambda share: binomial_at_least(k, n, share) - alpha) if k > 0 else 0.0
    high = 1.0
    if k < n:
        high = _root(lambda share: alpha - 1.0 + binomial_at_least(k + 1, n, share))
    return low, high


def wilcoxon_signed_rank_greater(values: Sequence[float]) -> float:
    """Ask whether values are greater than 0, in the middle.

    Zeros take the lowest ranks and are then left out (Pratt): without that, a value that rises
    from below 0 to 0 could make the rest look less great. Ties share their mean rank. Up to
    ``SIGNED_RANK_EXACT_MAX`` values are counted exactly, with ties and zeros; beyond it the normal
    distribution, corrected for ties and for continuity.

    Args:
        values: Differences of pairs.

    Source:
        J. W. Pratt, JASA 54 (1959).
    """
    doubled = _doubled_ranks([abs(value) for value in values])
    ranked = [(rank, value) for rank, value in zip(doubled, values, strict=True) if value]
    ranks = [rank for rank, _ in ranked]
    positive = sum(rank for rank, value in ranked if value > 0)
    if not ranks:
        return 1.0
    if len(values) <= SIGNED_RANK_EXACT_MAX:
        ways = _subset_sums(ranks)
        return sum(ways[positive:]) / (1 << len(ranks))
    mean = sum(ranks) / 2
    deviation = math.sqrt(sum(rank * rank for rank in ranks)) / 2
    # Doubled ranks: half a rank of continuity is 1.
    return _normal_above((positive - mean - 1) / deviation)


def mann_whitney_greater(x: Sequence[float], y: Sequence[float]) -> float:
    """Ask whether the values of ``x`` are greater than those of ``y``.

    Counted exactly if the smaller group has at most ``RANK_SUM_EXACT_MAX`` values, the other at
    most four times as many, and no two are equal; or if both together have at most
    ``RANK_SUM_TIED_EXACT_MAX``. Otherwise the normal distribution, corrected for ties and for
    continuity.

    Args:
        x: Values of the first side.
        y: Values of the second side.

    Source:
        H. B. Mann and D. R. Whitney, Annals of Mathematical Statistics 18 (1947).
    """
    n, m = len(x), len(y)
    if not n or not m:
        return 1.0
    doubled = _doubled_ranks([*x, *y])
    rank_sum = sum(doubled[:n])
    is_tied = len(set(doubled)) < n + m
    if n + m <= RANK_SUM_TIED_EXACT_MAX and is_tied:
        ways = _subset_sums(doubled, n)
        return sum(ways[rank_sum:]) / math.comb(n + m, n)
    above = rank_sum / 2 - n * (n + 1) / 2
    if not is_tied and min(n, m) <= RANK_SUM_EXACT_MAX and max(n, m) <= 4 * RANK_SUM_EXACT_MAX:
        return sum(_rank_sum_ways(n, m)[round(above) :]) / math.comb(n + m, n)
    tied = sum(count**3 - count for count in _counts(doubled))
    total = n + m
    variance = n * m / 12 * (total + 1 - tied / (total * (total - 1)))
    if variance <= 0:
        return 1.0
    return _normal_above((above - n * m / 2 - 0.5) / math.sqrt(variance))


def hodges_lehmann(values: Sequence[float]) -> float:
    """Estimate the middle of paired differences: the median of the means of all pairs.

    Args:
        values: At least one.

    Source:
        J. L. Hodges and E. L. Lehmann, Annals of Mathematical Statistics 34 (1963).
    """
    ordered = _spaced(values)
    size = len(ordered)
    doubled = [2 * value for value in ordered]

    def below(limit: float) -> int:
        """Count pairs, each with itself too, whose sum is at most the limit."""
        return (_pairs_below(ordered, ordered, limit) + bisect_right(doubled, limit)) // 2

    return _middle(below, size * (size + 1) // 2, doubled[0], doubled[-1]) / 2


def hodges_lehmann_shift(x: Sequence[float], y: Sequence[float]) -> float:
    """Estimate how much greater ``x`` is than ``y``: the median of all differences.

    Args:
        x: At least one value.
        y: At least one value.
    """
    greater, negated = _spaced(x), _spaced([-value for value in y])
    return _middle(
        lambda limit: _pairs_below(greater, negated, limit),
        len(greater) * len(negated),
        greater[0] + negated[0],
        greater[-1] + negated[-1],
    )


def _spaced(values: Sequence[float]) -> list[float]:
    """Order values, and keep evenly spaced ones of too many."""
    ordered = sorted(values)
    size = min(len(ordered), ESTIMATED_MAX)
    return [ordered[(2 * place + 1) * len(ordered) // (2 * size)] for place in range(size)]


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _normal_above(deviations: float) -> float:
    return math.erfc(deviations / math.sqrt(2)) / 2


def _doubled_ranks(values: Sequence[float]) -> list[int]:
    """Rank from 1, ties by their mean; doubled, so that all of them are whole."""
    ranks = [0] * len(values)
    passed = 0
    order = sorted(range(len(values)), key=values.__getitem__)
    for _, group in groupby(order, key=values.__getitem__):
        places = list(group)
        for place in places:
            ranks[place] = 2 * passed + len(places) + 1
        passed += len(places)
    return ranks


def _counts(values: Sequence[int]) -> list[int]:
    return [sum(1 for _ in group) for _, group in groupby(sorted(values))]


def _subset_sums(ranks: Sequence[int], size: int | None = None) -> list[int]:
    """Count subsets by their sum; of ``size`` elements only, or of any number."""
    total = sum(ranks)
    if size is None:
        ways = [1] + [0] * total
        for rank in ranks:
            for place in range(total, rank - 1, -1):
                ways[place] += ways[place - rank]
        return ways
    by_size = [[1] + [0] * total] + [[0] * (total + 1) for _ in range(size)]
    for rank in ranks:
        for taken in range(size, 0, -1):
            fewer, here = by_size[taken - 1], by_size[taken]
            for place in range(total, rank - 1, -1):
                here[place] += fewer[place - rank]
    return by_size[size]


def _rank_sum_ways(n: int, m: int) -> list[int]:
    """Count arrangements of two groups by Mann and Whitney's U.

    They are the coefficients of a Gaussian binomial: a product of (1 - q^(m+i)) / (1 - q^i).
    """
    n, m = min(n, m), max(n, m)
    size = n * m + 1
    ways = [1] + [0] * (size - 1)
    for i in range(1, n + 1):
        for place in range(size - 1, m + i - 1, -1):
            ways[place] -= ways[place - m - i]
        for place in range(i, size):
            ways[place] += ways[place - i]
    return ways


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """Integrate the beta distribution from 0 to ``x``, by its continued fraction.

    Source:
        NIST Digital Library of Mathematical Functions, 8.17.22, evaluated by Lentz's method.
    """
    if x <= 0.0 or x >= 1.0:
        return float(x > 0)
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(1.0 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    log_front += a * math.log(x) + b * math.log1p(-x) - math.log(a)
    d = 1.0 / _not_zero(1.0 - (a + b) * x / (a + 1.0))
    c, value = 1.0, d
    for step in range(1, _STEPS_MAX):
        double = 2 * step
        even = step * (b - step) * x / ((a + double - 1.0) * (a + double))
        odd = -(a + step) * (a + b + step) * x / ((a + double) * (a + double + 1.0))
        change = 1.0
        for numerator in (even, odd):
            d = 1.0 / _not_zero(1.0 + numerator * d)
            c = _not_zero(1.0 + numerator / c)
            change *= c * d
        value *= change
        if abs(change - 1.0) <= _EPSILON:
            break
    return min(1.0, math.exp(log_front) * value)


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def _root(rising: Callable[[float], float]) -> float:
    """Find where a function that rises crosses 0, between 0 and 1."""
    low, high = 0.0, 1.0
    while True:
        middle = (low + high) / 2
        if middle in {low, high}:
            return middle
        if rising(middle) < 0:
            low = middle
        else:
            high = middle


def _pairs_below(x: Sequence[float], y: Sequence[float], limit: float) -> int:
    """Count pairs of two ordered groups whose sum is at most the limit."""
    count, reach = 0, len(y)
    for value in x:
        while reach and value + y[reach - 1] > limit:
            reach -= 1
        count += reach
    return count


def _middle(below: Callable[[float], int], size: int, least: float, most: float) -> float:
    """Find the median of ``size`` numbers of which it can be said how many are at most a limit."""
    lower, upper = (size + 1) // 2, size // 2 + 1
    found = _ranked(below, lower, least, most)
    return found if upper == lower else (found + _ranked(below, upper, found, most)) / 2


def _ranked(below: Callable[[float], int], rank: int, least: float, most: float) -> float:
    """Find the smallest limit that so many numbers are at most, as closely as is told."""
    if below(least) >= rank:
        return least
    close = (most - least) * _CLOSE
    while most - least > close:
        middle = least + (most - least) / 2
        if middle in {least, most}:
            break
        if below(middle) < rank:
            least = middle
        else:
            most = middle
    return most
