"""The time on a device whose clock may be wrong: never earlier than what is past for sure.

The time floor rises with facts: this program was built, a repository was found fresh by a clock
that is synchronised, the fleet signed a plan. It is kept over restarts, and rises with the time
that the device has been awake since. The last of these facts is somebody's word: whoever stole the
key that signs plans can carry such a floor ahead. So it is kept apart. It holds only while the keys
that vouched for it do, and a clock that the kernel calls synchronised is believed against it. It is
good for expiry, and for nothing that counts how much time has passed: see ``agent.elapsed_time``.
"""

import ctypes
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class SignedTime:
    """A time that is past for sure if those who signed it did not lie.

    Attributes:
        seconds: Since 1970.
        authority: Digest of the keys that vouch for it.
    """

    seconds: float
    authority: str


class KeptFloor(Protocol):
    """Where the floor is kept."""

    def time_s(self) -> float:
        """Read it; 0: none was kept."""

    def keep_time(self, seconds: float) -> None:
        """Write it."""

    def signed_time(self) -> SignedTime | None:
        """Read what others signed; ``None``: nothing was kept."""

    def keep_signed_time(self, signed: SignedTime | None) -> None:
        """Write it, or forget it."""


class NoFloor:
    """A floor that is kept nowhere, for runs that remember nothing."""

    def time_s(self) -> float:
        """Give none."""
        return 0.0

    def keep_time(self, seconds: float) -> None:
        """Forget it."""

    def signed_time(self) -> None:
        """Give none."""

    def keep_signed_time(self, signed: SignedTime | None) -> None:
        """Forget it."""


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
        self._signed = self._kept_signed = kept.signed_time()
        self._signed_awake_s = self._base_awake_s

    @property
    def floor_s(self) -> float:
        """A time that is past for sure, seconds since 1970."""
        with self._lock:
            return self._floor_s()

    @property
    def own_floor_s(self) -> float:
        """The same without what others signed: no key, stolen or replaced, carries it ahead.

        Dates of TLS certificates are judged by it. Judged by what was signed, one wrong date would
        cut this device off everything that could put it right.
        """
        with self._lock:
            return self._own_s()

    def wall_s(self) -> float:
        """Tell the time, seconds since 1970: the system's where it can be believed.

        Else it is never before the floor. A floor ahead of a clock that can be believed came from
        somebody whose clock was wrong, or who lied.
        """
        return self._system() if self.is_trusted() else max(self._system(), self.floor_s)

    def is_trusted(self) -> bool:
        """Tell whether :meth:`wall_s` can be believed, and is not only the latest time known.

        What this device knows by itself speaks against any clock that is behind it; what others
        signed speaks against one of which only the owner says that it is right.
        """
        system_s = self._system()
        with self._lock:
            own_s, floor_s = self._own_s(), self._floor_s()
        if self._trust == "no" or system_s < own_s - AHEAD_S_MAX:
            return False
        is_owners_word = self._trust == "yes" and system_s >= floor_s - AHEAD_S_MAX
        return is_owners_word or self._synchronised()

    def believed_s(self) -> float | None:
        """Tell the time where it can be believed, seconds since 1970; ``None``: it cannot."""
        return self._system() if self.is_trusted() else None

    def raise_floor(self, seconds: float, authority: str = "") -> None:
        """Take note of a time that is past for sure, and keep it.

        Args:
            seconds: Since 1970. One that is over a day ahead of a clock that can be believed is
                not taken: somebody else's clock must be wrong.
            authority: Whose keys vouch for it; empty: this device knows it by itself.

        Raises:
            StateError: The disk refused; the floor has risen until the next restart all the same.
        """
        if not math.isfinite(seconds):
            return
        believed_s = self.believed_s()
        if believed_s is not None:
            if seconds > believed_s + AHEAD_S_MAX:
                _log.warning("a time that is signed is in the future; is the fleet's clock wrong?")
                return
            seconds, authority = min(seconds, believed_s), ""
        with self._lock:
            if seconds > self._floor_s() and authority:
                self._signed = SignedTime(seconds, authority)
                self._signed_awake_s = self._awake()
            elif seconds > self._own_s() and not authority:
                self._base_s, self._base_awake_s = seconds, self._awake()
            self._keep()

    def keep_floor(self) -> None:
        """Keep what the floor has risen by with the time awake, if that is worth it.

        Raises:
            StateError: The disk refused.
        """
        with self._lock:
            self._keep()

    def heed_authority(self, authority: str) -> bool:
        """Forget what was signed with keys that others have replaced.

        Args:
            authority: Digest of the keys that vouch for times now; empty: nobody knows.

        Returns:
            Whether there was something to forget.

        Raises:
            StateError: The disk refused; it is forgotten until the next restart all the same.
        """
        with self._lock:
            if self._signed is None or authority in {"", self._signed.authority}:
                return False
            self._signed = None
            self._keep()
            return True

    def _keep(self) -> None:
        own_s = self._own_s()
        if own_s >= self._kept_s + KEEP_EVERY_S:
            self._kept.keep_time(own_s)
            self._kept_s = own_s
        before, now = self._kept_signed, self._signed
        if now is not None:
            now = SignedTime(self._signed_s(), now.authority)
        is_other = (before and before.authority) != (now and now.authority)
        if is_other or (before and now and now.seconds >= before.seconds + KEEP_EVERY_S):
            self._kept.keep_signed_time(now)
            self._kept_signed = now

    def _own_s(self) -> float:
        return self._base_s + max(0.0, self._awake() - self._base_awake_s)

    def _signed_s(self) -> float:
        if self._signed is None:
            return -math.inf
        return self._signed.seconds + max(0.0, self._awake() - self._signed_awake_s)

    def _floor_s(self) -> float:
        return max(self._own_s(), self._signed_s())


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
