"""What speaks against a candidate: measures, each with the chance of a false alarm.

Each asks the same of the evidence: if the candidate were good enough, how often would it look as
bad as this, or worse? Comparisons in pairs are asked for errors (Fisher), NaN or infinity (Fisher),
agreement (exact binomial against the floor) and time beyond the tolerance (Wilcoxon's signed
ranks); real traffic for errors (whose they are, block by block) and time (Mann and Whitney's rank
sum). How small a chance is too small is the policy's business. Pure.
"""

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

from edge_runtime.release.evidence import Snapshot
from edge_runtime.release.statistics import (
    binomial_at_least,
    clopper_pearson,
    fisher_exact_greater,
    hodges_lehmann,
    hodges_lehmann_shift,
    mann_whitney_greater,
    poisson_binomial_at_least,
    wilcoxon_signed_rank_greater,
)

_LOG_MAX: Final = 700.0  # its exponential is still a float
_DUST: Final = 1e-9  # of summed shares, before they are rounded to whole blocks


class Finding(NamedTuple):
    """What one measure says.

    Attributes:
        chance: Of such evidence, or worse, if the candidate is good enough; 1 without evidence.
        sentence: What was seen, for a person.
        numbers: The same for programs, all finite.
    """

    chance: float
    sentence: str
    numbers: Mapping[str, float]


def findings(
    snapshot: Snapshot,
    *,
    agreement_floor: float,
    latency_ratio_max: float,
    alpha: float,
    error_rate_max: float = 0.0,
) -> list[Finding]:
    """Take every measure of which there is evidence.

    Args:
        snapshot: What was seen.
        agreement_floor: Least share of inputs on which the outputs agree.
        latency_ratio_max: Most time of a run, over the active version's.
        alpha: Chance of a bound that is reported to be wrong.
        error_rate_max: Most share of real requests on which the candidate may fail by itself;
            0: not asked.

    Returns:
        Four of comparisons, two of traffic, and one more where errors are asked for by themselves.
        How many depends on where evidence comes from, never on what it says.
    """
    allowed = math.log(latency_ratio_max)
    found = []
    if snapshot.candidate.count:
        found += [_errors_of_traffic(snapshot), _latency_of_traffic(snapshot, allowed)]
        if error_rate_max:
            found.append(_error_rate(snapshot, error_rate_max, alpha))
    if snapshot.pairs or not found:
        found += [
            _errors(snapshot),
            _bad(snapshot),
            _agreement(snapshot, agreement_floor, alpha),
            _latency(snapshot, allowed),
        ]
    return found


def is_agreement_proven(snapshot: Snapshot, floor: float, alpha: float) -> bool:
    """Tell whether so much agreement would be seen with a chance of alpha at most below a floor."""
    return binomial_at_least(_whole(snapshot.agreements), snapshot.answered, floor) <= alpha


def _errors(snapshot: Snapshot) -> Finding:
    ours, theirs, n = snapshot.errors_candidate, snapshot.errors_active, snapshot.pairs
    chance = fisher_exact_greater(ours, n, theirs, n)
    return Finding(
        chance,
        f"errors: {ours} of the candidate and {theirs} of the active version in {n} blocks",
        {"pairs": n, "errors_candidate": ours, "errors_active": theirs, "errors_p": chance},
    )


def _bad(snapshot: Snapshot) -> Finding:
    chance = fisher_exact_greater(snapshot.bad, snapshot.answered, 0, snapshot.answered)
    return Finding(
        chance,
        f"bad values: NaN or infinity of the candidate alone in {snapshot.bad} of "
        f"{snapshot.answered} blocks",
        {"bad": snapshot.bad, "bad_p": chance},
    )


def _agreement(snapshot: Snapshot, floor: float, alpha: float) -> Finding:
    n = snapshot.answered
    if not n:
        return Finding(1.0, "agreement: nothing was compared", {"answered": 0})
    share = snapshot.agreements / n
    most = math.ceil(snapshot.agreements - _DUST)
    low, _ = clopper_pearson(_whole(snapshot.agreements), n, alpha)
    _, high = clopper_pearson(most, n, alpha)
    chance = max(0.0, 1.0 - binomial_at_least(most + 1, n, floor))
    return Finding(
        chance,
        f"agreement: {share:.4f} in {n} blocks, the floor is {floor:.4g}",
        {
            "answered": n,
            "agreement": share,
            "agreement_low": low,
            "agreement_high": high,
            "agreement_p": chance,
        },
    )


def _latency(snapshot: Snapshot, allowed: float) -> Finding:
    values = snapshot.log_ratios
    if not values:
        return Finding(1.0, "latency: nothing was timed", {})
    chance = wilcoxon_signed_rank_greater([value - allowed for value in values])
    ratio = _ratio(hodges_lehmann(values))
    return Finding(
        chance,
        f"latency: {_times(ratio, len(values), allowed)}",
        {"latency_ratio": ratio, "latency_blocks": len(values), "latency_p": chance},
    )


def _errors_of_traffic(snapshot: Snapshot) -> Finding:
    """Ask whose the errors are, block by block; against a control, how many blocks' worth.

    If both are as good, each error of a block is the candidate's with the chance of its share of
    the block's runs, however many errors the block has and however unequal the shares are. Each
    block counts once, with the candidate's share of its errors. A sum of shares spreads no wider
    than as many single trials would (Hoeffding 1956): a test made for these is on the careful side,
    and so is the rounding.
    """
    ours, theirs = snapshot.candidate, snapshot.active
    numbers = {
        "traffic_blocks": ours.count,
        "traffic_errors": ours.errors,
        "traffic_active_blocks": theirs.count,
        "traffic_active_errors": theirs.errors,
    }
    if snapshot.is_control:
        chance = fisher_exact_greater(
            _whole(ours.errors), ours.count, math.ceil(theirs.errors - _DUST), theirs.count
        )
        return Finding(
            chance,
            f"errors under traffic: {ours.errors:.4g} in {ours.count} blocks of the candidate, "
            f"{theirs.errors:.4g} in {theirs.count} blocks of the active version before",
            {**numbers, "traffic_errors_p": chance},
        )
    seen = math.fsum(each.errors for each in snapshot.contested)
    shares = [each.runs for each in snapshot.contested]
    chance, expected = poisson_binomial_at_least(_whole(seen), shares), math.fsum(shares)
    return Finding(
        chance,
        f"errors under traffic: in {len(shares)} of {snapshot.shared} blocks with both versions; "
        f"the candidate's share is {seen:.4g} blocks, by its traffic it would be {expected:.4g}",
        {**numbers, "traffic_errors_expected": expected, "traffic_errors_p": chance},
    )


def _error_rate(snapshot: Snapshot, most: float, alpha: float) -> Finding:
    """Ask whether it fails too often, beside nobody: each block counts with its share."""
    ours = snapshot.candidate
    errors, n = _whole(ours.errors), ours.count
    low, _ = clopper_pearson(errors, n, alpha)
    chance = binomial_at_least(errors, n, most)
    return Finding(
        chance,
        f"errors: {ours.errors:.4g} of {n} blocks failed, {ours.errors / n:.3g} of the requests of "
        f"a block; allowed are {most:.3g}, and there is nothing to compare it with",
        {"error_rate": ours.errors / n, "error_rate_low": low, "error_rate_p": chance},
    )


def _latency_of_traffic(snapshot: Snapshot, allowed: float) -> Finding:
    ours, theirs = snapshot.candidate.log_means, snapshot.active.log_means
    if not ours or not theirs:
        return Finding(1.0, "latency under traffic: there is nothing to compare it with", {})
    chance = mann_whitney_greater([value - allowed for value in ours], theirs)
    ratio = _ratio(hodges_lehmann_shift(ours, theirs))
    return Finding(
        chance,
        f"latency under traffic: {_times(ratio, len(ours), allowed)}",
        {"traffic_latency_ratio": ratio, "traffic_latency_p": chance},
    )


def _times(ratio: float, count: int, allowed: float) -> str:
    return (
        f"{ratio:.3g} times the active version's in {count} blocks, allowed are "
        f"{math.exp(allowed):.3g}"
    )


def _ratio(log_ratio: float) -> float:
    return math.exp(min(log_ratio, _LOG_MAX))


def _whole(total: float) -> int:
    return math.floor(total + _DUST)
