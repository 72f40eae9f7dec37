"""Divide samples into disjoint sets: one to calibrate on, one to search on, one that decides."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from quantize.data.dataset import Dataset
from quantize.errors import BadInputError
from quantize.records import Split

_MINOR_SHARE: Final = 8
"""One part in so many is for calibration, and as much for the search; the rest decides.

Only the set that decides can be too small to tell, so it gets what the others can spare.
"""

_BORROWED_SHARE: Final = 4
"""One part in so many of labelled evaluation data is for the search, if the other data has none."""


class Splits(NamedTuple):
    """Three sets without a common sample.

    Attributes:
        calibration: Ranges are found on it.
        search: Candidates are compared on it.
        held_out: The last decision is taken on it, and nothing else.
        record: How many samples went where.
    """

    calibration: Dataset
    search: Dataset
    held_out: Dataset
    record: Split

    @property
    def has_labels(self) -> bool:
        """Whether a metric can compare with labels, in the search and in the last decision."""
        return self.search.labels is not None and self.held_out.labels is not None


def split(
    data: Dataset,
    evaluate: Dataset | None,
    *,
    calibration_samples: int,
    search_samples: int,
    seed: int,
) -> Splits:
    """Divide samples by a digest of their inputs: the order of a file does not matter.

    A sample whose inputs equal those of another one is used once: repetitions would make the
    last decision surer than it is. Evaluation data keeps it before other data does.

    Without ``evaluate``, an eighth of ``data`` is for calibration and one for the search (or as
    many as are asked for, if that is less), and the rest decides. With it, all of ``evaluate``
    decides and the others come from ``data``; but if only ``evaluate`` has labels, a quarter of it
    is for the search.

    Args:
        data: Samples to calibrate on.
        evaluate: Samples that decide; ``None``: a part of ``data``.
        calibration_samples: Most samples for calibration, at least 1.
        search_samples: Most samples for the search, at least 1.
        seed: Draws which samples go where.

    Raises:
        BadInputError: There are too few different samples for every set to have one.
    """
    if evaluate is None:
        order, repeated = _drawn(data, seed, set())
        _require(order, 3, data)
        share = max(1, len(order) // _MINOR_SHARE)
        first = min(calibration_samples, share)
        second = first + min(search_samples, share)
        return _splits(
            data.take(order[:first]),
            data.take(order[first:second]),
            data.take(order[second:]),
            repeated,
        )
    deciding, repeated = _drawn(evaluate, seed, set())
    taken = set(evaluate.take(deciding).sample_digests(seed))
    order, more = _drawn(data, seed, taken)
    repeated += more
    if evaluate.labels is not None and data.labels is None:
        _require(deciding, 2, evaluate)
        _require(order, 1, data, evaluate)
        second = min(search_samples, max(1, len(deciding) // _BORROWED_SHARE))
        return _splits(
            data.take(order[:calibration_samples]),
            evaluate.take(deciding[:second]),
            evaluate.take(deciding[second:]),
            repeated,
        )
    _require(order, 2, data, evaluate)
    first = min(calibration_samples, len(order) // 2)
    return _splits(
        data.take(order[:first]),
        data.take(order[first : first + search_samples]),
        evaluate.take(deciding),
        repeated,
    )


def _drawn(data: Dataset, seed: int, taken: Iterable[bytes]) -> tuple[list[int], int]:
    """Give the samples that are new, in drawn order, and how many are not."""
    known = set(taken)
    fresh: dict[bytes, int] = {}
    for index, digest in enumerate(data.sample_digests(seed)):
        if digest not in known:
            fresh.setdefault(digest, index)
    order = [fresh[digest] for digest in sorted(fresh)]
    return order, data.samples - len(order)


def _require(order: list[int], least: int, data: Dataset, other: Dataset | None = None) -> None:
    if len(order) < least:
        besides = f" that are not in {other.origin} too" if other else ""
        raise BadInputError(
            f"{data.origin} has {len(order)} different samples{besides}; at least {least} are "
            "needed to calibrate, search and decide on different ones, and some hundreds to decide "
            "with confidence"
        )


def _splits(calibration: Dataset, search: Dataset, held_out: Dataset, repeated: int) -> Splits:
    sets = {"calibration": calibration, "search": search, "held_out": held_out}
    record = Split(
        calibration=calibration.samples,
        search=search.samples,
        held_out=held_out.samples,
        duplicates=repeated,
        sha256={role: each.sha256 for role, each in sets.items()},
    )
    return Splits(calibration, search, held_out, record)
