"""Time for deadlines: counted only while the device is awake, whatever the wall clock does.

Linux's ``CLOCK_MONOTONIC`` stands still while the device is suspended (``CLOCK_BOOTTIME`` would go
on) and never jumps when the wall clock is set. It begins anew at each boot, so the sum so far is
kept in the journal (``Journal.tick``): a deadline is a number of awake seconds on this clock, and a
device that is switched off every night comes to it late, never too early. What passed after the
last tick is lost when the daemon dies, so that a deadline may only move out by that much.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_RANDOM_BYTES: Final = 16


class AwakeClock:
    """Seconds that this device was awake with a daemon running, over all its boots.

    Args:
        persisted_s: What the journal said when this daemon started, in seconds.
        monotonic: The clock that goes while the device is awake, in seconds from anywhere.
    """

    def __init__(self, persisted_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._offset_s = max(0.0, persisted_s) - monotonic()

    def now_s(self) -> float:
        """Read the clock, in seconds."""
        return self._offset_s + self._monotonic()


def boot_id(path: Path = BOOT_ID) -> str:
    """Name this boot of the device; another boot has another name.

    Where the kernel does not tell, the name is random, and so another for each process: a daemon
    that died is then never taken to have died in this boot, as if the power had been cut.

    Args:
        path: Where Linux tells it.
    """
    try:
        found = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        found = ""
    return found or f"unknown-{os.urandom(_RANDOM_BYTES).hex()}"
