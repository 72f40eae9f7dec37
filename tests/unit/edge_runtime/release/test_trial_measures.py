"""Times and memory that are measured in the process of a trial, and the score over goldens."""

import os
import sys
import threading

import numpy as np
import pytest

from edge_runtime.datatypes import BY_NAME
from edge_runtime.goldens import Golden
from edge_runtime.manifest import Acceptance, Metric
from edge_runtime.release.golden_score import score
from edge_runtime.release.memory_peak import MemoryPeak
from edge_runtime.release.self_test import over_budget, unlike
from edge_runtime.release.stopwatch import Lap, timed, typical
from edge_runtime.session import release_memory
from edge_runtime.tensors import Signature, TensorSpec

MIB = 2**20
FP32 = BY_NAME["FP32"]


def test_time_of_others_is_not_ones_own() -> None:
    assert Lap(wall_s=0.5, cpu_s=0.1).own_s == 0.1  # others had the CPU
    assert Lap(wall_s=0.1, cpu_s=0.2).own_s == 0.1  # two threads worked at once


def test_waiting_is_not_ones_own_time() -> None:
    result, lap = timed(lambda: threading.Event().wait(0.05))
    assert result is False
    assert 0 < lap.cpu_s < lap.wall_s
    assert lap.own_s < 0.05 <= lap.wall_s


def test_typical_lap_is_the_median_and_none_is_0() -> None:
    laps = [Lap(3.0, 1.0), Lap(9.0, 9.0), Lap(2.0, 8.0)]
    assert typical(laps) == Lap(3.0, 2.0)
    assert typical([]) == Lap(0.0, 0.0)


def fill(mib: int) -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
    return np.ones(mib * MIB, np.uint8)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_peak_counts_what_was_freed_and_what_was_kept_but_not_what_is_between() -> None:
    release_memory()  # what earlier tests freed would be taken again, and add nothing
    peak = MemoryPeak()
    with peak.measured():
        kept = fill(24)
    between = fill(64)
    with peak.measured():
        freed = fill(40)
        del freed
    assert 60 * MIB <= peak.size_bytes < 80 * MIB
    assert kept[0] == between[0]


def test_what_adds_nothing_is_small() -> None:
    peak = MemoryPeak()
    with peak.measured():
        os.getpid()
    assert peak.size_bytes < 8 * MIB


def test_budgets_that_are_not_there_are_never_exceeded() -> None:
    assert over_budget(Acceptance(), 1e9, 2**60) == []
    budgets = Acceptance(latency_budget_s=0.002, memory_budget_bytes=3 * MIB)
    assert over_budget(budgets, 0.002, 3 * MIB) == []
    assert over_budget(budgets, 0.0, 0) == []  # not measured
    assert over_budget(budgets, 0.0021, 3 * MIB + 2**16) == [
        "a run takes 2.1 ms, the budget is 2 ms",
        "it adds 3.1 MiB of memory, the budget is 3.0 MiB",
    ]


def test_output_that_is_declared_otherwise_is_named() -> None:
    spec = TensorSpec("y", FP32, (-1, 2))
    assert not unlike(spec, np.zeros((7, 2), "<f4"))
    assert "has shape [2]; declared is [-1, 2]" in unlike(spec, np.zeros(2, "<f4"))
    assert unlike(spec, np.zeros((1, 3), "<f4"))


SIGNATURE = Signature([], [TensorSpec("few", FP32, (-1, 2)), TensorSpec("many", FP32, (-1, 3))])
SCORES = {"few": np.eye(2, dtype="<f4"), "many": np.eye(3, dtype="<f4")}


@pytest.mark.parametrize(
    ("metric", "labels", "problem", "note"),
    [
        (Metric("top1", 0.6), [0, 1, 0], "", "top1 over the goldens is 0.6667, the floor 0.6"),
        (Metric("top1", 0.7), [0, 1, 0], "is 0.6667, below the floor of 0.7", ""),
        (Metric("top1(few)", 1.0), [0, 1, 9], "", "top1(few) over the goldens is 1"),
        (Metric("top1(none)", 1.0), [0, 1, 2], "", "cannot be computed here"),
        (Metric("-mae", 1.0), [0, 1, 2], "", "cannot be computed here"),
        (Metric("top1", 1.0), None, "", "cannot be computed here"),
        (Metric("top1", 1.0), [0], "", "cannot be computed here"),
    ],
)
def test_score_is_compared_where_it_can_be_computed(
    metric: Metric, labels: list[int] | None, problem: str, note: str
) -> None:
    golden = Golden("g", {}, {}, None if labels is None else np.array(labels))
    found = score(metric, SIGNATURE, [(golden, SCORES)])
    assert bool(found[0]) is bool(problem)
    assert problem in found[0]
    assert note in found[1]
