"""The metric families as Prometheus text or OpenMetrics.

The only user of prometheus_client, which is imported at the first scrape and not before. The text
is made in parts of about a millisecond, so that a scrape of many versions holds nobody up.
"""

from collections.abc import Iterable, Iterator
from importlib import import_module
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from edge_runtime.api import server_metrics, version_metrics
from edge_runtime.api.metric_family import Family, Histogram, Sample
from edge_runtime.api.metric_sources import Sources

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

LIBRARY: Final = "prometheus_client.openmetrics.exposition"
_OPENMETRICS: Final = "application/openmetrics-text"
_TEXT: Final = "text/plain"
_END: Final = b"# EOF\n"
_VERSIONS_AT_ONCE: Final = {"histogram": 4}  # and of other kinds
_VERSIONS_DEFAULT: Final = 64

_Source = TypeVar("_Source")


class Format(NamedTuple):
    """How the metrics are written.

    Attributes:
        content_type: Media type of the answer.
        is_openmetrics: Whether it is OpenMetrics and not Prometheus's own text.
    """

    content_type: str
    is_openmetrics: bool


TEXT: Final = Format(f"{_TEXT}; version=0.0.4; charset=utf-8", is_openmetrics=False)
OPENMETRICS: Final = Format(f"{_OPENMETRICS}; version=1.0.0; charset=utf-8", is_openmetrics=True)


def choose(accept: str) -> Format:
    """Choose what the scraper likes best.

    Args:
        accept: Its ``Accept`` header; empty: it has no wish.

    Source:
        RFC 9110 section 12.5.1; other media types are passed over.
    """
    weights = {_TEXT: 0.0, _OPENMETRICS: 0.0}
    for each in accept.split(","):
        media_type, *parameters = (part.strip() for part in each.split(";"))
        name = media_type.lower()
        if name in weights:
            weights[name] = max(weights[name], _weight(parameters))
    return OPENMETRICS if weights[_OPENMETRICS] > weights[_TEXT] else TEXT


def _weight(parameters: Iterable[str]) -> float:
    for each in parameters:
        key, _, value = each.partition("=")
        if key.strip().lower() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def prepare() -> None:
    """Import the library; it takes a while, so this may be called on another thread."""
    import_module(LIBRARY)


def exposition(sources: Sources, form: Format = TEXT) -> bytes:
    """Write every metric at once; ``parts`` does it step by step."""
    return b"".join(parts(sources, form))


def parts(sources: Sources, form: Format = TEXT) -> Iterator[bytes]:
    """Write every metric.

    Args:
        sources: Where the numbers are.
        form: How to write them.

    Yields:
        UTF-8 text; together the whole of it.
    """
    from prometheus_client import ProcessCollector, exposition  # noqa: PLC0415 - see above
    from prometheus_client.openmetrics import exposition as openmetrics  # noqa: PLC0415
    from prometheus_client.registry import Collector  # noqa: PLC0415

    class One(Collector):
        def __init__(self, metric: "Metric") -> None:
            self._metric = metric

        def collect(self) -> Iterable["Metric"]:
            return (self._metric,)

    def encode(metric: "Metric", *, is_first: bool) -> bytes:
        if form.is_openmetrics:
            written: bytes = openmetrics.generate_latest(One(metric))  # type: ignore[no-untyped-call]
            text = written.removesuffix(_END)
        else:
            text = exposition.generate_latest(One(metric))
        return text if is_first else _without_head(text)

    for metric in ProcessCollector(registry=None).collect():  # memory, CPU time, descriptors
        yield encode(metric, is_first=True)
    for of_server in server_metrics.FAMILIES:
        yield encode(_metric(of_server, of_server.read(sources)), is_first=True)
    versions = sources.versions()
    for family in version_metrics.FAMILIES:
        remaining = iter(versions)
        is_first = True
        while True:
            some = list(islice(remaining, _VERSIONS_AT_ONCE.get(family.kind, _VERSIONS_DEFAULT)))
            if not (some or is_first):
                break
            samples = (sample for version in some for sample in family.read(version))
            yield encode(_metric(family, samples), is_first=is_first)
            is_first = False
    if form.is_openmetrics:
        yield _END


def _without_head(text: bytes) -> bytes:
    """Take off what stands once above the samples of a family."""
    start = 0
    while text.startswith(b"# ", start):
        start = text.index(b"\n", start) + 1
    return text[start:]


def _metric(family: Family[_Source], samples: Iterable[Sample]) -> "Metric":
    from prometheus_client import metrics_core  # noqa: PLC0415

    name, labels, unit = family.base_name, family.labels, family.unit
    metric: Metric
    if family.kind == "histogram":
        histogram = metric = metrics_core.HistogramMetricFamily(
            name, family.help, labels=labels, unit=unit
        )
        for each in samples:
            assert isinstance(each.value, Histogram)  # noqa: S101 - the tables say so
            histogram.add_metric(each.labels, _cumulative(each.value), each.value.total)
        return metric
    if family.kind == "info":
        info = metric = metrics_core.InfoMetricFamily(name, family.help, labels=())
        for each in samples:
            info.add_metric((), dict(zip(labels, each.labels, strict=True)))
        return metric
    make = (
        metrics_core.CounterMetricFamily
        if family.kind == "counter"
        else metrics_core.GaugeMetricFamily
    )
    single = metric = make(name, family.help, labels=labels, unit=unit)
    for each in samples:
        assert not isinstance(each.value, Histogram)  # noqa: S101 - the tables say so
        single.add_metric(each.labels, each.value)
    return metric


def _cumulative(histogram: Histogram) -> list[tuple[str, float]]:
    """Turn counts per bucket into Prometheus's, each of which holds the ones below it."""
    buckets: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound == float("inf") else str(float(bound)), float(total)))
    return buckets
