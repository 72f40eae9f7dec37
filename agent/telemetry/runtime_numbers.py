"""What the daemon says in ``/metrics``, as numbers that add up over devices and time.

Counters are told as they stand since the daemon's start, so that a lost batch loses nothing but
its moment. Histograms keep the daemon's fixed buckets; empty ones are left out.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

MODELS_MAX: Final = 256
"""Model versions in one batch; the rest are only counted."""

_US: Final = 1e6
_STARTED: Final = "edge_runtime_start_time_seconds"
_SIZE: Final = "edge_runtime_model_size_bytes"
#: Figures of one version: family to the name here. Those with one more label keep it.
_COUNTERS: Final = {
    "edge_runtime_requests": ("requests", "outcome"),
    "edge_runtime_request_failures": ("failures", "reason"),
    "edge_runtime_request_fallbacks": ("fallbacks", ""),
    "edge_runtime_inference_runs": ("runs", ""),
    "edge_runtime_inference_rows": ("rows", ""),
    "edge_runtime_cache_requests": ("cache", "outcome"),
    "edge_runtime_model_loads": ("loads", ""),
    "edge_runtime_model_load_failures": ("load_failures", ""),
}
_HISTOGRAMS: Final = {
    "edge_runtime_request_duration_seconds": "request",
    "edge_runtime_queue_duration_seconds": "queue",
    "edge_runtime_compute_duration_seconds": "compute",
}
_GAUGES: Final = {
    "edge_runtime_connections": "connections",
    "edge_runtime_runs_waiting": "runs_waiting",
    "edge_runtime_requests_waiting_for_load": "requests_waiting_for_load",
    "edge_runtime_memory_budget_bytes": "memory_budget_bytes",
    "edge_runtime_cache_file_bytes": "cache_file_bytes",
}


class Durations(msgspec.Struct, kw_only=True):
    """A histogram.

    Attributes:
        sum_s: Of all durations, in seconds.
        counts: Pairs of a bucket's upper bound in microseconds and how many fell into it alone
            (not below); the bound of the last one is ``None``.
    """

    sum_s: float = 0.0
    counts: list[tuple[int | None, int]] = msgspec.field(default_factory=list)


class Version(msgspec.Struct, kw_only=True):
    """One version of one model since the daemon started.

    Attributes:
        model: Its name.
        version: Its number, as text.
        size_bytes: Of memory it takes; 0: it is not in memory.
        counters: Counts by name; those told apart by a word are called ``name.word``.
        durations: Histograms ``request``, ``queue`` and ``compute``.
    """

    model: str
    version: str
    size_bytes: int = 0
    counters: dict[str, int] = msgspec.field(default_factory=dict)
    durations: dict[str, Durations] = msgspec.field(default_factory=dict)


class RuntimeNumbers(msgspec.Struct, kw_only=True):
    """One reading.

    Attributes:
        started_s: When the daemon started, in seconds since the epoch; counters begin there.
        gauges: Figures of the daemon as a whole.
        versions: Every version it ever answered for, at most ``MODELS_MAX``.
        left_out: Versions beyond that.
    """

    started_s: float = 0.0
    gauges: dict[str, float] = msgspec.field(default_factory=dict)
    versions: list[Version] = msgspec.field(default_factory=list)
    left_out: int = 0


def read_runtime(text: str) -> RuntimeNumbers:
    """Read an exposition; what is not in it is zero.

    Args:
        text: In Prometheus' format.

    Raises:
        ValueError: It is not in that format.
    """
    numbers = RuntimeNumbers()
    versions: dict[tuple[str, str], _Reading] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            if "model" in labels and "version" in labels:
                key = labels["model"], labels["version"]
                versions.setdefault(key, _Reading(*key)).take(family.name, sample)
            elif sample.name == _STARTED:
                numbers.started_s = sample.value
            elif family.name in _GAUGES:
                numbers.gauges[_GAUGES[family.name]] = sample.value
    used = [each.result() for each in versions.values() if each.is_used()]
    numbers.versions = used[:MODELS_MAX]
    numbers.left_out = len(used) - len(numbers.versions)
    return numbers


class _Reading:
    """One version's samples, as they come."""

    def __init__(self, model: str, version: str) -> None:
        self._version = Version(model=model, version=version)
        self._cumulative: dict[str, list[tuple[float, int]]] = {}

    def take(self, family: str, sample: Sample) -> None:
        """Note a sample, if it is one that is told."""
        if family in _COUNTERS and sample.name.endswith("_total"):
            name, label = _COUNTERS[family]
            if sample.value:
                word = sample.labels.get(label, "")
                self._version.counters[f"{name}.{word}" if word else name] = int(sample.value)
        elif family == _SIZE:
            self._version.size_bytes = int(sample.value)
        elif family in _HISTOGRAMS:
            name = _HISTOGRAMS[family]
            durations = self._version.durations.setdefault(name, Durations())
            if sample.name.endswith("_sum"):
                durations.sum_s = round(sample.value, 6)
            elif sample.name.endswith("_bucket"):
                row = float(sample.labels["le"]), int(sample.value)
                self._cumulative.setdefault(name, []).append(row)

    def is_used(self) -> bool:
        """Tell whether there is anything to say of it."""
        return bool(self._version.counters or self._version.size_bytes)

    def result(self) -> Version:
        """Give it, without empty histograms."""
        durations = self._version.durations
        for name, rows in self._cumulative.items():
            durations[name].counts = list(_apart(rows))
        self._version.durations = {name: each for name, each in durations.items() if each.counts}
        return self._version


def _apart(cumulative: Iterable[tuple[float, int]]) -> Iterator[tuple[int | None, int]]:
    """Turn counts at or below each bound into counts of each bucket."""
    below = 0
    for bound, count in sorted(cumulative):
        if count > below:
            yield (None if math.isinf(bound) else round(bound * _US)), count - below
        below = max(below, count)
