"""Tells whether a rewritten model still gives the answers of the model it was made of."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import Final

import numpy as np

from quantize.signature import Array

RANGE_SHARE: Final = 1e-4
"""Largest difference, as a share of the range of the output's values over all samples."""
_ROUNDINGS: Final = 16.0
"""Largest difference besides, in roundings of the output's largest value: long sums differ so."""

Outputs = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far answers are apart.

    Attributes:
        max_difference: Largest absolute difference of any number.
        problem: Where they are too far apart; empty: nowhere.
    """

    max_difference: float
    problem: str


def compare(found: Sequence[Outputs], expected: Sequence[Outputs]) -> Agreement:
    """Compare answers to the same samples.

    Numbers agree within ``RANGE_SHARE`` of their output's range, so that the largest stays the
    largest unless another was that near; NaN, infinity, integers and strings agree exactly.

    Args:
        found: Outputs by name, for each sample.
        expected: Those of the model that is right.
    """
    worst = 0.0
    for name in expected[0] if expected else ():
        differences = list(
            starmap(
                _difference, _pairs([one[name] for one in found], [one[name] for one in expected])
            )
        )
        if None in differences:
            return Agreement(worst, f"output {name!r} has another shape, type or exact value")
        difference = max((each for each in differences if each is not None), default=0.0)
        worst = max(worst, difference)
        allowed = tolerance([one[name] for one in expected])
        if difference > allowed:
            return Agreement(
                worst, f"output {name!r} differs by {difference:.3g}, more than {allowed:.3g}"
            )
    return Agreement(worst, "")


def tolerance(arrays: Iterable[Array]) -> float:
    """Say how far floats may be from these, which are right; 0 for what is not float."""
    finite = [each[np.isfinite(each)] for each in arrays if each.dtype.kind == "f"]
    numbers = [each for each in finite if each.size]
    if not numbers:
        return 0.0
    high = max(float(each.max()) for each in numbers)
    low = min(float(each.min()) for each in numbers)
    rounding = float(np.finfo(numbers[0].dtype).eps)
    return RANGE_SHARE * (high - low) + _ROUNDINGS * rounding * max(abs(high), abs(low))


def _pairs(found: list[Array], expected: list[Array]) -> Iterable[tuple[Array, Array]]:
    return zip(found, expected, strict=True)


def _difference(found: Array, expected: Array) -> float | None:
    """Return the largest difference; ``None`` where only equality would do."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return None
    if found.dtype.kind != "f":
        return 0.0 if np.array_equal(found, expected) else None
    finite = np.isfinite(expected)
    if not np.array_equal(found[~finite], expected[~finite], equal_nan=True):
        return None
    apart = np.abs(found[finite].astype(np.float64) - expected[finite].astype(np.float64))
    return float(apart.max()) if apart.size else 0.0
