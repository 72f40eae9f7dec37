"""What the device itself is like: the only import of psutil."""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil

from agent.telemetry.link_class import default_interfaces, is_metered

_KELVIN_ZERO_C: Final = -273.15


class Host(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Measurements of the device; ``None`` where it cannot tell.

    Attributes:
        cpu_percent: Share of all processors since the last reading.
        load_1: Runnable processes, mean over a minute.
        memory_bytes: Of the device.
        memory_available_bytes: What programs can still get.
        disk_bytes: Of the file system that holds the agent's state.
        disk_free_bytes: What an unprivileged program can still write there.
        temperature_c: Of the hottest sensor.
        battery_percent: Its charge.
        on_battery: Whether it is not plugged in.
        is_metered: Whether bytes cost money.
        uptime_s: Since the device started.
        agent_memory_bytes: Resident memory of this process.
    """

    cpu_percent: float | None = None
    load_1: float | None = None
    memory_bytes: int = 0
    memory_available_bytes: int = 0
    disk_bytes: int = 0
    disk_free_bytes: int = 0
    temperature_c: float | None = None
    battery_percent: float | None = None
    on_battery: bool | None = None
    is_metered: bool = False
    uptime_s: float = 0.0
    agent_memory_bytes: int = 0


def read_host(state: Path, link: str, now_s: float) -> Host:
    """Measure; what the device does not have is left out, and nothing is raised.

    Args:
        state: The agent's folder, for its file system.
        link: ``device.link`` of the configuration.
        now_s: Seconds since the epoch by the system's clock.
    """
    memory = psutil.virtual_memory()
    disk_bytes, disk_free_bytes = _disk(state)
    percent, on_battery = _battery()
    return Host(
        cpu_percent=psutil.cpu_percent(),
        load_1=round(os.getloadavg()[0], 2),
        memory_bytes=memory.total,
        memory_available_bytes=memory.available,
        disk_bytes=disk_bytes,
        disk_free_bytes=disk_free_bytes,
        temperature_c=_temperature_c(),
        battery_percent=percent,
        on_battery=on_battery,
        is_metered=is_metered(link, default_interfaces()),
        uptime_s=round(max(0.0, now_s - psutil.boot_time()), 1),
        agent_memory_bytes=psutil.Process().memory_info().rss,
    )


def _disk(state: Path) -> tuple[int, int]:
    with contextlib.suppress(OSError):
        usage = shutil.disk_usage(state)
        return usage.total, usage.free
    return 0, 0


def _battery() -> tuple[float | None, bool | None]:
    with contextlib.suppress(OSError, ValueError, AttributeError, NotImplementedError):
        battery: Any = psutil.sensors_battery()  # None where there is none, whatever its types say
        if battery is not None:
            plugged = battery.power_plugged
            return round(battery.percent, 1), None if plugged is None else not plugged
    return None, None


def _temperature_c() -> float | None:
    with contextlib.suppress(OSError, ValueError, AttributeError, NotImplementedError):
        sensors: Any = psutil.sensors_temperatures()
        readings = [each.current for group in sensors.values() for each in group]
        found = [each for each in readings if each is not None and each > _KELVIN_ZERO_C]
        return round(max(found), 1) if found else None
    return None
