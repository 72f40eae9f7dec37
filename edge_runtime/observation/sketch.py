"""How the values of one output spread, in fixed buckets that add up over time and devices; pure.

A row that looks like scores of classes (a float output with rows of 2 to ``CLASSES_MAX`` places)
is counted by its best class, and by the best class's score; a few whole numbers from 0 on are
counted as classes. Every other output is counted by its values, in buckets that grow by a quarter
each (the idea of DDSketch: Masson, Rim and Lee, VLDB 2019). Sketches are added by adding counts.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_runtime.tensors import Array

CLASSES_MAX: Final = 4096
ROWS_MAX: Final = 64
"""Rows of one answer that are looked at, evenly spread."""
VALUES_MAX: Final = 4096
"""Values of one answer that are looked at, evenly spread."""
LABELS_MAX: Final = 128
"""Classes that are told apart; those that come later are counted as ``other``."""
SCORE_BUCKETS: Final = 20
"""Equal parts of 0 to 1."""
GROWTH: Final = 1.25
_LOG: Final = math.log(GROWTH)
_CLAMP: Final = 200  # 1.25 to the 200th is 2e19; what is beyond counts as that
_OTHER: Final = "other"
_UNIT_TOLERANCE: Final = 1e-3  # scores of quantised models miss 1 by as much


class Sketch:
    """The spread of one output's values.

    Attributes:
        rows: Rows or values that were counted.
        bad: NaN and infinite values among them.
        counts: How many by bucket: ``class:7``, ``score:19`` (the best class's score lies in
            19/20 to 20/20), ``value:-3`` (between 1.25 to the -4th and to the -3rd), ``value:~3``
            (the same, negative) and ``value:0`` for zeros, which is called ``zero``.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.bad = 0
        self.counts: Counter[str] = Counter()
        self._labels: set[int] = set()

    def add(self, output: Array) -> None:
        """Count one answer's output; one that has no numbers counts nothing.

        Args:
            output: Any shape, any datatype.
        """
        if output.size == 0 or output.dtype.kind not in "fiub":
            return
        with np.errstate(all="ignore"):
            if _are_scores(output):
                self._add_scores(output.reshape(-1, output.shape[-1]))
            elif _are_labels(output):
                self.rows += output.size
                self._add_labels(output.reshape(-1).tolist())
            else:
                self._add_values(output.reshape(-1))

    def told(self) -> Mapping[str, int]:
        """Give the counts."""
        return dict(self.counts)

    def _add_scores(self, rows: NDArray[np.floating]) -> None:
        rows = rows[:: -(-len(rows) // ROWS_MAX)].astype(np.float32)
        whole = np.isfinite(rows).all(axis=1)
        self.rows += len(rows)
        self.bad += int(len(rows) - whole.sum())
        rows = rows[whole]
        best = rows.argmax(axis=1)
        self._add_labels(best.tolist())
        for row, label in zip(rows, best, strict=True):
            score = _probability(row, int(label))
            self.counts[f"score:{min(int(score * SCORE_BUCKETS), SCORE_BUCKETS - 1)}"] += 1

    def _add_labels(self, labels: Iterable[int]) -> None:
        for label in labels:
            if label not in self._labels and len(self._labels) < LABELS_MAX:
                self._labels.add(label)
            self.counts[f"class:{label if label in self._labels else _OTHER}"] += 1

    def _add_values(self, values: Array) -> None:
        numbers = values[:: -(-len(values) // VALUES_MAX)].astype(np.float64)
        finite = numbers[np.isfinite(numbers)]
        self.rows += len(numbers)
        self.bad += len(numbers) - len(finite)
        sizes = np.abs(finite)
        zeros = int((sizes == 0).sum())
        if zeros:
            self.counts["zero"] += zeros
        for sign, chosen in (("", sizes[finite > 0]), ("~", sizes[finite < 0])):
            buckets = np.clip(np.ceil(np.log(chosen) / _LOG), -_CLAMP, _CLAMP).astype(np.int64)
            for bucket, count in zip(*np.unique(buckets, return_counts=True), strict=True):
                self.counts[f"value:{sign}{bucket}"] += int(count)


def best_share(output: Array) -> float | None:
    """Give the least score of any row's best class; ``None``: these are no scores of classes."""
    if output.size == 0 or not _are_scores(output):
        return None
    with np.errstate(all="ignore"):
        rows = output.reshape(-1, output.shape[-1])[:ROWS_MAX].astype(np.float32)
        best = rows.argmax(axis=1)
        shares = [_probability(row, int(each)) for row, each in zip(rows, best, strict=True)]
    return min(shares)


def _are_scores(output: Array) -> bool:
    is_wide = output.ndim > 1 and 1 < output.shape[-1] <= CLASSES_MAX
    return is_wide and output.dtype.kind == "f"


def _are_labels(output: Array) -> bool:
    """Tell whether an output holds classes' numbers, and not measurements or pictures."""
    if output.dtype.kind not in "iu" or output.size > ROWS_MAX:
        return False
    return bool(output.min() >= 0 and output.max() < CLASSES_MAX)


def _probability(row: NDArray[np.float32], best: int) -> float:
    """Give the best class's score as a share of all: as it is where the row is one already."""
    if row.min() >= 0 and abs(float(row.sum()) - 1) < _UNIT_TOLERANCE:
        return min(1.0, float(row[best]))
    return float(1 / np.exp(row - row[best]).sum())
