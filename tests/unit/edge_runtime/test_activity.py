"""What ``edge-runtime top`` makes of two looks at the metrics."""

import math
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from edge_runtime.api.exposition import exposition
from edge_runtime.api.metric_sources import Sources
from edge_runtime.cli.activity import ASLEEP, Activity, Look, activity, quantile
from edge_runtime.cli.scrape import samples
from edge_runtime.cli.screen import fitted
from edge_runtime.cli.top import lines
from edge_runtime.errors import ProtocolError
from edge_runtime.metrics import DURATION_BUCKETS_S, Durations, ServerStatistics
from edge_runtime.protocol.schemas import LOADS_WHEN_ASKED, IndexEntry
from edge_runtime.registry import Registry
from edge_runtime.registry_entry import Entry
from tests.fakes import FakeLoader, bundle

if TYPE_CHECKING:
    from edge_runtime.catalog import Catalog

MS = 1_000_000


class Known:
    """As much of a catalog as is read."""

    budget_bytes = 0
    waiting = 0

    def __init__(self, *entries: Entry) -> None:
        self._entries = entries

    def entries(self) -> list[Entry]:
        """List them."""
        return list(self._entries)

    def traffic(self, _name: str) -> None:
        """Say that nobody directed any."""


def entry(name: str, number: int = 1) -> Entry:
    made = Registry().entry(name, number)
    wanted = bundle(name, number)
    made.arrive(FakeLoader()(wanted), wanted, 0)
    return made


def answer(one: Entry, count: int, ms: int, rows: int = 1) -> None:
    assert one.loaded is not None
    for _ in range(count):
        one.loaded.statistics.ran(1, rows, 0, ms * MS, 0)
        one.loaded.statistics.answered(0, 0, ms * MS)


def text_of(*entries: Entry, started_s: float = 1.0) -> str:
    sources = Sources(cast("Catalog", Known(*entries)), ServerStatistics(started_s))
    return exposition(sources).decode()


def look(*entries: Entry, at_s: float = 0.0, started_s: float = 1.0) -> Look:
    index = [IndexEntry(each.name, each.text, each.state.state) for each in entries]
    return Look.read(text_of(*entries, started_s=started_s), index, at_s)


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@settings(deadline=None)
@given(NAMES)
def test_our_reader_reads_what_the_library_s_reader_does(name: str) -> None:
    one = entry(name)
    answer(one, 2, 3)
    text = text_of(one)
    theirs = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    wanted = {sample for sample, _ in theirs}
    ours = {(key, tuple(sorted(labels.items()))): v for key, labels, v in samples(text, wanted)}
    assert ours == theirs


@pytest.mark.parametrize(
    "line", ["x", "x{", 'x{a="b} 1', "x one", 'x{a="b"c="d"} 1', 'x{a="b" , } 1', "{} 1", "x  1"]
)
def test_what_is_no_exposition_is_refused(line: str) -> None:
    with pytest.raises(ProtocolError, match="cannot be read"):
        list(samples(f"# HELP x y\n{line}\n", {"x"}))


def test_rates_are_those_of_the_interval() -> None:
    one = entry("m")
    answer(one, 100, 5)
    before = look(one)
    answer(one, 30, 2, rows=4)
    assert one.loaded is not None
    one.loaded.statistics.failed("OTHER", 1)
    seen = activity(before, look(one, at_s=2.0), "now")
    (row,) = seen.versions
    assert (row.requests_per_s, row.failures_per_s) == (15, 0.5)
    assert row.rows_per_run == 4
    assert row.queue_ms == 0
    assert row.compute_ratio == pytest.approx(0.03)
    assert row.p50_ms is not None
    assert row.p99_ms is not None
    assert 1.024 <= row.p50_ms <= row.p99_ms <= 2.048
    assert (seen.requests_per_s, seen.interval_s) == (15, 2)


def test_an_idle_version_has_no_times() -> None:
    one = entry("m")
    answer(one, 5, 5)
    (row,) = activity(look(one), look(one, at_s=1.0), "now").versions
    assert (row.requests_per_s, row.p50_ms, row.queue_ms, row.rows_per_run) == (0, None, None, None)
    assert row.cache_hit_ratio is None


def test_the_busiest_comes_first() -> None:
    lazy, quick, heavy = entry("lazy"), entry("quick"), entry("heavy")
    before = look(lazy, quick, heavy)
    answer(quick, 50, 1)
    answer(heavy, 2, 400)
    seen = activity(before, look(lazy, quick, heavy, at_s=1.0), "now")
    assert [row.model for row in seen.versions] == ["heavy", "quick", "lazy"]


def test_a_daemon_that_started_anew_is_counted_from_zero() -> None:
    one = entry("m")
    answer(one, 1000, 1)
    before = look(one, started_s=1.0)
    one = entry("m")
    answer(one, 7, 1)
    after = look(one, at_s=10.0, started_s=2.0)
    assert isinstance(after.server, dict)
    after.server["edge_runtime_uptime_seconds"] = 3.5
    seen = activity(before, after, "now")
    assert seen.interval_s == 3.5
    assert seen.versions[0].requests_per_s == 2
    assert (seen.cpu_ratio or 0) >= 0


def test_a_counter_that_began_anew_does_not_become_negative() -> None:
    one = entry("m")
    answer(one, 10, 1)
    before = look(one)
    one = entry("m")
    answer(one, 4, 1)
    (row,) = activity(before, look(one, at_s=1.0), "now").versions
    assert row.requests_per_s == 4


def test_versions_are_those_of_the_index_with_their_state() -> None:
    one = entry("m")
    text = text_of(one)
    index = [
        IndexEntry("m", "1", "READY", f"{LOADS_WHEN_ASKED} (idle)"),
        IndexEntry("m", "2", "UNAVAILABLE", "broken"),
        IndexEntry("whole", "", "UNAVAILABLE", "no files"),
    ]
    after = Look.read(text, index, 1.0)
    states = {
        (row.model, row.version): row.state
        for row in activity(Look.read(text, index, 0.0), after, "now").versions
    }
    assert states == {
        ("m", "1"): ASLEEP,
        ("m", "2"): "UNAVAILABLE",
        ("whole", ""): "UNAVAILABLE",
    }
    assert not activity(after, Look.read(text, [], 2.0), "now").versions


@given(st.lists(st.integers(16_000, 30 * 10**9), min_size=1, max_size=60), st.floats(0.01, 1))
def test_a_quantile_is_within_the_bucket_of_the_exact_one(seen: list[int], share: float) -> None:
    durations = Durations()
    for ns in seen:
        durations.add(ns)
    below = 0
    buckets = []
    for bound, count in zip((*DURATION_BUCKETS_S, math.inf), durations.buckets, strict=True):
        below += count
        buckets.append((bound, float(below)))
    exact = sorted(seen)[math.ceil(share * len(seen)) - 1] / 1e9
    estimate = quantile(share, buckets)
    assert estimate is not None
    assert exact / 2 * (1 - 1e-6) <= estimate <= exact * 2 * (1 + 1e-6)


def test_a_quantile_of_nothing_is_nothing_and_beyond_the_last_bucket_its_bound() -> None:
    assert quantile(0.5, [(1.0, 0.0), (math.inf, 0.0)]) is None
    assert quantile(0.5, [(1.0, 0.0), (math.inf, 3.0)]) == 1.0


def test_lines_are_cut_to_the_terminal() -> None:
    text = [f"line {number} of some length" for number in range(10)]
    shown = fitted(text, 6, 5)
    assert shown == ["line 0", "line 1", "line 2", "... 7 "]
    assert fitted(text, 80, 30) == text
    assert fitted(text, 0, 0) == ["."]


def test_control_codes_in_a_name_do_not_reach_the_terminal() -> None:
    one = entry("\x1b[31m")
    before = look(one)
    answer(one, 1, 1)
    shown = "\n".join(lines(activity(before, look(one, at_s=1.0), "now"), "\x1b[2J"))
    assert "\x1b" not in shown
    assert "\x1b" not in "\n".join(lines(Activity(time="now", error="\x1b[2J"), "x"))
