"""The counters as Prometheus text. The library is imported at the first scrape, not before."""

from collections.abc import Iterator
from time import time
from typing import TYPE_CHECKING, Final

from edge_runtime import __version__
from edge_runtime.catalog import Catalog
from edge_runtime.metrics import DURATION_BUCKETS_S, Durations, ServerStatistics
from edge_runtime.routing import LoadedVersion
from edge_runtime.session import RUNTIME_VERSION

if TYPE_CHECKING:
    from prometheus_client.metrics_core import HistogramMetricFamily, Metric

CONTENT_TYPE: Final = "text/plain; version=1.0.0; charset=utf-8"
_NS: Final = 1e9
_VERSION: Final = ("model", "version")


def exposition(catalog: Catalog, server: ServerStatistics) -> bytes:
    """Render every metric.

    Args:
        catalog: The models and their counters.
        server: The daemon's counters.

    Returns:
        Prometheus text format, UTF-8.
    """
    from prometheus_client import (  # noqa: PLC0415 - 5 MB that nobody needs unscraped
        CollectorRegistry,
        ProcessCollector,
    )
    from prometheus_client.exposition import generate_latest  # noqa: PLC0415

    class Collector:
        def collect(self) -> Iterator["Metric"]:
            yield from _server_metrics(server)
            yield from _model_metrics(catalog.loaded())

    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)  # memory, CPU time and descriptors of this process
    registry.register(Collector())
    return generate_latest(registry)


def _server_metrics(server: ServerStatistics) -> Iterator["Metric"]:
    from prometheus_client.metrics_core import (  # noqa: PLC0415
        CounterMetricFamily,
        GaugeMetricFamily,
        InfoMetricFamily,
    )

    yield InfoMetricFamily(
        "edge_runtime_build",
        "Versions of the daemon and of ONNX Runtime.",
        {"version": __version__, "onnxruntime": RUNTIME_VERSION},
    )
    yield GaugeMetricFamily(
        "edge_runtime_start_time_seconds", "When the daemon started, Unix time.", server.started_s
    )
    yield GaugeMetricFamily(
        "edge_runtime_uptime_seconds", "Time since the start.", time() - server.started_s
    )
    yield GaugeMetricFamily(
        "edge_runtime_connections", "Connections open now.", server.connections_open
    )
    yield CounterMetricFamily(
        "edge_runtime_connections_accepted",
        "Connections accepted since the start.",
        server.connections_total,
    )
    yield CounterMetricFamily(
        "edge_runtime_connections_refused",
        "Connections turned away at limits.connections.",
        server.connections_refused,
    )
    responses = CounterMetricFamily(
        "edge_runtime_http_responses", "Answers by HTTP status.", labels=("status",)
    )
    for status, count in sorted(server.responses.items()):
        responses.add_metric((str(status),), count)
    yield responses


def _model_metrics(versions: list[LoadedVersion]) -> Iterator["Metric"]:
    from prometheus_client.metrics_core import (  # noqa: PLC0415
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    requests = HistogramMetricFamily(
        "edge_runtime_request_duration_seconds",
        "Answered requests, from decoded to written.",
        labels=_VERSION,
    )
    queue = HistogramMetricFamily(
        "edge_runtime_queue_duration_seconds", "Waiting for a run.", labels=_VERSION
    )
    compute = HistogramMetricFamily(
        "edge_runtime_compute_duration_seconds", "Runs of the model.", labels=_VERSION
    )
    failures = CounterMetricFamily(
        "edge_runtime_request_failures",
        "Failed requests by reason.",
        labels=(*_VERSION, "reason"),
    )
    rows = CounterMetricFamily("edge_runtime_inference_rows", "Rows inferred.", labels=_VERSION)
    load = GaugeMetricFamily(
        "edge_runtime_model_load_seconds", "How long the last load took.", labels=_VERSION
    )
    leases = GaugeMetricFamily(
        "edge_runtime_requests_in_flight", "Requests that use the version now.", labels=_VERSION
    )
    for version in versions:
        labels = (version.name, version.version)
        counters = version.statistics
        _add(requests, labels, counters.success)
        _add(queue, labels, counters.queue)
        _add(compute, labels, counters.compute)
        for reason, count in sorted(counters.failures.items()):
            failures.add_metric((*labels, reason), count)
        rows.add_metric(labels, counters.rows)
        load.add_metric(labels, version.load_s)
        leases.add_metric(labels, version.leases)
    yield from (requests, queue, compute, failures, rows, load, leases)


def _add(family: "HistogramMetricFamily", labels: tuple[str, str], durations: Durations) -> None:
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip(DURATION_BUCKETS_S, durations.buckets, strict=False):
        total += count
        buckets.append((f"{bound:.6f}", float(total)))
    buckets.append(("+Inf", float(durations.count)))
    family.add_metric(labels, buckets, durations.ns / _NS)
