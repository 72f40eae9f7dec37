"""Tries out, when a version is loaded, whether its requests may share runs, and whether it pays.

Three questions, cheapest first: do inputs and outputs share a varying first axis; does every row
get the answer that it gets alone, whatever its neighbours are; does a joined run beat single ones.
The second one matters: a dynamically quantized model scales each run by its largest value, so a
loud neighbour changes the answers of all others.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain
from time import perf_counter_ns
from typing import Final, NamedTuple

import numpy as np

from edge_runtime.batching import RowCap, Verdict
from edge_runtime.datatypes import BF16, Datatype
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.operators import COUPLE_ROWS
from edge_runtime.settings import Batching
from edge_runtime.tensors import Array, Signature

_NS: Final = 1e9
_LOUD: Final = (1e4, 100.0)  # of the neighbour that must not change anybody's answer
_STRANGE: Final = (math.nan, -1e4, math.inf)  # all of its values, where they are floats
_TRIED_MIN: Final = 3  # neighbours that are tried even where time is short
_PARTS: Final = (1, 2, 1, 1, 3)  # rows of the requests that are joined: uneven on purpose
_FEW_PARTS: Final = (1, 1)  # for models so slow that more would delay the start
_LOUD_PART: Final = 1  # its place among them
_REPEATS_MIN: Final = 3
_REPEATS_MAX: Final = 15
_HALF_PRECISION: Final = 100.0  # times the tolerance
_HALVES: Final = frozenset({"FP16", "BF16"})

Run = Callable[[Sequence[str], Mapping[str, Array]], list[Array]]
Synthetic = Callable[[int, int, float], dict[str, Array]]


class _Times(NamedTuple):
    """Best times of one row and of all rows joined, in nanoseconds, and how many that is."""

    single_ns: float
    joined_ns: float
    rows: int

    @property
    def gain(self) -> float:
        """Rows per second of the joined run over those of single ones."""
        return self.rows * self.single_ns / max(self.joined_ns, 1.0)

    def within(self, ns: float) -> int:
        """Rows of a run that is expected to take no longer than ``ns``."""
        slope = (self.joined_ns - self.single_ns) / (self.rows - 1)
        if slope <= 0:
            return self.rows
        return max(1, int(1 + (ns - self.single_ns) / slope))


def probe(
    run: Run,
    signature: Signature,
    synthetic: Synthetic,
    *,
    settings: Batching,
    rows_max: int,
    operators: Collection[str] = (),
) -> Verdict:
    """Find out whether requests of a version may share runs.

    Args:
        run: The loaded session's; it has been warmed up.
        signature: What the model takes and gives.
        synthetic: ``synthetic(rows, seed, amplitude)`` gives inputs of so many rows.
        settings: Objective, tolerance and least gain.
        rows_max: Most rows of a joined run that the bundle and the configuration allow.
        operators: What the model is made of.
    """
    coupling = sorted(COUPLE_ROWS.intersection(operators))
    if not settings.enabled or rows_max == 1:
        return Verdict(joins=False, reason="switched off by the configuration or the bundle")
    if not signature.batchable:
        fixed = _fixed(signature)
        return Verdict(joins=False, reason=f"{fixed} has no varying first axis")
    if coupling:
        return Verdict(
            joins=False,
            reason=f"a neighbour changes the answer: {', '.join(coupling)} scales a run by its "
            "largest value (quantize statically to share runs)",
        )
    try:
        return _tried(run, signature, synthetic, settings, rows_max)
    except EdgeRuntimeError as error:
        # Inputs made up by us may be nonsense for the model: that says nothing against it.
        return Verdict(joins=False, reason=f"the probe's inputs do not suit it: {error.message}")


def cap(verdict: Verdict, settings: Batching, rows_max: int) -> RowCap:
    """Make the limit of rows that a version begins with.

    Args:
        verdict: What the probe found.
        settings: Objective and most rows.
        rows_max: As for ``probe``.
    """
    return RowCap(settings.latency_objective_s * _NS, verdict.rows, rows_max)


def _fixed(signature: Signature) -> str:
    for spec in signature.inputs:
        if spec.shape[:1] != (-1,):
            return f"input {spec.name!r}"
    return f"output {next(s.name for s in signature.outputs.values() if s.shape[:1] != (-1,))!r}"


def _tried(
    run: Run, signature: Signature, synthetic: Synthetic, settings: Batching, rows_max: int
) -> Verdict:
    names = list(signature.outputs)
    one = synthetic(1, 0, 1.0)
    single_ns = _time(run, names, [one])
    objective_ns = settings.latency_objective_s * _NS
    if single_ns > objective_ns:  # perhaps others had the CPU: a second chance
        single_ns = min(single_ns, _time(run, names, [one]))
    if single_ns > objective_ns:
        return Verdict(
            joins=False,
            reason=f"one row takes {single_ns / _NS:.3g} s, more than the objective of a joined "
            f"run ({settings.latency_objective_s:.3g} s)",
        )
    budget_ns = settings.probe_budget_s * _NS
    can_be_many = rows_max >= sum(_PARTS) and single_ns * 2 * sum(_PARTS) < budget_ns
    parts = _PARTS if can_be_many else _FEW_PARTS
    feeds = [synthetic(rows, seed, 1.0) for seed, rows in enumerate(parts)]
    rows = sum(parts)
    alone = [run(names, each) for each in feeds]
    until = perf_counter_ns() + budget_ns
    quiet = _Neighbour(feeds[_LOUD_PART], alone[_LOUD_PART])
    others = _neighbours(synthetic, quiet.feeds, run, names)
    for tried, neighbour in enumerate(chain((quiet,), others)):
        if tried >= _TRIED_MIN and perf_counter_ns() > until:
            break
        difference = _changed_by(
            neighbour,
            run,
            names,
            signature,
            feeds=feeds,
            alone=alone,
            parts=parts,
            tolerance=settings.tolerance,
        )
        if difference:
            return Verdict(joins=False, reason=difference)
    times = _timed(run, names, one, feeds, rows=rows, budget_ns=budget_ns)
    takes = f"{rows} rows joined give {times.gain:.2f} x the rows per second of single runs"
    if times.gain < settings.min_gain:
        return Verdict(joins=False, reason=f"does not pay: {takes}", gain=times.gain)
    start = min(rows_max, times.within(0.9 * objective_ns))
    reason = f"the same answers joined or alone; {takes}"
    return Verdict(joins=True, reason=reason, gain=times.gain, rows=start)


class _Neighbour(NamedTuple):
    """Inputs that must not change anybody else's answer.

    Attributes:
        feeds: Arrays by input name.
        answer: What they give alone; ``None``: that means nothing.
    """

    feeds: Mapping[str, Array]
    answer: Sequence[Array] | None


def _neighbours(
    synthetic: Synthetic, quiet: Mapping[str, Array], run: Run, names: Sequence[str]
) -> Iterator[_Neighbour]:
    """Give neighbours that the model takes at all, the most telling ones first."""
    rows = next(iter(quiet.values())).shape[0]
    floats = [name for name, array in quiet.items() if array.dtype.kind == "f"]
    for value in _STRANGE if floats else ():
        strange = {name: np.full_like(quiet[name], value) for name in floats}
        feeds = {**quiet, **strange}
        if _answer(run, names, feeds) is not None:
            # What becomes of NaN itself may depend on its place in a vector register.
            yield _Neighbour(feeds, None)
    for amplitude in _LOUD:
        feeds = synthetic(rows, _LOUD_PART, amplitude)
        answer = _answer(run, names, feeds)
        if answer is not None:
            yield _Neighbour(feeds, answer)


def _answer(run: Run, names: Sequence[str], feeds: Mapping[str, Array]) -> list[Array] | None:
    """Run on values that may be nothing for a model; ``None`` if they are."""
    try:
        return run(names, feeds)
    except EdgeRuntimeError:
        return None


def _changed_by(
    neighbour: _Neighbour,
    run: Run,
    names: Sequence[str],
    signature: Signature,
    *,
    feeds: Sequence[Mapping[str, Array]],
    alone: Sequence[Sequence[Array]],
    parts: Sequence[int],
    tolerance: float,
) -> str:
    """Say what a neighbour in the same run changes; empty if nothing."""
    expected: list[Sequence[Array] | None] = [*alone]
    expected[_LOUD_PART] = neighbour.answer
    together = [*feeds]
    together[_LOUD_PART] = neighbour.feeds
    return _differs(
        names,
        signature,
        parts=parts,
        alone=expected,
        together=run(names, _joined(together)),
        tolerance=tolerance,
    )


def _joined(feeds: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([each[name] for each in feeds]) for name in feeds[0]}


def _differs(
    names: Sequence[str],
    signature: Signature,
    *,
    parts: Sequence[int],
    alone: Sequence[Sequence[Array] | None],
    together: Sequence[Array],
    tolerance: float,
) -> str:
    """Say where a joined answer is not the single one; empty if nowhere."""
    for position, name in enumerate(names):
        output = together[position]
        if output.shape[:1] != (sum(parts),):
            return f"output {name!r} does not have a row for each row of input"
        start = 0
        for rows, answers in zip(parts, alone, strict=True):
            found = output[start : start + rows]
            start += rows
            if answers is None:
                continue
            expected = answers[position]
            if found.shape != expected.shape:
                return f"output {name!r} has another shape when runs are joined"
            datatype = signature.outputs[name].datatype
            share = _difference(found, expected, datatype)
            if share > tolerance * (_HALF_PRECISION if datatype.name in _HALVES else 1.0):
                by = f" by {share:.2g} of its largest value" if math.isfinite(share) else ""
                return (
                    f"a neighbour changes the answer: output {name!r} differs{by} when runs are "
                    "joined"
                )
    return ""


def _difference(found: Array, expected: Array, datatype: Datatype) -> float:
    """Give the largest difference as a share of the largest value; infinite for other kinds."""
    if datatype is BF16:
        found, expected = _widened(found), _widened(expected)
    if found.dtype.kind != "f":
        return 0.0 if np.array_equal(found, expected) else math.inf
    finite = np.isfinite(expected)
    if not np.array_equal(np.isfinite(found), finite) or not np.array_equal(
        found[~finite], expected[~finite], equal_nan=True
    ):
        return math.inf
    if not finite.any():
        return 0.0
    wide = expected[finite].astype(np.float64)
    error = np.abs(found[finite].astype(np.float64) - wide).max()
    return float(error / max(np.abs(wide).max(), np.finfo(np.float32).tiny))


def _widened(bits: Array) -> Array:
    """Give BF16, which numpy does not know, as FP32."""
    return (bits.astype("<u4") << np.uint32(16)).view("<f4")


def _timed(
    run: Run,
    names: Sequence[str],
    one: Mapping[str, Array],
    feeds: Sequence[Mapping[str, Array]],
    *,
    rows: int,
    budget_ns: float,
) -> _Times:
    """Time single and joined runs in turn, joining included, for as long as the budget allows."""
    single: list[int] = []
    joined: list[int] = []
    until = perf_counter_ns() + budget_ns
    while len(joined) < _REPEATS_MIN or (len(joined) < _REPEATS_MAX and perf_counter_ns() < until):
        single.append(_time(run, names, [one]))
        joined.append(_time(run, names, feeds))
    # The best of each: loading has to stand back, so a busy device interrupts many of them.
    return _Times(min(single), min(joined), rows)


def _time(run: Run, names: Sequence[str], feeds: Sequence[Mapping[str, Array]]) -> int:
    started = perf_counter_ns()
    run(names, feeds[0] if len(feeds) == 1 else _joined(feeds))
    return perf_counter_ns() - started
