"""Counters: what is added, and Triton's statistics made of it."""

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.api.answers import model_statistics
from edge_runtime.metrics import (
    DURATION_BUCKETS_S,
    ROWS_MAX,
    Durations,
    VersionStatistics,
)
from edge_runtime.routing import LoadedVersion
from tests.fakes import FakeLoader, bundle

DURATIONS = st.integers(0, 10**11)
STEPS = st.lists(st.integers(0, 10**9), min_size=4, max_size=4)
RUNS = st.lists(  # requests that share it, rows of each, times
    st.tuples(st.integers(1, 5), st.integers(0, 700), STEPS), max_size=20
)


def version(name: str = "m", number: int = 1) -> LoadedVersion:
    return FakeLoader()(bundle(name, number))


@given(st.lists(DURATIONS, max_size=50))
def test_every_duration_is_in_one_bucket_that_holds_it(seen: list[int]) -> None:
    durations = Durations()
    for ns in seen:
        before = list(durations.buckets)
        durations.add(ns)
        (index,) = (i for i, count in enumerate(durations.buckets) if count != before[i])
        if index < len(DURATION_BUCKETS_S):
            assert ns / 1e9 <= DURATION_BUCKETS_S[index]
        assert index == 0 or ns / 1e9 >= DURATION_BUCKETS_S[index - 1] * (1 - 1e-9)
    assert durations.count == len(seen) == sum(durations.buckets)
    assert durations.ns == sum(seen)


@given(RUNS, st.integers(0, 5))
def test_statistics_add_up(runs: list[tuple[int, int, list[int]]], failures: int) -> None:
    counters = VersionStatistics()
    for requests, rows, (input_ns, queue_ns, infer_ns, output_ns) in runs:
        times = requests * input_ns, infer_ns, output_ns
        counters.ran(requests, requests * rows, *times)
        for _ in range(requests):
            spent = input_ns + queue_ns + infer_ns + output_ns
            counters.answered(queue_ns, 1000, 1000 + spent)
    for _ in range(failures):
        counters.failed("OTHER", 7)
    loaded = version()
    loaded.lane.statistics = counters
    told = model_statistics(loaded)
    stats = told.inference_stats
    answered = sum(requests for requests, _, _ in runs)
    assert told.inference_count == sum(requests * rows for requests, rows, _ in runs)
    assert told.execution_count == stats.compute_infer.count == len(runs)
    assert stats.success.count == stats.queue.count == answered
    assert (stats.fail.count, stats.fail.ns) == (failures, 7 * failures)
    assert stats.success.ns == sum(requests * sum(steps) for requests, _, steps in runs)
    assert stats.queue.ns == sum(requests * steps[1] for requests, _, steps in runs)
    assert counters.joined == sum(requests for requests, _, _ in runs if requests > 1)
    for kind in ("compute_input", "compute_infer", "compute_output"):
        whole = getattr(stats, kind)
        batches = [getattr(batch, kind) for batch in told.batch_stats]
        assert sum(each.count for each in batches) == whole.count
        assert sum(each.ns for each in batches) == whole.ns
    assert all(batch.batch_size <= ROWS_MAX for batch in told.batch_stats)
    assert (told.last_inference > 0) == bool(answered)


@given(st.lists(st.integers(0, 5000), max_size=50))
def test_sizes_of_runs_are_told_apart_and_are_bounded(sizes: list[int]) -> None:
    loaded = version()
    for rows in sizes:
        loaded.statistics.ran(1, rows, 0, 1, 0)
    told = {batch.batch_size: batch for batch in model_statistics(loaded).batch_stats}
    assert told.keys() == {min(rows, ROWS_MAX) for rows in sizes}
    for size, batch in told.items():
        expected = sum(min(rows, ROWS_MAX) == size for rows in sizes)
        assert batch.compute_infer.count == batch.compute_infer.ns == expected
