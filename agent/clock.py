"""The time on a device whose clock may be wrong: never earlier than what is past for sure.

The time floor rises with facts: this program was built, the fleet signed a plan, a repository was
found fresh by a clock that is synchronised. It is kept over restarts, and rises with the time that
the device has been awake since.
"""

import ctypes
import logging
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, Protocol

_log = logging.getLogger(__name__)

BUILT_S: Final = 1_788_220_800.0
"""2026-09-01, before which this program cannot run; raised now and then with a release."""
KEEP_EVERY_S: Final = 3600.0
"""The floor is written only when it has risen by so much: flash wears out."""
AHEAD_S_MAX: Final = 86_400.0
"""A fact that is so much later than a synchronised clock is not believed."""
TIMESYNC_MARK: Final = Path("/run/systemd/timesync/synchronized")
STA_UNSYNC: Final = 0x0040

Trust = Literal["auto", "yes", "no"]


class KeptFloor(Protocol):
    """Where the floor is kept."""

    def time_s(self) -> float:
        """Read it; 0: none was kept."""

    def keep_time(self, seconds: float) -> None:
        """Write it."""


class Clock:
    """Tells the time, as well as it is known; any thread may ask.

    Args:
        kept: Where the floor is kept.
        trust: Whether the system clock can be believed; ``auto``: when it is synchronised.
        system: The system clock, seconds since 1970.
        awake: A clock that only goes forward, seconds.
        synchronised: Tells whether the system clock is.
        built_s: When this program was built.

    Raises:
        StateError: The kept floor cannot be read.
    """

    def __init__(
        self,
        kept: KeptFloor,
        trust: Trust = "auto",
        *,
        system: Callable[[], float] = time.time,
        awake: Callable[[], float] = time.monotonic,
        synchronised: Callable[[], bool] | None = None,
        built_s: float = BUILT_S,
    ) -> None:
        self._kept = kept
        self._trust = trust
        self._system = system
        self._awake = awake
        self._synchronised = synchronised or is_synchronised
        self._lock = threading.Lock()
        self._kept_s = kept.time_s()
        self._base_s = max(built_s, self._kept_s)
        self._base_awake_s = awake()

    @property
    def floor_s(self) -> float:
        """A time that is past for sure, seconds since 1970."""
        with self._lock:
            return self._floor_s()

    def wall_s(self) -> float:
        """Tell the time, seconds since 1970: the system's where it can be believed.

        Else it is never before the floor. A floor ahead of a clock that can be believed came from
        somebody whose clock was wrong, or who lied: guard-rails are not counted by it.
        """
        return self._system() if self.is_trusted() else max(self._system(), self.floor_s)

    def is_trusted(self) -> bool:
        """Tell whether :meth:`wall_s` can be believed, and is not only the latest time known."""
        if self._trust == "no" or self._system() < self.floor_s - AHEAD_S_MAX:
            return False
        return self._trust == "yes" or self._synchronised()

    def raise_floor(self, seconds: float) -> None:
        """Take note of a time that is past for sure, and keep it.

        Args:
            seconds: Since 1970. One that is over a day ahead of a clock that can be believed is
                not taken: somebody else's clock must be wrong.

        Raises:
            StateError: The disk refused; the floor has risen until the next restart all the same.
        """
        if not math.isfinite(seconds):
            return
        if self.is_trusted() and seconds > self._system() + AHEAD_S_MAX:
            _log.warning("a time that is signed lies in the future; is the fleet's clock wrong?")
            return
        if self.is_trusted():
            seconds = min(seconds, self._system())
        with self._lock:
            if seconds > self._floor_s():
                self._base_s = seconds
                self._base_awake_s = self._awake()
            floor_s = self._floor_s()
            if floor_s < self._kept_s + KEEP_EVERY_S:
                return
            self._kept.keep_time(floor_s)
            self._kept_s = floor_s

    def _floor_s(self) -> float:
        return self._base_s + max(0.0, self._awake() - self._base_awake_s)


class _Timex(ctypes.Structure):
    """The beginning of the kernel's ``struct timex``; the rest is only made room for."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("frequency", ctypes.c_long),
        ("most_error", ctypes.c_long),
        ("estimated_error", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 512),
    )


def is_synchronised() -> bool:
    """Ask the kernel, and systemd's time service, whether the system clock is synchronised."""
    if TIMESYNC_MARK.exists():
        return True
    timex = _Timex()
    try:
        answer = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError):
        return False
    return answer >= 0 and not timex.status & STA_UNSYNC
