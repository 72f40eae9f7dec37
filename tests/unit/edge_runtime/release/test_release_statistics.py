"""The formulas of the device beside scipy's, and beside counting everything."""

import math
from collections.abc import Sequence
from itertools import combinations, product
from statistics import median

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from edge_runtime.release.statistics import (
    ESTIMATED_MAX,
    SIGNED_RANK_EXACT_MAX,
    TRIALS_EXACT_MAX,
    binomial_at_least,
    clopper_pearson,
    fisher_exact_greater,
    hodges_lehmann,
    hodges_lehmann_shift,
    mann_whitney_greater,
    poisson_binomial_at_least,
    wilcoxon_signed_rank_greater,
)

ALPHAS = st.floats(1e-6, 0.5)
STEPS = st.integers(-4, 4).map(lambda step: step / 2)
"""Few different values, so that there are ties and zeros."""
SEEDS = st.integers(0, 2**32 - 1)


def _below(top: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.integers(1, top).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(_below(3000), _below(3000))
def test_fishers_test_is_scipys(first: tuple[int, int], second: tuple[int, int]) -> None:
    (k1, n1), (k2, n2) = first, second
    expected = stats.hypergeom.sf(k1 - 1, n1 + n2, k1 + k2, n1)
    assert math.isclose(fisher_exact_greater(k1, n1, k2, n2), expected, rel_tol=1e-6, abs_tol=1e-12)


@given(_below(40), _below(40))
def test_fishers_test_of_few_is_scipys_table(
    first: tuple[int, int], second: tuple[int, int]
) -> None:
    (k1, n1), (k2, n2) = first, second
    expected = stats.fisher_exact([[k1, n1 - k1], [k2, n2 - k2]], alternative="greater").pvalue
    assert math.isclose(fisher_exact_greater(k1, n1, k2, n2), expected, rel_tol=1e-9)


@pytest.mark.parametrize("counts", [(0, 0, 0, 0), (0, 5, 0, 0), (5, 5, 0, 0), (0, 0, 3, 4)])
def test_without_a_second_side_nothing_is_more_frequent(counts: tuple[int, int, int, int]) -> None:
    assert fisher_exact_greater(*counts) == pytest.approx(1.0)


@given(_below(3000), st.floats(0, 1))
def test_the_binomial_tail_is_scipys(seen: tuple[int, int], share: float) -> None:
    k, n = seen
    expected = stats.binom.sf(k - 1, n, share)
    assert math.isclose(binomial_at_least(k, n, share), expected, rel_tol=1e-8, abs_tol=1e-12)


@given(_below(3000), ALPHAS)
def test_clopper_and_pearsons_bounds_are_scipys(seen: tuple[int, int], alpha: float) -> None:
    k, n = seen
    low, high = clopper_pearson(k, n, alpha)
    exact = stats.binomtest(k, n).proportion_ci(1 - 2 * alpha, "exact") if alpha < 0.5 else None
    if exact is not None:
        assert math.isclose(low, exact.low, rel_tol=1e-7, abs_tol=1e-12)
        assert math.isclose(high, exact.high, rel_tol=1e-7, abs_tol=1e-12)
    assert 0 <= low <= high <= 1


@given(st.lists(st.floats(0, 1), max_size=12), st.integers(-1, 13))
def test_trials_of_different_chances_are_added_up_exactly(shares: list[float], k: int) -> None:
    expected = math.fsum(
        math.prod(
            share if happens else 1 - share for share, happens in zip(shares, events, strict=True)
        )
        for events in product((False, True), repeat=len(shares))
        if sum(events) >= k
    )
    assert math.isclose(poisson_binomial_at_least(k, shares), expected, abs_tol=1e-12)


@given(st.integers(1, 2000), st.floats(0.05, 0.95), st.floats(0, 4))
def test_trials_of_equal_chances_are_scipys_binomial(n: int, share: float, above: float) -> None:
    k = math.ceil(n * share + above * math.sqrt(n * share * (1 - share)))
    expected = stats.binom.sf(k - 1, n, share)
    tolerance = 1e-9 if n <= TRIALS_EXACT_MAX else 0.02
    assert math.isclose(poisson_binomial_at_least(k, [share] * n), expected, abs_tol=tolerance)


def test_of_nothing_nothing_is_known() -> None:
    assert clopper_pearson(0, 0, 0.05) == (0.0, 1.0)
    assert wilcoxon_signed_rank_greater([]) == 1
    assert wilcoxon_signed_rank_greater([0.0, 0.0]) == 1
    assert mann_whitney_greater([], [1.0]) == 1
    assert mann_whitney_greater([1.0], []) == 1
    assert poisson_binomial_at_least(0, []) == 1
    assert poisson_binomial_at_least(1, []) == 0
    assert poisson_binomial_at_least(9, [1.0] * 9999) == 1
    assert mann_whitney_greater([1.0] * 30, [1.0] * 30) == 1


@given(SEEDS, st.integers(1, SIGNED_RANK_EXACT_MAX), st.floats(-2, 2))
def test_the_signed_rank_test_of_few_is_scipys_exact_one(
    seed: int, size: int, shift: float
) -> None:
    values = np.random.default_rng(seed).normal(shift, 1, size)
    expected = stats.wilcoxon(values, alternative="greater", method="exact").pvalue
    assert math.isclose(wilcoxon_signed_rank_greater(values.tolist()), expected, rel_tol=1e-9)


@given(
    SEEDS,
    st.integers(SIGNED_RANK_EXACT_MAX + 1, 400),
    st.floats(-0.3, 0.3),
    st.sampled_from([2, None]),
)
def test_the_signed_rank_test_of_many_is_scipys_normal_one(
    seed: int, size: int, shift: float, coarse: int | None
) -> None:
    values = np.random.default_rng(seed).normal(shift, 1, size)
    if coarse:
        values = np.round(values * coarse)
    assume(np.any(values))
    expected = stats.wilcoxon(
        values, zero_method="pratt", alternative="greater", method="asymptotic", correction=True
    )
    found = wilcoxon_signed_rank_greater(values.tolist())
    assert math.isclose(found, expected.pvalue, rel_tol=1e-9)


def _all_signs(values: Sequence[float]) -> float:
    """Count every assignment of signs, Pratt's way, by ranks made by scipy."""
    ranks = [
        rank
        for rank, value in zip(stats.rankdata(np.abs(values)), values, strict=True)
        if value != 0
    ]
    seen = sum(rank for rank, value in zip(ranks, filter(None, values), strict=True) if value > 0)
    sums = [
        sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign)
        for signs in product((False, True), repeat=len(ranks))
    ]
    return sum(1 for each in sums if each >= seen - 1e-9) / len(sums)


@given(st.lists(STEPS, min_size=1, max_size=10))
def test_ties_and_zeros_of_pairs_are_counted_exactly(values: list[float]) -> None:
    assert math.isclose(wilcoxon_signed_rank_greater(values), _all_signs(values), rel_tol=1e-12)


@given(SEEDS, st.integers(1, 25), st.integers(1, 60), st.floats(-2, 2))
def test_the_rank_sum_test_of_few_is_scipys_exact_one(
    seed: int, n: int, m: int, shift: float
) -> None:
    random = np.random.default_rng(seed)
    x, y = random.normal(shift, 1, n), random.normal(0, 1, m)
    expected = stats.mannwhitneyu(x, y, alternative="greater", method="exact").pvalue
    assert math.isclose(mann_whitney_greater(x.tolist(), y.tolist()), expected, rel_tol=1e-9)


@given(
    SEEDS,
    st.integers(30, 200),
    st.integers(30, 200),
    st.floats(-0.5, 0.5),
    st.sampled_from([2, None]),
)
def test_the_rank_sum_test_of_many_is_scipys_normal_one(
    seed: int, n: int, m: int, shift: float, coarse: int | None
) -> None:
    random = np.random.default_rng(seed)
    x, y = random.normal(shift, 1, n), random.normal(0, 1, m)
    if coarse:
        x, y = np.round(x * coarse), np.round(y * coarse)
    expected = stats.mannwhitneyu(x, y, alternative="greater", method="asymptotic").pvalue
    assert math.isclose(mann_whitney_greater(x.tolist(), y.tolist()), expected, rel_tol=1e-9)


@given(st.lists(STEPS, min_size=1, max_size=6), st.lists(STEPS, min_size=1, max_size=6))
def test_ties_between_groups_are_counted_exactly(x: list[float], y: list[float]) -> None:
    ranks = stats.rankdata([*x, *y])
    seen = ranks[: len(x)].sum()
    sums = [sum(chosen) for chosen in combinations(ranks, len(x))]
    expected = sum(each >= seen - 1e-9 for each in sums) / len(sums)
    assert math.isclose(mann_whitney_greater(x, y), expected, rel_tol=1e-12)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40))
def test_the_estimate_of_pairs_is_the_median_of_all_means(values: list[float]) -> None:
    means = [(a + b) / 2 for i, a in enumerate(values) for b in values[i:]]
    assert hodges_lehmann(values) == pytest.approx(median(means), abs=1e-8)


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30),
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30),
)
def test_the_estimate_of_groups_is_the_median_of_all_differences(
    x: list[float], y: list[float]
) -> None:
    differences = [a - b for a in x for b in y]
    assert hodges_lehmann_shift(x, y) == pytest.approx(median(differences), abs=1e-8)


def test_an_estimate_of_very_many_is_close() -> None:
    values = np.random.default_rng(7).normal(0.4, 1, 10 * ESTIMATED_MAX)
    assert hodges_lehmann(values.tolist()) == pytest.approx(float(np.median(values)), abs=0.05)


@given(SEEDS, st.integers(1, 60), st.floats(0, 3))
def test_slower_pairs_never_look_better(seed: int, size: int, shift: float) -> None:
    values = np.random.default_rng(seed).normal(0, 1, size)
    before = wilcoxon_signed_rank_greater(values.tolist())
    assert wilcoxon_signed_rank_greater((values + shift).tolist()) <= before + 1e-12
