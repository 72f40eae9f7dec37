"""The outputs of two versions of a model for the same input, beside each other.

Every output is compared by rows, and the share of rows that agree is what counts: a request of
many rows is one sample, not many. What a row is and when it agrees:

- scores of classes (floats of two axes and several columns, or an output with labels, unless the
  manifest says otherwise): each last axis is a row; the highest score is at the same place;
- other floats of several columns: the first axis; the cosine reaches the manifest's floor;
- floats of one column, of which a cosine would only see the sign: the closeness
  ``1 - (a - b)^2 / (2 + a^2 + b^2)`` reaches that floor. It ranges from -1 to 1, too, and compares
  numbers below 1 by their difference and large ones by their ratio;
- everything else (integers, booleans, text): equal.

Rows that are the same, or within the bundle's tolerance, always agree. NaN equals NaN. A row in
which the candidate has NaN or infinity and the active version a number never agrees. Pure, and
never raises, whatever the arrays are: a candidate may give anything.
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_runtime.datatypes import BF16, BYTES
from edge_runtime.manifest import Comparison as Rules
from edge_runtime.manifest import Tolerance
from edge_runtime.tensors import VARIABLE, Array, TensorSpec

_Bools = NDArray[np.bool_]
_Floats = NDArray[np.float64]

_NUMBERS: Final = "biuf"
_ONE_BY_ONE: Final = "OSTU"
_PLAIN: Final = frozenset({str, bytes, bool, int, float, type(None)})
_BF16_BITS: Final = np.uint32(16)
_TABLE_AXES: Final = 2


class OutputComparison(msgspec.Struct, frozen=True, kw_only=True):
    """One output of both versions; every number is finite.

    Attributes:
        name: The output's name.
        agreement: Share of rows that agree, 0 to 1; 1 if there are none.
        top1_agreement: Share of rows whose highest score is at the same place, 0 to 1; ``None``:
            not scores of classes.
        cosine: Lowest cosine of a row, or closeness where there is one column; ``None``: not
            floats, or no number in both.
        max_abs_difference: Largest difference where both are numbers, in the output's unit;
            ``None``: there is none, or it is beyond any float.
        candidate_bad: The candidate has NaN or infinity where the active version has a number.
        problem: Why the values could not be compared, in words; empty: they were.
    """

    name: str
    agreement: float = 0.0
    top1_agreement: float | None = None
    cosine: float | None = None
    max_abs_difference: float | None = None
    candidate_bad: bool = False
    problem: str = ""

    @property
    def agrees(self) -> bool:
        """Whether every row agrees."""
        return self.agreement >= 1


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All outputs of both versions for one input.

    Attributes:
        outputs: In the model's order.
    """

    outputs: tuple[OutputComparison, ...] = ()

    @property
    def agreement(self) -> float:
        """Share of rows that agree, of the output where they do least: what evidence counts."""
        return min((output.agreement for output in self.outputs), default=1.0)

    @property
    def agrees(self) -> bool:
        """Whether every row of every output agrees."""
        return self.agreement >= 1

    @property
    def is_bad(self) -> bool:
        """Whether the candidate has NaN or infinity where the active version has a number."""
        return any(output.candidate_bad for output in self.outputs)


def compare(
    active: Sequence[Array],
    candidate: Sequence[Array],
    outputs: Sequence[TensorSpec],
    rules: Rules,
    tolerances: Sequence[Tolerance] = (),
) -> Comparison:
    """Compare what both versions gave for one input.

    Args:
        active: The active version's outputs, in the model's order, of any shape and datatype.
        candidate: The candidate's.
        outputs: What the model declares, in the same order.
        rules: The manifest's.
        tolerances: The manifest's tolerances of goldens; within them values are the same.
    """
    allowed = {tolerance.output: tolerance for tolerance in tolerances}
    found = []
    for index, (ours, theirs, declared) in enumerate(zip_longest(candidate, active, outputs)):
        spec = declared or TensorSpec(f"output {index}", BYTES, ())
        if ours is None or theirs is None:
            who = "candidate" if ours is None else "active version"
            found.append(OutputComparison(name=spec.name, problem=f"is not given by the {who}"))
            continue
        tolerance = allowed.get(spec.name) or allowed.get("") or Tolerance()
        found.append(_compared(spec, np.asarray(theirs), np.asarray(ours), rules, tolerance))
    return Comparison(outputs=tuple(found))


def _compared(
    spec: TensorSpec, active: Array, candidate: Array, rules: Rules, tolerance: Tolerance
) -> OutputComparison:
    problem = ""
    if active.dtype != candidate.dtype:
        problem = f"is {candidate.dtype}, the active version's {active.dtype}"
    elif active.shape != candidate.shape:
        problem = f"has shape {list(candidate.shape)}, the active version's {list(active.shape)}"
    if problem:
        return OutputComparison(name=spec.name, problem=problem)
    if not active.size:
        return OutputComparison(name=spec.name, agreement=1.0)
    if active.dtype.kind not in _NUMBERS:
        rows = _row_count(active.shape, spec)
        same = _same_text(active, candidate).reshape(rows, -1).all(axis=1)
        return OutputComparison(name=spec.name, agreement=float(same.mean()))
    with np.errstate(all="ignore"):  # whatever comes of it is looked at
        values = _Values.of(active, candidate, spec, tolerance)
        return _numbers_compared(spec, values, rules)


def _numbers_compared(spec: TensorSpec, values: "_Values", rules: Rules) -> OutputComparison:
    shape = values.same.shape
    in_rows = values.by(_row_count(shape, spec))
    agree = np.zeros(len(in_rows.same), np.bool_)
    top1 = cosine = None
    if values.is_float and values.known.any():
        likeness = _likeness(in_rows)
        cosine = float(likeness.min())
        agree = (likeness >= rules.cosine_floor) & ~in_rows.odd.any(axis=1)
    if _is_scores(spec, values, rules):
        in_rows = values.by(values.same.size // shape[-1])
        agree = _same_place(in_rows)
        top1 = _share(agree)
    return OutputComparison(
        name=spec.name,
        agreement=_share((agree | in_rows.same.all(axis=1)) & ~in_rows.bad.any(axis=1)),
        top1_agreement=top1,
        cosine=cosine,
        max_abs_difference=values.max_abs_difference(),
        candidate_bad=bool(values.bad.any()),
    )


class _Values(NamedTuple):
    """Numbers of both versions; all of one shape.

    Attributes:
        active: As float64.
        candidate: As float64.
        same: Equal, both NaN, or within the tolerance.
        kind: Of numpy's datatype: ``b``, ``i``, ``u`` or ``f``.
    """

    active: _Floats
    candidate: _Floats
    same: _Bools
    kind: str

    @classmethod
    def of(
        cls, active: Array, candidate: Array, spec: TensorSpec, tolerance: Tolerance
    ) -> "_Values":
        """Take numbers out of arrays of any numeric datatype."""
        if spec.datatype is BF16 and active.dtype == np.uint16:
            active, candidate = _from_bf16(active), _from_bf16(candidate)
        theirs, ours = active.astype(np.float64), candidate.astype(np.float64)
        # Integers before they lose digits.
        same = np.asarray(active == candidate, np.bool_) | (np.isnan(ours) & np.isnan(theirs))
        if tolerance.atol or tolerance.rtol:
            near = np.abs(ours - theirs) <= tolerance.atol + tolerance.rtol * np.abs(theirs)
            same |= near & np.isfinite(ours) & np.isfinite(theirs)
        return cls(theirs, ours, np.asarray(same), active.dtype.kind)

    @property
    def is_float(self) -> bool:
        """Whether they can be something else than a number."""
        return self.kind == "f"

    @property
    def known(self) -> _Bools:
        """Where both are numbers."""
        return np.isfinite(self.active) & np.isfinite(self.candidate)

    @property
    def bad(self) -> _Bools:
        """Where the candidate alone is none."""
        return np.isfinite(self.active) & ~np.isfinite(self.candidate)

    @property
    def odd(self) -> _Bools:
        """Where one of them is no number and the other is something else."""
        return ~self.known & ~self.same

    def by(self, rows: int) -> "_Values":
        """Arrange them in rows."""
        return _Values(
            self.active.reshape(rows, -1),
            self.candidate.reshape(rows, -1),
            self.same.reshape(rows, -1),
            self.kind,
        )

    def max_abs_difference(self) -> float | None:
        """Find the largest difference where both are numbers."""
        known = self.known
        if not known.any():
            return None
        largest = float(np.abs(self.active[known] - self.candidate[known]).max())
        return largest if np.isfinite(largest) else None


def _is_scores(spec: TensorSpec, values: _Values, rules: Rules) -> bool:
    """Tell whether the last axis holds scores of classes."""
    shape = values.same.shape
    columns = shape[-1] if shape else 1
    if columns == 1 or values.kind == "b" or rules.compare_top is False:
        return False
    if len(spec.labels) == columns:
        return True
    is_table = len(shape) == _TABLE_AXES
    if rules.compare_top is None:
        return values.is_float and is_table
    return values.is_float or len(shape) >= _TABLE_AXES


def _row_count(shape: tuple[int, ...], spec: TensorSpec) -> int:
    """Count rows: the first axis, unless it is all there is and of a fixed size: one vector."""
    if len(shape) >= _TABLE_AXES or (shape and spec.shape[:1] == (VARIABLE,)):
        return shape[0]
    return 1


def _same_place(values: _Values) -> _Bools:
    """Tell for each row whether the highest score is at the same place."""
    places = [
        np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)
        for scores in (values.active, values.candidate)
    ]
    return np.asarray(places[0] == places[1], np.bool_)


def _likeness(values: _Values) -> _Floats:
    """Measure for each row how alike both are, -1 to 1: cosine, or closeness of single numbers."""
    known = values.known
    active = np.where(known, values.active, 0.0)
    candidate = np.where(known, values.candidate, 0.0)
    if active.shape[1] == 1:
        # Divided by the larger one, so that no square overflows.
        scale = np.maximum(np.maximum(np.abs(active), np.abs(candidate)), 1.0)
        ours, theirs = candidate / scale, active / scale
        spread = 2.0 / scale / scale + ours**2 + theirs**2
        return np.asarray((1.0 - (ours - theirs) ** 2 / spread)[:, 0])
    theirs, ours = _unit(active), _unit(candidate)
    both_zero = ~theirs.any(axis=1) & ~ours.any(axis=1)
    return np.where(both_zero, 1.0, np.clip((ours * theirs).sum(axis=1), -1.0, 1.0))


def _unit(rows: _Floats) -> _Floats:
    """Scale each row to length 1, by its largest number first, so that no square overflows."""
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows = rows / np.where(largest == 0, 1.0, largest)
    length = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    return np.asarray(rows / np.where(length == 0, 1.0, length))


def _from_bf16(bits: Array) -> Array:
    return np.asarray((bits.astype(np.uint32) << _BF16_BITS).view(np.float32))


def _same_text(active: Array, candidate: Array) -> _Bools:
    """Compare what is no number, element by element where it can be."""
    if active.dtype.kind not in _ONE_BY_ONE:
        return np.full(active.shape, active.tobytes() == candidate.tobytes())
    pairs = zip(active.reshape(-1).tolist(), candidate.reshape(-1).tolist(), strict=True)
    return np.fromiter(
        (_is_same(left, right) for left, right in pairs), np.bool_, active.size
    ).reshape(active.shape)


def _is_same(left: object, right: object) -> bool:
    """Compare two elements without calling what a stranger's type defines as equality."""
    if type(left) is not type(right) or type(left) not in _PLAIN:
        return left is right
    return left == right or (left != left and right != right)  # noqa: PLR0124 - NaN


def _share(rows: _Bools) -> float:
    return float(rows.mean())
