"""What a daemon did between two looks at its counters. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Final

import msgspec

from edge_runtime.cli.scrape import samples
from edge_runtime.protocol.schemas import LOADS_WHEN_ASKED, IndexEntry

ASLEEP: Final = "ASLEEP"  # not in memory; loads when asked

_REQUESTS: Final = "edge_runtime_requests_total"
_DURATION: Final = "edge_runtime_request_duration_seconds_bucket"
_QUEUE_SUM: Final = "edge_runtime_queue_duration_seconds_sum"
_QUEUE_COUNT: Final = "edge_runtime_queue_duration_seconds_count"
_COMPUTE_SUM: Final = "edge_runtime_compute_duration_seconds_sum"
_RUNS: Final = "edge_runtime_inference_runs_total"
_ROWS: Final = "edge_runtime_inference_rows_total"
_CACHE: Final = "edge_runtime_cache_requests_total"
_SIZE: Final = "edge_runtime_model_size_bytes"
_IN_FLIGHT: Final = "edge_runtime_requests_in_flight"
_BUILD: Final = "edge_runtime_build_info"
_STARTED: Final = "edge_runtime_start_time_seconds"
_UPTIME: Final = "edge_runtime_uptime_seconds"
_CONNECTIONS: Final = "edge_runtime_connections"
_WAITING: Final = "edge_runtime_runs_waiting"
_RUNNING: Final = "edge_runtime_runs_running"
_BUDGET: Final = "edge_runtime_memory_budget_bytes"
_CPU: Final = "process_cpu_seconds_total"
_RESIDENT: Final = "process_resident_memory_bytes"
_OF_VERSIONS: Final = frozenset(
    {
        _REQUESTS,
        _DURATION,
        _QUEUE_SUM,
        _QUEUE_COUNT,
        _COMPUTE_SUM,
        _RUNS,
        _ROWS,
        _CACHE,
        _SIZE,
        _IN_FLIGHT,
    }
)
_OF_SERVER: Final = frozenset(
    {_STARTED, _UPTIME, _CONNECTIONS, _WAITING, _RUNNING, _BUDGET, _CPU, _RESIDENT}
)
_HITS: Final = ("memory_hit", "disk_hit", "joined")
_MS: Final = 1e3

#: A version's samples by name and by the one label beside model and version, if there is one.
_Samples = Mapping[tuple[str, str], float]
_NOTHING: Final[_Samples] = {}


class VersionActivity(msgspec.Struct, kw_only=True):
    """What one version did in an interval.

    Attributes:
        model: Name of the model.
        version: Its version; empty: a problem of the whole model.
        state: As in the repository index, or ``ASLEEP``: not in memory, loads when asked.
        reason: Why it is in that state.
        requests_per_s: Answered.
        failures_per_s: Failed.
        p50_ms: Half were answered within about so long (estimated); ``None``: there was none.
        p99_ms: The same for 99 of 100.
        queue_ms: Mean wait for a run.
        rows_per_run: Mean; ``None``: there was no run.
        cache_hit_ratio: Of those that were looked up; ``None``: nothing was.
        compute_ratio: Time in the model over time passed; may be above 1.
        size_bytes: Memory that it holds.
        in_flight: Requests that use it at the end.
    """

    model: str
    version: str
    state: str = ""
    reason: str = ""
    requests_per_s: float = 0.0
    failures_per_s: float = 0.0
    p50_ms: float | None = None
    p99_ms: float | None = None
    queue_ms: float | None = None
    rows_per_run: float | None = None
    cache_hit_ratio: float | None = None
    compute_ratio: float = 0.0
    size_bytes: int = 0
    in_flight: int = 0


class Activity(msgspec.Struct, kw_only=True):
    """What the daemon did in an interval.

    Attributes:
        time: The end of it, RFC 3339.
        interval_s: How long it was; shorter than asked if the daemon started in it.
        server_version: Of the daemon.
        uptime_s: Time since it started.
        cpu_ratio: CPU time over time passed, of one core; ``None``: not known.
        resident_bytes: Memory of the process; ``None``: not known.
        budget_bytes: What it may hold; 0: no budget.
        connections: Open at the end.
        waiting: Requests that wait for the pool, at the end.
        running: Runs in the pool, at the end.
        requests_per_s: Answered predictions, of all versions.
        failures_per_s: Failed ones.
        versions: The busiest first.
        error: Why the daemon could not be asked; then nothing else is known.
    """

    time: str
    interval_s: float = 0.0
    server_version: str = ""
    uptime_s: float = 0.0
    cpu_ratio: float | None = None
    resident_bytes: int | None = None
    budget_bytes: int = 0
    connections: int = 0
    waiting: int = 0
    running: int = 0
    requests_per_s: float = 0.0
    failures_per_s: float = 0.0
    versions: list[VersionActivity] = []
    error: str = ""


@dataclass(frozen=True)
class Look:
    """The counters at one moment.

    Attributes:
        taken_s: When, on a monotonic clock.
        version: Of the daemon.
        server: Its samples that have no label.
        versions: Samples of each model version.
        index: Every version known, with its state.
    """

    taken_s: float
    version: str = ""
    server: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[tuple[str, str], _Samples] = field(default_factory=dict)
    index: Sequence[IndexEntry] = ()

    @classmethod
    def read(cls, text: str, index: Sequence[IndexEntry], taken_s: float) -> "Look":
        """Read the counters.

        Args:
            text: What ``GET /metrics`` answered.
            index: The repository index.
            taken_s: When, on a monotonic clock.

        Raises:
            ProtocolError: The text is no exposition.
        """
        server: dict[str, float] = {}
        versions: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
        build = ""
        for name, labels, value in samples(text, _OF_VERSIONS | _OF_SERVER | {_BUILD}):
            if name == _BUILD:
                build = labels.get("version", "")
            elif name in _OF_SERVER:
                server[name] = value
            else:
                extra = [text for key, text in labels.items() if key not in {"model", "version"}]
                key = labels.get("model", ""), labels.get("version", "")
                versions.setdefault(key, {})[name, extra[0] if extra else ""] = value
        return cls(taken_s, build, server, versions, index)


def activity(before: Look, after: Look, time: str) -> Activity:
    """Say what happened between two looks.

    Args:
        before: The earlier one.
        after: The later one.
        time: When that was, RFC 3339.
    """
    server = after.server
    uptime_s = server.get(_UPTIME, 0.0)
    elapsed_s = max(after.taken_s - before.taken_s, 1e-6)
    was = before
    if before.server.get(_STARTED) != server.get(_STARTED):  # it is another process: from zero
        was = Look(before.taken_s)
        elapsed_s = max(min(elapsed_s, uptime_s), 1e-6)
    cpu_s = server.get(_CPU)
    resident = server.get(_RESIDENT)
    versions = _versions(was, after, elapsed_s)
    return Activity(
        time=time,
        interval_s=elapsed_s,
        server_version=after.version,
        uptime_s=uptime_s,
        cpu_ratio=None if cpu_s is None else (cpu_s - was.server.get(_CPU, 0.0)) / elapsed_s,
        resident_bytes=None if resident is None else int(resident),
        budget_bytes=int(server.get(_BUDGET, 0)),
        connections=int(server.get(_CONNECTIONS, 0)),
        waiting=int(server.get(_WAITING, 0)),
        running=int(server.get(_RUNNING, 0)),
        requests_per_s=sum(each.requests_per_s for each in versions),
        failures_per_s=sum(each.failures_per_s for each in versions),
        versions=versions,
    )


def _versions(before: Look, after: Look, elapsed_s: float) -> list[VersionActivity]:
    rows = {
        key: _version(key, before.versions.get(key, _NOTHING), now, elapsed_s)
        for key, now in after.versions.items()
    }
    for entry in after.index:
        key = entry.name, entry.version
        row = rows.setdefault(key, VersionActivity(model=entry.name, version=entry.version))
        is_asleep = entry.state == "READY" and entry.reason.startswith(LOADS_WHEN_ASKED)
        row.state = ASLEEP if is_asleep else entry.state
        row.reason = entry.reason
    known = {(entry.name, entry.version) for entry in after.index}
    shown = [row for key, row in rows.items() if key in known]
    return sorted(shown, key=lambda row: (-row.compute_ratio, -row.requests_per_s, row.model))


def _version(
    key: tuple[str, str], before: _Samples, after: _Samples, elapsed_s: float
) -> VersionActivity:
    def grown(name: str, extra: str = "") -> float:
        now, then = after.get((name, extra), 0.0), before.get((name, extra), 0.0)
        return now - then if now >= then else now  # it began anew: new files, new counters

    bounds = [extra for name, extra in after if name == _DURATION]
    spread = [(inf if each == "+Inf" else float(each), grown(_DURATION, each)) for each in bounds]
    p50_s, p99_s = quantile(0.5, spread), quantile(0.99, spread)
    waits, runs = grown(_QUEUE_COUNT), grown(_RUNS)
    hits = sum(grown(_CACHE, outcome) for outcome in _HITS)
    looked_up = hits + grown(_CACHE, "miss")
    return VersionActivity(
        model=key[0],
        version=key[1],
        requests_per_s=grown(_REQUESTS, "success") / elapsed_s,
        failures_per_s=grown(_REQUESTS, "failure") / elapsed_s,
        p50_ms=None if p50_s is None else p50_s * _MS,
        p99_ms=None if p99_s is None else p99_s * _MS,
        queue_ms=grown(_QUEUE_SUM) / waits * _MS if waits else None,
        rows_per_run=grown(_ROWS) / runs if runs else None,
        cache_hit_ratio=hits / looked_up if looked_up else None,
        compute_ratio=grown(_COMPUTE_SUM) / elapsed_s,
        size_bytes=int(after.get((_SIZE, ""), 0)),
        in_flight=int(after.get((_IN_FLIGHT, ""), 0)),
    )


def quantile(share: float, buckets: Iterable[tuple[float, float]]) -> float | None:
    """Estimate a quantile from a histogram.

    Args:
        share: 0.5 for the median.
        buckets: Upper bounds, and how many values are not above them; the last bound is infinite.

    Returns:
        A value of the bucket that holds it, as if values were spread evenly in it; the highest
        finite bound if it lies beyond that; ``None`` without values.

    Source:
        The rule of Prometheus's ``histogram_quantile``.
    """
    ordered = [(0.0, 0.0), *sorted(buckets)]
    total = ordered[-1][1]
    if not total:
        return None
    rank = share * total
    for (lower, below), (upper, count) in pairwise(ordered):
        if count >= rank and count > below:
            if upper == inf:
                return lower
            return lower + (upper - lower) * max(rank - below, 0.0) / (count - below)
    return None
