"""Failures in a row of a candidate under real traffic, and what its counters say."""

from dataclasses import dataclass, field
from typing import cast

from edge_runtime.metrics import VersionStatistics
from edge_runtime.release.evidence import Side
from edge_runtime.release.watch import Streak, Traffic
from edge_runtime.routing import LoadedVersion


@dataclass
class _Counted:
    """A version of which only the counters matter."""

    statistics: VersionStatistics = field(default_factory=VersionStatistics)

    @property
    def loaded(self) -> LoadedVersion:
        return cast("LoadedVersion", self)

    def answer(self, ns: int = 1_000_000) -> None:
        self.statistics.answered(0, 0, ns)
        self.statistics.ran(1, 1, 0, ns, 0)

    def fail(self) -> None:
        self.statistics.failed("BACKEND", 1)


def test_failures_in_a_row_add_up_until_one_is_answered() -> None:
    candidate, proven = _Counted(), _Counted()
    streak = Streak(candidate.loaded, proven.loaded)
    streak.failed()
    streak.failed()
    assert streak.count == 2
    candidate.answer()
    assert streak.count == 0
    streak.failed()
    assert streak.count == 1


def test_an_input_that_is_wrong_for_both_counts_against_nobody() -> None:
    candidate, proven = _Counted(), _Counted()
    streak = Streak(candidate.loaded, proven.loaded)
    for _ in range(5):
        streak.failed()
        proven.fail()
    assert streak.count == 0


def test_failures_before_the_step_do_not_count() -> None:
    candidate, proven = _Counted(), _Counted()
    proven.fail()
    streak = Streak(candidate.loaded, proven.loaded)
    streak.failed()
    assert streak.count == 1


def test_traffic_is_what_happened_since_the_last_look() -> None:
    version = _Counted()
    version.answer()
    traffic = Traffic(version.loaded)
    assert traffic.since() == Side()
    version.answer(2_000_000)
    version.answer(4_000_000)
    version.fail()
    assert traffic.since() == Side(runs=3, errors=1, answered_s=0.006)
    assert traffic.since() == Side()


def test_a_version_without_traffic_did_nothing() -> None:
    assert Traffic(None).since() == Side()
