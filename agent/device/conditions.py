"""Reads what decisions need to know of this device."""

import time
from collections.abc import Callable
from typing import Protocol

from agent import __version__
from agent.clock import Clock
from agent.plan.facts import DeviceFacts, ModelFacts
from agent.settings.device import Device, Updates
from agent.telemetry.host import Host
from edge_runtime.hardware import CpuFacts

HOST_S = 5.0
"""A reading of battery, link and disk is used again for so long."""


class Pause(Protocol):
    """Tells until when a command paused updates."""

    def until_s(self) -> float:
        """Seconds since 1970; 0: it is not."""
        ...


class Clone(Protocol):
    """Tells whether another device has this one's identity."""

    def stands(self) -> bool:
        """Whether it was seen."""
        ...


class Conditions:
    """Gives the facts of this device.

    Args:
        device: Its name, its fleet, its labels, its channel.
        updates: What its owner allows.
        reserve_bytes: Disk space that stays free.
        cpu: Its processor.
        host: Measures it.
        clock: Tells the time.
        pause: Knows whether updates are paused.
        clone: Knows whether another device has this identity.
    """

    def __init__(
        self,
        device: Device,
        updates: Updates,
        *,
        reserve_bytes: int,
        cpu: CpuFacts,
        host: Callable[[], Host],
        clock: Clock,
        pause: Pause,
        clone: Clone,
    ) -> None:
        self._device = device
        self._updates = updates
        self._reserve_bytes = reserve_bytes
        self._cpu = cpu
        self._measure = host
        self._clock = clock
        self._pause = pause
        self._clone = clone
        self._host = Host()
        self._measured_s = float("-inf")

    def host(self) -> Host:
        """Give a reading of the device that is some seconds old at most."""
        now_s = time.monotonic()
        if now_s - self._measured_s > HOST_S:
            self._host, self._measured_s = self._measure(), now_s
        return self._host

    def facts(
        self,
        models: dict[str, ModelFacts],
        changes: dict[str, tuple[float, ...]],
        *,
        elapsed_s: float,
        plan_known_s: float,
    ) -> DeviceFacts:
        """Put everything together.

        Args:
            models: What is known of models.
            changes: Moments at which their versions changed by the fleet's order.
            elapsed_s: Now, by the counter of elapsed time.
            plan_known_s: For how long the plans have been known.
        """
        host = self.host()
        return DeviceFacts(
            device=self._device.id,
            fleet=self._device.fleet,
            channel=self._device.channel,
            labels=self._device.labels,
            arch=self._cpu.arch,
            cpu_flags=self._cpu.flags,
            memory_bytes=host.memory_bytes,
            disk_free_bytes=host.disk_free_bytes,
            disk_reserve_bytes=self._reserve_bytes,
            on_battery=host.on_battery,
            battery_percent=host.battery_percent,
            allows_battery=self._updates.on_battery,
            battery_percent_min=self._updates.battery_percent_min,
            metered=host.is_metered,
            allows_metered=self._updates.on_metered,
            now_s=self._clock.wall_s(),
            is_clock_trusted=self._clock.is_trusted(),
            elapsed_s=elapsed_s,
            plan_known_s=plan_known_s,
            agent_version=__version__,
            models=models,
            changes=changes,
            paused_until_s=self._pause.until_s(),
            is_cloned=self._clone.stands(),
        )
