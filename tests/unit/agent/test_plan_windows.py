"""Maintenance windows by the clock on the wall: midnight, weekdays, and both changes of clocks."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.plan.reasons import Reason
from agent.plan.windows import DAYS, check_window
from agent.plan.zones import SystemZones
from fleet.documents.plan import Window
from tests.agent_plans import device


def _at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def _is_open(window: Window, text: str) -> bool:
    return check_window(device(now_s=_at(text)), window).passed


NIGHT = Window(days=("fri",), begin="22:00", end="04:00", zone="utc")


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2027-01-15T21:59:59", False),
        ("2027-01-15T22:00", True),
        ("2027-01-16T00:00", True),
        ("2027-01-16T03:59:59", True),
        ("2027-01-16T04:00", False),
        ("2027-01-16T22:30", False),
        ("2027-01-15T01:00", False),
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins(
    *, moment: str, is_open: bool
) -> None:
    assert _is_open(NIGHT, moment) == is_open


def test_a_closed_window_says_when_it_opens() -> None:
    finding = check_window(device(now_s=_at("2027-01-16T05:00")), NIGHT)
    assert finding.reason is Reason.WINDOW_CLOSED
    assert finding.again_at_s == _at("2027-01-22T22:00")
    assert "it is sat 05:00" in finding.sentence
    later_today = Window(begin="22:00", end="23:00", zone="utc")
    finding = check_window(device(now_s=_at("2027-01-16T05:00")), later_today)
    assert finding.again_at_s == _at("2027-01-16T22:00")


def test_a_window_follows_summer_time() -> None:
    window = Window(begin="02:00", end="05:00", zone="Europe/Berlin")
    assert _is_open(window, "2027-01-15T01:00")  # 02:00 at home
    assert not _is_open(window, "2027-07-15T04:00")  # 06:00
    assert _is_open(window, "2027-07-15T00:30")  # 02:30


def test_the_hour_that_is_left_out_is_in_no_window_and_the_rest_of_it_is() -> None:
    window = Window(begin="02:00", end="04:00", zone="Europe/Berlin")
    assert not _is_open(window, "2027-03-28T00:59:59")  # 01:59:59, then clocks show 03:00
    assert _is_open(window, "2027-03-28T01:00")  # 03:00
    assert not _is_open(window, "2027-03-28T02:00")  # 04:00
    gone = Window(begin="02:00", end="03:00", zone="Europe/Berlin")
    assert not _is_open(gone, "2027-03-28T00:59:59")
    assert not _is_open(gone, "2027-03-28T01:00")


def test_the_hour_that_comes_twice_is_in_its_window_twice() -> None:
    window = Window(begin="02:00", end="03:00", zone="Europe/Berlin")
    assert _is_open(window, "2027-10-31T00:30")
    assert _is_open(window, "2027-10-31T01:30")
    assert not _is_open(window, "2027-10-31T02:00")


@given(
    st.datetimes(datetime(2026, 1, 1), datetime(2029, 1, 1)),  # noqa: DTZ001 - zones are added
    st.integers(0, 1439),
    st.integers(0, 1439),
    st.lists(st.sampled_from(DAYS), max_size=3, unique=True),
    st.sampled_from(("utc", "Europe/Berlin", "America/New_York", "local")),
)
def test_a_window_opens_when_it_says_and_not_before(
    moment: datetime, begin: int, end: int, days: list[str], zone: str
) -> None:
    window = Window(
        days=tuple(days),  # type: ignore[arg-type]
        begin=f"{begin // 60:02}:{begin % 60:02}",
        end=f"{end // 60:02}:{end % 60:02}",
        zone=zone,
    )
    now_s = moment.replace(tzinfo=UTC).timestamp()
    finding = check_window(device(now_s=now_s), window)
    if finding.passed:
        return
    opens_s = finding.again_at_s
    assert opens_s is not None
    assert now_s < opens_s <= now_s + timedelta(days=8, hours=2).total_seconds()
    zones = SystemZones()
    shown = zones.wall(opens_s, zone)
    assert shown is not None
    # Except where clocks are changed in just that hour, it is open then.
    if (shown.hour, shown.minute) == (begin // 60, begin % 60):
        assert check_window(device(now_s=opens_s), window).passed


def test_zones_that_nobody_knows_are_said_to_be_unknown() -> None:
    zones = SystemZones()
    for name in ("No/Where", "", "../../etc/passwd", "/etc/localtime"):
        assert zones.wall(0.0, name) is None
        assert zones.moment(datetime(2027, 1, 1), name) is None  # noqa: DTZ001
    assert zones.wall(float("nan"), "utc") is None
    assert zones.wall(1e300, "local") is None
