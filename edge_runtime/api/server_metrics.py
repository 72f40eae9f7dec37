"""The metric families of the daemon as a whole."""

from collections.abc import Callable, Iterator
from time import time
from typing import Final

from edge_runtime import __version__
from edge_runtime.api.metric_family import Family, Kind, Sample
from edge_runtime.api.metric_sources import Sources
from edge_runtime.cache.status import File
from edge_runtime.session import RUNTIME_VERSION

_Number = Callable[[Sources], float]


def _single(name: str, kind: Kind, text: str, number: _Number) -> Family[Sources]:
    def read(sources: Sources) -> Iterator[Sample]:
        yield Sample((), number(sources))

    return Family(name, kind, (), text, read)


def _gauge(name: str, text: str, number: _Number) -> Family[Sources]:
    return _single(name, "gauge", text, number)


def _counter(name: str, text: str, number: _Number) -> Family[Sources]:
    return _single(name, "counter", text, number)


def _build(_: Sources) -> Iterator[Sample]:
    yield Sample((__version__, RUNTIME_VERSION), 1)


def _responses(sources: Sources) -> Iterator[Sample]:
    for status, count in sorted(sources.server.responses.items()):
        yield Sample((str(status),), count)


def _records(sources: Sources) -> Iterator[Sample]:
    yield Sample(("rate",), sources.server.records_limited)
    yield Sample(("queue",), sources.server.records_dropped)


def _predictions(sources: Sources) -> Iterator[Sample]:
    yield Sample(("lost",), sources.server.predictions_lost)
    yield Sample(("redacted",), sources.server.predictions_redacted)


def _file(number: Callable[[File], float]) -> _Number:
    """Read from the cache's file, if there is one."""

    def read(sources: Sources) -> float:
        file = sources.cache.status().file if sources.cache is not None else None
        return 0 if file is None else number(file)

    return read


FAMILIES: Final[tuple[Family[Sources], ...]] = (
    Family(
        "edge_runtime_build_info",
        "info",
        ("version", "onnxruntime"),
        "Versions of the daemon and of ONNX Runtime.",
        _build,
    ),
    _gauge(
        "edge_runtime_start_time_seconds",
        "When the daemon started, Unix time.",
        lambda sources: sources.server.started_s,
    ),
    _gauge(
        "edge_runtime_uptime_seconds",
        "Time since the start.",
        lambda sources: time() - sources.server.started_s,
    ),
    _gauge(
        "edge_runtime_connections",
        "Connections open now.",
        lambda sources: sources.server.connections_open,
    ),
    _counter(
        "edge_runtime_connections_accepted_total",
        "Connections accepted since the start.",
        lambda sources: sources.server.connections_total,
    ),
    _counter(
        "edge_runtime_connections_refused_total",
        "Connections turned away at limits.connections or limits.connections_per_user.",
        lambda sources: sources.server.connections_refused,
    ),
    _counter(
        "edge_runtime_connections_evicted_total",
        "Idle connections closed to let in a user who had fewer.",
        lambda sources: sources.server.connections_evicted,
    ),
    Family(
        "edge_runtime_http_responses_total",
        "counter",
        ("status",),
        "Answers by HTTP status.",
        _responses,
    ),
    _gauge(
        "edge_runtime_requests_waiting_for_load",
        "Requests that wait for a version to be in memory.",
        lambda sources: sources.catalog.waiting,
    ),
    _gauge(
        "edge_runtime_runs_waiting",
        "Requests that wait for a thread of the pool.",
        lambda sources: sources.scheduler.waiting if sources.scheduler else 0,
    ),
    _gauge(
        "edge_runtime_runs_running",
        "Runs in the pool now; short runs never enter it.",
        lambda sources: sources.scheduler.running if sources.scheduler else 0,
    ),
    _gauge(
        "edge_runtime_memory_budget_bytes",
        "Resident memory that the daemon may hold (engine.memory_budget_bytes); 0: no budget.",
        lambda sources: sources.catalog.budget_bytes,
    ),
    _gauge(
        "edge_runtime_cache_file_bytes",
        "What the cache's file holds.",
        _file(lambda file: file.used_bytes),
    ),
    _gauge(
        "edge_runtime_cache_pending_bytes",
        "Answers that wait to be written to the cache's file.",
        _file(lambda file: file.pending_bytes),
    ),
    _counter(
        "edge_runtime_cache_file_errors_total",
        "Times the cache's file could not be read or written.",
        _file(lambda file: file.errors),
    ),
    Family(
        "edge_runtime_journal_left_out_total",
        "counter",
        ("reason",),
        "Predictions that the journal was to keep and does not.",
        _predictions,
    ),
    Family(
        "edge_runtime_log_records_left_out_total",
        "counter",
        ("reason",),
        "Records of requests that were not written to the log.",
        _records,
    ),
)
