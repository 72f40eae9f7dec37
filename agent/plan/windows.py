"""Maintenance windows: whether one is open, and when it opens next.

A window is judged by the clock on the wall, of the day on which it begins: ``fri 22:00-04:00`` is
open on Saturday at 3. Where clocks go forward the hour that is left out is in no window; where they
go back the hour that comes twice is in it twice.
"""

import re
from datetime import datetime, timedelta
from typing import Final

from agent.plan.facts import DeviceFacts
from agent.plan.findings import Finding, found
from agent.plan.reasons import Reason
from fleet.documents.plan import Window

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LOOK_DAYS: Final = 8
"""Every window that is ever open begins within so many days."""
_DAY_MINUTES: Final = 1440
_TIME: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


def check_window(facts: DeviceFacts, window: Window | None) -> Finding:
    """Tell whether the device may change versions now.

    Args:
        facts: The time, and whether it can be believed.
        window: The plan's.
    """
    name = "window"
    if window is None:
        return found(name, "the plan has no maintenance window")
    text = f"{window.begin}-{window.end} {window.zone} on {', '.join(window.days) or 'every day'}"
    if not facts.is_clock_trusted:
        return found(
            name,
            f"the clock is not trusted, so nobody can say whether the window {text} is open",
            Reason.WINDOW_UNKNOWN,
            waits=True,
        )
    begin, end = _minutes(window.begin), _minutes(window.end)
    wall = facts.zones.wall(facts.now_s, window.zone)
    if begin is None or end is None or wall is None:
        return found(
            name,
            f"the window {text} cannot be told on this device: its time zone is not known here",
            Reason.WINDOW_UNKNOWN,
            waits=True,
        )
    shown = f"{DAYS[wall.weekday()]} {wall:%H:%M}"
    if _is_open(window, begin, end, wall):
        return found(name, f"it is {shown}: the window {text} is open")
    return found(
        name,
        f"it is {shown}: the window {text} is closed",
        Reason.WINDOW_CLOSED,
        waits=True,
        again_at_s=_opens(facts, window, begin, wall),
    )


def _is_open(window: Window, begin: int, end: int, wall: datetime) -> bool:
    minute = wall.hour * 60 + wall.minute
    today = DAYS[wall.weekday()]
    yesterday = DAYS[wall.weekday() - 1]
    length = (end - begin) % _DAY_MINUTES or _DAY_MINUTES
    since_today, since_yesterday = minute - begin, minute - begin + _DAY_MINUTES
    return (_has(window, today) and 0 <= since_today < length) or (
        _has(window, yesterday) and since_yesterday < length
    )


def _opens(facts: DeviceFacts, window: Window, begin: int, wall: datetime) -> float | None:
    midnight = wall.replace(hour=0, minute=0, second=0, microsecond=0)
    for day in range(_LOOK_DAYS):
        try:
            opens = midnight + timedelta(days=day, minutes=begin)
        except OverflowError:  # the calendar ends
            return None
        moment = facts.zones.moment(opens, window.zone)
        if moment is not None and moment > facts.now_s and _has(window, DAYS[opens.weekday()]):
            return moment
    return None


def _has(window: Window, day: str) -> bool:
    return not window.days or day in window.days


def _minutes(text: str) -> int | None:
    match = _TIME.fullmatch(text)
    return None if match is None else int(match[1]) * 60 + int(match[2])
