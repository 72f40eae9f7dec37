"""The metrics: what a scraper reads is what was counted, under the names that are documented."""

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from edge_runtime.api import server_metrics, version_metrics
from edge_runtime.api.exposition import OPENMETRICS, TEXT, choose, exposition
from edge_runtime.api.metric_family import Family, Histogram
from edge_runtime.api.metric_sources import GONE_MAX, Sources, Version
from edge_runtime.api.version_metrics import ROWS_BUCKETS
from edge_runtime.metrics import (
    DURATION_BUCKETS_S,
    LOAD_BUCKETS_S,
    LoadDurations,
    ServerStatistics,
    VersionStatistics,
)
from edge_runtime.registry import Registry
from edge_runtime.registry_entry import Entry
from edge_runtime.routing import Traffic
from tests.conftest import ROOT
from tests.fakes import FakeLoader, bundle

if TYPE_CHECKING:
    from edge_runtime.catalog import Catalog

FAMILIES: tuple[Family[Sources] | Family[Version], ...] = (
    *server_metrics.FAMILIES,
    *version_metrics.FAMILIES,
)
PAGE = (ROOT / "docs" / "metrics.md").read_text("utf-8")
ROW = re.compile(r"^\| `(edge_runtime_\w+)` \| (\w+) \| ([\w, ]*) \| (.+) \|$", re.MULTILINE)
SUFFIXES = re.compile(r"_(total|info|count|sum|bucket|created|gcount|gsum)$")
OF_PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


class Known:
    """As much of a catalog as is read."""

    budget_bytes = 7
    waiting = 5

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries = list(entries)

    def entries(self) -> list[Entry]:
        """List them."""
        return self._entries

    def traffic(self, _name: str) -> Traffic:
        """Give version 2 a quarter."""
        return Traffic(1, {2: 2500})


class Documented(NamedTuple):
    """One row of the page."""

    kind: str
    labels: tuple[str, ...]
    help: str


def sources(*entries: Entry, server: ServerStatistics | None = None) -> Sources:
    return Sources(cast("Catalog", Known(entries)), server or ServerStatistics(0.0))


def entry(name: str = "m", number: int = 1, *, loaded: bool = True) -> Entry:
    made = Registry().entry(name, number)
    if loaded:
        wanted = bundle(name, number)
        made.arrive(FakeLoader()(wanted), wanted, 0)
    return made


def counters(of: Entry) -> VersionStatistics:
    assert of.loaded is not None
    return of.loaded.statistics


def strictly(text: str) -> Iterator[Metric]:
    """Read OpenMetrics with the parser that insists on the whole of the specification."""
    yield from openmetrics(text)  # type: ignore[no-untyped-call]


def families(read: Sources) -> dict[str, Metric]:
    return {each.name: each for each in prometheus(exposition(read, TEXT).decode())}


def samples(found: Iterable[Metric], name: str, **labels: str) -> Iterator[float]:
    for family in found:
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                yield sample.value


def value(found: Iterable[Metric], name: str, **labels: str) -> float:
    (only,) = samples(found, name, **labels)
    return only


def documented() -> dict[str, Documented]:
    return {
        name: Documented(kind, tuple(filter(None, labels.split(", "))), text)
        for name, kind, labels, text in ROW.findall(PAGE)
    }


def test_page_and_code_have_the_same_metrics_with_the_same_types_labels_and_help() -> None:
    in_code = {each.name: Documented(each.kind, each.labels, each.help) for each in FAMILIES}
    assert len(in_code) == len(FAMILIES)
    assert documented() == in_code


def test_what_is_exposed_is_what_the_page_says() -> None:
    server = ServerStatistics(1.0)
    server.responses = {200: 1}
    one = entry()
    counters(one).failed("OTHER", 1)
    text = exposition(sources(one, server=server), OPENMETRICS).decode()
    found = [each for each in strictly(text) if each.name.startswith("edge_runtime_")]
    page = documented()
    told = {"counter": "_total", "info": "_info"}
    assert [each.name + told.get(each.type, "") for each in found] == list(page)
    for family in found:
        row = page[family.name + told.get(family.type, "")]
        assert (family.type, family.documentation) == (row.kind, row.help)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(row.labels), family.name


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_names_follow_the_conventions_that_promtool_checks(family: Family[object]) -> None:
    assert re.fullmatch(r"edge_runtime_[a-z_]+", family.name)
    assert family.help.endswith(".")
    assert family.name.endswith("_total") == (family.kind == "counter")
    assert not SUFFIXES.search(family.base_name)
    assert not re.search(
        r"_(ms|us|ns|kb|mb|milliseconds|percent|histogram|gauge)(_|$)", family.name
    )
    assert not {"le", "quantile", "job", "instance"} & set(family.labels)


@settings(deadline=None)
@given(NAMES, st.lists(st.tuples(st.integers(0, 10**11), st.integers(0, 3000)), max_size=20))
def test_both_formats_carry_every_number(name: str, runs: list[tuple[int, int]]) -> None:
    one = entry(name)
    for ns, rows in runs:
        counters(one).ran(2, rows, 0, ns, 0)
        counters(one).answered(ns, 0, 2 * ns)
    read = sources(one)
    for parse, form in ((prometheus, TEXT), (strictly, OPENMETRICS)):
        found = list(parse(exposition(read, form).decode()))
        mine = {"model": name, "version": "1"}
        compute = "edge_runtime_compute_duration_seconds"
        assert value(found, f"{compute}_count", **mine) == len(runs)
        assert value(found, f"{compute}_sum", **mine) == pytest.approx(
            sum(ns for ns, _ in runs) / 1e9
        )
        assert value(found, "edge_runtime_requests_joined_total", **mine) == 2 * len(runs)
        assert value(found, "edge_runtime_run_rows_sum", **mine) == sum(rows for _, rows in runs)
        for bound in ROWS_BUCKETS:
            below = value(found, "edge_runtime_run_rows_bucket", le=f"{bound:.1f}", **mine)
            assert below == sum(rows <= bound for _, rows in runs)


def test_buckets_are_the_same_whatever_was_seen() -> None:
    busy, idle = entry("busy"), entry("idle")
    for ns in (0, 10**5, 10**8, 10**12):
        counters(busy).ran(1, ns, 1, ns, 1)
        busy.load_durations.add(ns)
    bounds: dict[tuple[str, str], list[str]] = {}
    for family in families(sources(busy, idle)).values():
        for sample in family.samples:
            if "le" in sample.labels:
                bounds.setdefault((family.name, sample.labels["model"]), []).append(
                    sample.labels["le"]
                )
    names = {name for name, _ in bounds}
    assert len(names) == 5
    assert all(bounds[name, "busy"] == bounds[name, "idle"] for name in names)


@given(st.lists(st.integers(0, 10**12), max_size=30))
def test_every_load_is_in_the_bucket_that_holds_it(seen: list[int]) -> None:
    loads = LoadDurations()
    for ns in seen:
        loads.add(ns)
    assert (loads.count, loads.ns) == (len(seen), sum(seen))
    below = 0
    for bound, count in zip(LOAD_BUCKETS_S, loads.buckets, strict=False):
        below += count
        assert below == sum(ns < round(bound * 1e9) for ns in seen)
    assert sum(loads.buckets) == len(seen)


def test_counters_stay_when_a_version_leaves_memory_and_go_on_when_it_is_back() -> None:
    one = entry()
    counters(one).answered(1, 0, 1000)
    one.leave()
    one.sleep()
    one.unloads += 1
    asleep = families(sources(one)).values()
    assert value(asleep, "edge_runtime_requests_total", outcome="success") == 1
    assert value(asleep, "edge_runtime_request_duration_seconds_count") == 1
    assert value(asleep, "edge_runtime_model_loaded") == 0
    assert value(asleep, "edge_runtime_model_size_bytes") == 0
    assert value(asleep, "edge_runtime_model_unloads_total", reason="idle") == 1
    again = bundle("m", 1)
    one.arrive(FakeLoader()(again), again, 0)
    counters(one).answered(1, 0, 1000)
    back = families(sources(one)).values()
    assert value(back, "edge_runtime_requests_total", outcome="success") == 2
    assert value(back, "edge_runtime_model_loads_total") == 2
    assert value(back, "edge_runtime_model_load_duration_seconds_count") == 2
    assert value(back, "edge_runtime_model_loaded") == 1


def test_a_version_that_was_never_loaded_has_only_the_numbers_of_loads() -> None:
    one = entry(loaded=False)
    one.sleep()
    found = families(sources(one)).values()
    assert value(found, "edge_runtime_model_loaded") == 0
    assert value(found, "edge_runtime_model_loads_total") == 0
    assert not list(samples(found, "edge_runtime_requests_total"))


def test_versions_that_were_let_go_do_not_pile_up() -> None:
    entries = [entry("m", number) for number in range(1, 20)]
    for each in entries[:-1]:
        each.leave()
        each.forget("unloaded")
    problem = Registry().entry("m", 0)
    found = families(sources(problem, *entries)).values()
    told = [
        sample.labels["version"]
        for family in found
        for sample in family.samples
        if sample.name == "edge_runtime_model_loaded"
    ]
    assert told == [str(number) for number in range(19 - GONE_MAX, 20)]


def test_parts_of_many_versions_make_one_whole() -> None:
    entries = [entry(f"m{number}", 1) for number in range(70)]
    for number, each in enumerate(entries):
        counters(each).ran(1, number, 1, 1, 1)
    for parse, form in ((prometheus, TEXT), (strictly, OPENMETRICS)):
        found = list(parse(exposition(sources(*entries), form).decode()))
        names = [each.name for each in found]
        assert len(names) == len(set(names))
        rows = list(samples(found, "edge_runtime_inference_rows_total"))
        assert sorted(rows) == list(range(70))


def test_server_numbers_are_there_without_any_model() -> None:
    server = ServerStatistics(1234.5)
    server.responses = {200: 7, 503: 1}
    server.connections_total, server.connections_open, server.connections_refused = 9, 2, 1
    server.records_limited, server.records_dropped = 3, 4
    server.connections_evicted = 6
    found = families(sources(server=server)).values()
    assert value(found, "edge_runtime_http_responses_total", status="503") == 1
    assert value(found, "edge_runtime_connections") == 2
    assert value(found, "edge_runtime_connections_evicted_total") == 6
    assert value(found, "edge_runtime_requests_waiting_for_load") == 5
    assert value(found, "edge_runtime_memory_budget_bytes") == 7
    assert value(found, "edge_runtime_log_records_left_out_total", reason="rate") == 3
    assert value(found, "edge_runtime_log_records_left_out_total", reason="queue") == 4
    assert value(found, "process_resident_memory_bytes") > 0


def test_bounds_are_written_as_openmetrics_wants_them() -> None:
    one = entry()
    text = exposition(sources(one), TEXT).decode()
    for bound in (*DURATION_BUCKETS_S, *LOAD_BUCKETS_S):
        assert f'le="{bound!r}"' in text
        assert len(repr(bound)) <= len("67.108864") + 1  # no digits of binary fractions


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/html", TEXT),
        ("text/plain", TEXT),
        ("application/openmetrics-text", OPENMETRICS),
        ("Application/OpenMetrics-Text; version=1.0.0; charset=utf-8", OPENMETRICS),
        ("text/plain;version=0.0.4,application/openmetrics-text;q=0.5", TEXT),
        ("application/openmetrics-text;q=0", TEXT),
        ("application/openmetrics-text;q=much", TEXT),
        ("application/openmetrics-text;q=nan", TEXT),
        (";,;;q=,=", TEXT),
        (OF_PROMETHEUS, OPENMETRICS),
    ],
)
def test_the_scraper_gets_the_format_it_likes_best(accept: str, chosen: object) -> None:
    assert choose(accept) is chosen


@given(st.text())
def test_no_accept_header_breaks_a_scrape(accept: str) -> None:
    assert choose(accept) in {TEXT, OPENMETRICS}


def test_histograms_in_the_tables_are_histograms() -> None:
    one = entry()
    for family in version_metrics.FAMILIES:
        for version in sources(one).versions():
            for sample in family.read(version):
                assert isinstance(sample.value, Histogram) == (family.kind == "histogram")
