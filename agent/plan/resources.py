"""Checks of what an update needs now: disk, power, and a link that may be used."""

from typing import Final

from agent.plan.facts import DeviceFacts
from agent.plan.findings import Finding, found
from agent.plan.reasons import Reason

_MIB: Final = 1 << 20


def check_disk(facts: DeviceFacts, needed_bytes: int) -> Finding:
    """Tell whether what is still to be downloaded fits and leaves the reserve free.

    Args:
        facts: The disk.
        needed_bytes: What the rest of the update takes; 0 where it is not known yet.
    """
    room = facts.disk_free_bytes - facts.disk_reserve_bytes
    needed_mib = -(-needed_bytes // _MIB)
    text = (
        f"{facts.disk_free_bytes // _MIB} MiB are free and {facts.disk_reserve_bytes // _MIB} MiB "
        f"must stay so; {needed_mib} MiB are needed"
    )
    if room >= needed_bytes:
        return found("disk", text)
    return found("disk", f"{text}: too little room", Reason.DISK, waits=True)


def check_battery(facts: DeviceFacts) -> Finding:
    """Tell whether there is power enough."""
    if not facts.on_battery:
        known = "is not on battery" if facts.on_battery is not None else "knows of no battery"
        return found("battery", f"the device {known}")
    charge = "unknown" if facts.battery_percent is None else f"{facts.battery_percent:.0f} %"
    text = f"the device is on battery, its charge is {charge}"
    if not facts.allows_battery:
        return found(
            "battery",
            f"{text}; `updates.on_battery` is off",
            Reason.BATTERY,
            waits=True,
        )
    if facts.battery_percent is not None and facts.battery_percent >= facts.battery_percent_min:
        return found("battery", f"{text}, at least {facts.battery_percent_min} % is needed")
    return found(
        "battery",
        f"{text}; at least {facts.battery_percent_min} % is needed",
        Reason.BATTERY,
        waits=True,
    )


def check_link(facts: DeviceFacts) -> Finding:
    """Tell whether artifacts may be downloaded over the present link."""
    if not facts.metered:
        return found("link", "the link is not metered")
    if facts.allows_metered:
        return found("link", "the link is metered; within the byte budget it may be used")
    return found(
        "link", "the link is metered and `updates.on_metered` is off", Reason.METERED, waits=True
    )
