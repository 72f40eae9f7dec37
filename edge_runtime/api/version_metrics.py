"""The metric families of each model version."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from edge_runtime.api.metric_family import Family, Histogram, Kind, Sample
from edge_runtime.api.metric_sources import Version
from edge_runtime.cache.counters import Counters
from edge_runtime.cache.status import Version as Kept
from edge_runtime.metrics import (
    DURATION_BUCKETS_S,
    LOAD_BUCKETS_S,
    ROWS_MAX,
    Durations,
    VersionStatistics,
)

#: Upper bounds of the rows of a run: powers of two, as far as runs are told apart.
ROWS_BUCKETS: Final = tuple(1 << exponent for exponent in range(ROWS_MAX.bit_length() - 1))
_LABELS: Final = ("model", "version")
_NS: Final = 1e9

#: One value, or one by value of the family's last label; ``None``: the version has none.
_Value = float | Histogram | Mapping[str, float] | None


def _family(
    name: str, kind: Kind, text: str, value: Callable[[Version], _Value], label: str = ""
) -> Family[Version]:
    """Describe a family; ``label`` is one more than model and version."""

    def read(version: Version) -> Iterator[Sample]:
        found = value(version)
        if isinstance(found, Mapping):
            for each, count in sorted(found.items()):
                yield Sample((*version.labels, each), count)
        elif found is not None:
            yield Sample(version.labels, found)

    return Family(name, kind, (*_LABELS, label) if label else _LABELS, text, read)


def _counted(value: Callable[[VersionStatistics], _Value]) -> Callable[[Version], _Value]:
    """Read from the counters of its requests, if it was ever loaded."""

    def read(version: Version) -> _Value:
        return None if version.statistics is None else value(version.statistics)

    return read


def _cached(value: Callable[[Counters], _Value]) -> Callable[[Version], _Value]:
    """Read from the counters of its cache, if it has one."""

    def read(version: Version) -> _Value:
        return None if version.cache is None else value(version.cache)

    return read


def _kept(value: Callable[[Kept], _Value]) -> Callable[[Version], _Value]:
    """Read how much its cache keeps, if it has one."""

    def read(version: Version) -> _Value:
        return None if version.kept is None else value(version.kept)

    return read


def _seconds(durations: Durations) -> Histogram:
    return Histogram(DURATION_BUCKETS_S, durations.buckets, durations.ns / _NS)


def _run_rows(statistics: VersionStatistics) -> Histogram:
    counts = [0] * (len(ROWS_BUCKETS) + 1)
    for rows, tallies in statistics.by_rows.items():
        counts[bisect_left(ROWS_BUCKETS, rows)] += tallies.runs
    return Histogram(ROWS_BUCKETS, counts, statistics.rows)


def _load_seconds(version: Version) -> Histogram:
    loads = version.entry.load_durations
    return Histogram(LOAD_BUCKETS_S, loads.buckets, loads.ns / _NS)


def _last_load_s(version: Version) -> float | None:
    return version.last.load_s if version.last is not None else None


def _cap_rows(version: Version) -> float | None:
    loaded = version.in_memory
    if loaded is None:
        return None
    return loaded.lane.cap.rows if loaded.lane.verdict.joins else 1


def _cache_requests(cache: Counters) -> Mapping[str, float]:
    return {
        "memory_hit": cache.hits - cache.disk_hits,
        "disk_hit": cache.disk_hits,
        "joined": cache.joined,
        "miss": cache.misses,
        "stale": cache.stale,
        "bypassed": cache.bypassed,
    }


_REQUESTS: Final = (
    _family(
        "edge_runtime_requests_total",
        "counter",
        "Predictions by how they ended.",
        _counted(
            lambda counters: {"success": counters.success.count, "failure": counters.fail.count}
        ),
        "outcome",
    ),
    _family(
        "edge_runtime_request_failures_total",
        "counter",
        "Failed predictions by reason.",
        _counted(lambda counters: counters.failures),
        "reason",
    ),
    _family(
        "edge_runtime_request_fallbacks_total",
        "counter",
        "Failed predictions that another version of the model answered.",
        _counted(lambda counters: counters.fallbacks),
    ),
    _family(
        "edge_runtime_traffic_share",
        "gauge",
        "Share of the predictions that name no version, 0 to 1, where it was set.",
        lambda version: version.share,
    ),
    _family(
        "edge_runtime_request_duration_seconds",
        "histogram",
        "Answered predictions, from decoded to written.",
        _counted(lambda counters: _seconds(counters.success)),
    ),
    _family(
        "edge_runtime_queue_duration_seconds",
        "histogram",
        "Waiting for a run, of answered predictions.",
        _counted(lambda counters: _seconds(counters.queue)),
    ),
    _family(
        "edge_runtime_requests_in_flight",
        "gauge",
        "Predictions that use the version now.",
        lambda version: version.in_memory.leases if version.in_memory else 0,
    ),
    _family(
        "edge_runtime_requests_joined_total",
        "counter",
        "Predictions that shared a run with others.",
        _counted(lambda counters: counters.joined),
    ),
    _family(
        "edge_runtime_compute_duration_seconds",
        "histogram",
        "Time of each run in the model.",
        _counted(lambda counters: _seconds(counters.compute)),
    ),
    _family(
        "edge_runtime_inference_runs_total",
        "counter",
        "Runs of the model.",
        _counted(lambda counters: counters.compute.count),
    ),
    _family(
        "edge_runtime_inference_rows_total",
        "counter",
        "Rows inferred; answers from the cache do not count.",
        _counted(lambda counters: counters.rows),
    ),
    _family(
        "edge_runtime_run_rows",
        "histogram",
        "Rows of a run.",
        _counted(_run_rows),
    ),
    _family(
        "edge_runtime_batching_cap_rows",
        "gauge",
        "Most rows of a shared run, as it adapts; 1: runs are not shared.",
        _cap_rows,
    ),
)

_MEMORY: Final = (
    _family(
        "edge_runtime_model_loaded",
        "gauge",
        "Whether the version is in memory: 1 or 0.",
        lambda version: int(version.in_memory is not None),
    ),
    _family(
        "edge_runtime_model_size_bytes",
        "gauge",
        "Memory that the version holds, as measured when it was loaded.",
        lambda version: version.in_memory.size_bytes if version.in_memory else 0,
    ),
    _family(
        "edge_runtime_model_load_seconds",
        "gauge",
        "How long the last load took.",
        _last_load_s,
    ),
    _family(
        "edge_runtime_model_load_duration_seconds",
        "histogram",
        "How long loads took.",
        _load_seconds,
    ),
    _family(
        "edge_runtime_model_loads_total",
        "counter",
        "Loads that succeeded.",
        lambda version: version.entry.loads,
    ),
    _family(
        "edge_runtime_model_load_failures_total",
        "counter",
        "Loads that failed, or were not tried: unusable files, no room in memory.",
        lambda version: version.entry.load_failures,
    ),
    _family(
        "edge_runtime_model_unloads_total",
        "counter",
        "Times the version left memory to come back when asked: it was idle, or made room.",
        lambda version: {"idle": version.entry.unloads, "evicted": version.entry.evictions},
        "reason",
    ),
)

_CACHE: Final = (
    _family(
        "edge_runtime_cache_requests_total",
        "counter",
        "Predictions of a model that opted in, by what the cache did.",
        _cached(_cache_requests),
        "outcome",
    ),
    _family(
        "edge_runtime_cache_seconds_total",
        "counter",
        "Time spent on the cache: answering hits; looking up and keeping for misses.",
        _cached(lambda cache: {"hit": cache.hit_ns / _NS, "miss": cache.miss_ns / _NS}),
        "outcome",
    ),
    _family(
        "edge_runtime_cache_answers",
        "gauge",
        "Answers kept now.",
        _kept(lambda kept: {"memory": kept.memory_entries, "disk": kept.disk_entries}),
        "store",
    ),
    _family(
        "edge_runtime_cache_size_bytes",
        "gauge",
        "What the kept answers take.",
        _kept(lambda kept: {"memory": kept.memory_bytes, "disk": kept.disk_bytes}),
        "store",
    ),
    _family(
        "edge_runtime_cache_evictions_total",
        "counter",
        "Kept answers that left for others or for their age.",
        _cached(lambda cache: {"memory": cache.evicted, "disk": cache.disk_evicted}),
        "store",
    ),
    _family(
        "edge_runtime_cache_writes_dropped_total",
        "counter",
        "Answers that were not written to the disk: too large, queue or disk full, flash spared.",
        _cached(lambda cache: cache.dropped),
    ),
    _family(
        "edge_runtime_cache_errors_total",
        "counter",
        "Failures of the cache; each was a miss.",
        _cached(lambda cache: cache.errors),
    ),
)

FAMILIES: Final[tuple[Family[Version], ...]] = (*_REQUESTS, *_MEMORY, *_CACHE)
