"""What a model answers to golden inputs, beside what it must answer."""

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
import numpy as np

from edge_runtime.datatypes import BF16
from edge_runtime.goldens.files import Golden
from edge_runtime.manifest import Manifest, Tolerance
from edge_runtime.tensors import Array

_BF16_BITS: Final = np.uint32(16)


class Distance(NamedTuple):
    """How far an output is from the golden one.

    Attributes:
        beyond: Largest ``|found - expected| - rtol * |expected|``, in the output's unit; infinite
            where shapes differ or only one of both is a number.
        row: Where that is, along the first axis.
        problem: What is wrong besides numbers, in words; empty: nothing.
    """

    beyond: float
    row: int = 0
    problem: str = ""


class OutputCheck(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One output of one golden, beside what a model gave.

    Attributes:
        golden: Name of the golden.
        output: Name of the output.
        beyond: Largest distance from the golden less the relative tolerance, in the output's
            unit; ``None``: there is no such number, see ``problem``.
        row: Where that is, along the first axis.
        allowed: Largest one allowed, in the output's unit.
        passed: Whether it is allowed.
        problem: What is wrong, in words; empty: nothing.
    """

    golden: str
    output: str
    beyond: float | None
    row: int
    allowed: float
    passed: bool
    problem: str = ""

    @property
    def sentence(self) -> str:
        """What is wrong and where, for a person; only of one that has not passed."""
        return f"{self.golden}: output {self.output!r} {self.problem} (row {self.row})"


def check_outputs(
    golden: Golden, found: Mapping[str, Array], manifest: Manifest
) -> list[OutputCheck]:
    """Compare a model's answers with the golden ones, as far as the manifest asks for it.

    Args:
        golden: What the answers must be; its outputs that no tolerance is for are not compared.
        found: Arrays by output name, as the model gave them.
        manifest: Has the tolerances, and tells which outputs are BF16.

    Returns:
        One check per output that is compared, in the golden's order. All passed: it is good.
    """
    tolerances = {each.output: each for each in manifest.acceptance.tolerances}
    bf16 = {each.name for each in manifest.outputs if each.datatype == BF16.name}
    checks = []
    for name, expected in golden.outputs.items():
        tolerance = tolerances.get(name) or tolerances.get("")
        if tolerance is None:
            continue
        ours = found.get(name)
        if ours is None:
            far = Distance(np.inf, 0, "is not given by the model")
        elif name in bf16:
            far = distance(_numbers(ours), _numbers(expected), tolerance.rtol)
        else:
            far = distance(ours, expected, tolerance.rtol)
        checks.append(_checked(golden.name, name, far, tolerance))
    return checks


def distance(found: Array, expected: Array, rtol: float = 0.0) -> Distance:
    """Measure how far an output is from the golden one.

    Args:
        found: What the model gave, of any datatype but BF16's bits.
        expected: What the golden holds.
        rtol: Relative part that is allowed anyway, a ratio.

    Returns:
        Where it is farthest off. Places where both are not a number, or the same infinity, are
        equal.
    """
    if found.dtype != expected.dtype:
        return Distance(np.inf, 0, f"is {found.dtype}, the golden {expected.dtype}")
    if found.shape != expected.shape:
        return Distance(
            np.inf, 0, f"has shape {list(found.shape)}, the golden {list(expected.shape)}"
        )
    if not found.size:
        return Distance(0.0)
    if found.dtype.kind not in "biuf":
        return _text_distance(found, expected)
    allowed = rtol * np.abs(expected.astype(np.float64)) if rtol else np.float64(0)
    with np.errstate(invalid="ignore", over="ignore"):  # decided in the next lines
        gap = _gap(found, expected) - allowed
    same = found == expected
    if found.dtype.kind == "f":
        same |= np.isnan(found) & np.isnan(expected)
    gap = np.where(same, 0.0, np.where(np.isnan(gap), np.inf, gap))
    place = int(np.argmax(gap))
    row = int(np.unravel_index(place, gap.shape)[0]) if gap.ndim else 0
    return Distance(max(0.0, float(gap.reshape(-1)[place])), row)


def _gap(found: Array, expected: Array) -> Array:
    """Subtract, as float64; integers that differ by one do so at any size."""
    if found.dtype.kind in "iu":
        unsigned = found.dtype.str.replace("i", "u")
        above = np.maximum(found, expected).view(unsigned)
        gap: Array = above - np.minimum(found, expected).view(unsigned)
        return gap.astype(np.float64)
    return np.asarray(np.abs(found.astype(np.float64) - expected.astype(np.float64)))


def _text_distance(found: Array, expected: Array) -> Distance:
    """Compare what is no number: it is the same, or infinitely far."""
    differs = np.asarray(found != expected, bool)
    if not differs.any():
        return Distance(0.0)
    place = int(np.argmax(differs))
    row = int(np.unravel_index(place, differs.shape)[0]) if differs.ndim else 0
    return Distance(np.inf, row, "is another text than the golden")


def _checked(golden: str, output: str, far: Distance, tolerance: Tolerance) -> OutputCheck:
    passed = far.beyond <= tolerance.atol
    is_number = bool(np.isfinite(far.beyond))
    problem = far.problem
    if not passed and not problem:
        problem = (
            f"is {far.beyond:.4g} off, allowed are {tolerance.atol:.4g}"
            if is_number
            else "is not a number where the golden is one, or the other way round"
        )
    beyond = far.beyond if is_number else None
    return OutputCheck(
        golden=golden,
        output=output,
        beyond=beyond,
        row=far.row,
        allowed=tolerance.atol,
        passed=passed,
        problem=problem,
    )


def _numbers(array: Array) -> Array:
    """Turn BF16's bits into the numbers they are; other arrays stay, and show as a difference."""
    if array.dtype != np.dtype(BF16.numpy):
        return array
    numbers: Array = (array.astype("<u4") << _BF16_BITS).view("<f4")
    return numbers
