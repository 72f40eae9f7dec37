"""Times for people."""

import math
from typing import Final

from agent.plan.facts import DeviceFacts

_UNITS: Final = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def span(until_s: float, facts: DeviceFacts) -> str:
    """Say how long it is until a moment, in its two largest units.

    Args:
        until_s: The moment, seconds since 1970.
        facts: For the present one.
    """
    return duration(until_s - facts.now_s)


def duration(length_s: float) -> str:
    """Say how long something takes, in its two largest units.

    Args:
        length_s: Seconds.
    """
    if not math.isfinite(length_s):
        return "an unknown time"
    left_s = max(0.0, length_s)
    parts: list[str] = []
    for unit_s, name in _UNITS:
        count, left_s = divmod(left_s, unit_s)
        if count or (not parts and name == "s"):
            parts.append(f"{count:.0f} {name}")
    return " ".join(parts[:2])
