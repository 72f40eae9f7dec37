"""Counters, and the Prometheus text made of them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from edge_runtime.api.answers import model_statistics
from edge_runtime.api.exposition import exposition
from edge_runtime.metrics import (
    DURATION_BUCKETS_S,
    ROWS_MAX,
    Durations,
    ServerStatistics,
    VersionStatistics,
)
from edge_runtime.routing import LoadedVersion
from tests.fakes import FakeLoader, bundle

if TYPE_CHECKING:
    from edge_runtime.catalog import Catalog

DURATIONS = st.integers(0, 10**11)
STEPS = st.lists(st.integers(0, 10**9), min_size=5, max_size=5)


class Loaded:
    """As much of a catalog as the exposition reads."""

    def __init__(self, *versions: LoadedVersion) -> None:
        self._versions = list(versions)

    def loaded(self) -> list[LoadedVersion]:
        """List them."""
        return self._versions


def families(*versions: LoadedVersion, server: ServerStatistics | None = None) -> list[Metric]:
    text = exposition(cast("Catalog", Loaded(*versions)), server or ServerStatistics(0.0)).decode()
    return list(text_string_to_metric_families(text))


def samples(found: list[Metric], name: str, **labels: str) -> Iterator[float]:
    for family in found:
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                yield sample.value


def value(found: list[Metric], name: str, **labels: str) -> float:
    (only,) = samples(found, name, **labels)
    return only


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


@given(st.lists(st.tuples(st.integers(0, 5000), STEPS), max_size=20), st.integers(0, 5))
def test_statistics_add_up(answered: list[tuple[int, list[int]]], failures: int) -> None:
    counters = VersionStatistics()
    for rows, steps in answered:
        times = [1000]
        for step in steps:
            times.append(times[-1] + step)
        counters.succeeded(rows, *times[1:])
    for _ in range(failures):
        counters.failed("OTHER", 7)
    loaded = version()
    loaded.statistics = counters
    told = model_statistics(loaded)
    stats = told.inference_stats
    assert told.inference_count == sum(rows for rows, _ in answered)
    assert told.execution_count == stats.success.count == len(answered)
    assert (stats.fail.count, stats.fail.ns) == (failures, 7 * failures)
    parts = (stats.compute_input, stats.queue, stats.compute_infer, stats.compute_output)
    assert stats.success.ns == sum(part.ns for part in parts)
    for kind in ("compute_input", "compute_infer", "compute_output"):
        whole = getattr(stats, kind)
        batches = [getattr(batch, kind) for batch in told.batch_stats]
        assert sum(each.count for each in batches) == whole.count
        assert sum(each.ns for each in batches) == whole.ns
    assert all(batch.batch_size <= ROWS_MAX for batch in told.batch_stats)
    assert (told.last_inference > 0) == bool(answered)


def test_metrics_tell_versions_apart() -> None:
    first, second = version("m", 1), version("m", 2)
    first.statistics.succeeded(3, 0, 1000, 3000, 1_003_000, 1_004_000)
    second.statistics.failed("BACKEND", 5)
    second.leases = 4
    found = families(first, second)
    name = "edge_runtime_request_duration_seconds"
    assert value(found, f"{name}_count", model="m", version="1") == 1
    assert value(found, f"{name}_sum", model="m", version="1") == 0.001004
    assert value(found, f"{name}_count", model="m", version="2") == 0
    assert value(found, "edge_runtime_inference_rows_total", version="1") == 3
    assert value(found, "edge_runtime_request_failures_total", reason="BACKEND") == 1
    assert value(found, "edge_runtime_requests_in_flight", version="2") == 4


@given(st.lists(DURATIONS, max_size=30))
def test_histogram_is_cumulative_and_ends_with_everything(seen: list[int]) -> None:
    loaded = version()
    for ns in seen:
        loaded.statistics.success.add(ns)
    found = families(loaded)
    buckets = list(samples(found, "edge_runtime_request_duration_seconds_bucket"))
    assert buckets == sorted(buckets)
    assert len(buckets) == len(DURATION_BUCKETS_S) + 1
    assert buckets[-1] == len(seen)
    one_second = value(found, "edge_runtime_request_duration_seconds_bucket", le="1.048576")
    assert one_second == sum(ns < 1_048_576_000 for ns in seen)


def test_label_that_needs_escaping_is_read_back_as_it_was() -> None:
    loaded = version()
    loaded.statistics.failed('"quoted"\n\\', 1)
    (count,) = samples(families(loaded), "edge_runtime_request_failures_total")
    assert count == 1


def test_server_metrics_are_there_without_any_model() -> None:
    server = ServerStatistics(1234.5)
    server.responses = {200: 7, 503: 1}
    server.connections_total, server.connections_open, server.connections_refused = 9, 2, 1
    found = families(server=server)
    assert value(found, "edge_runtime_http_responses_total", status="200") == 7
    assert value(found, "edge_runtime_http_responses_total", status="503") == 1
    assert value(found, "edge_runtime_connections") == 2
    assert value(found, "edge_runtime_connections_accepted_total") == 9
    assert value(found, "edge_runtime_connections_refused_total") == 1
    assert value(found, "edge_runtime_start_time_seconds") == 1234.5
