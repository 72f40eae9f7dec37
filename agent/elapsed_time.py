"""How much time has passed on this device: a counter that nobody outside can move.

Guard-rails that the offline key signed are counted by it: how long a stage has lasted, when a
version changed, since when a plan is known. The time of day will not do: where it cannot be
believed, the latest plan that anybody signed moves it, see ``agent.clock``.

The counter goes while the device is on: ``CLOCK_BOOTTIME``, summed over boots. Time in which it was
off counts only if the system clock could be believed both before and after; once in a boot, so that
a clock that is set while the agent runs counts for nothing. A clock that goes back is not taken
over: later it would seem that time had passed. What is not known for sure is left out: the counter
may be slow, and guard-rails then hold for longer.

It is fast in one case: a time server that lies and is believed, as plain NTP is, adds the time
between the lie and the truth at a boot, at most ``MADE_UP_S_MAX`` for each boot.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from agent.errors import StateError

_log = logging.getLogger(__name__)

KEEP_S_MIN: Final = 300.0
KEEP_S_MAX: Final = 3600.0
KEEP_SHARE: Final = 0.125
"""What a power cut may lose: this share of the time since the start, within the two limits."""
MADE_UP_S_MAX: Final = 31 * 86_400.0
"""Most that one boot makes up for; somebody may lie to a clock that is believed."""
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Belief:
    """A moment at which the system clock could be believed.

    Attributes:
        wall_s: What it showed, seconds since 1970; after it went back, what it would have shown.
        elapsed_s: The counter then.
        boot_id: Of the boot.
    """

    wall_s: float
    elapsed_s: float
    boot_id: str


@dataclass(frozen=True)
class Kept:
    """What is kept over restarts.

    Attributes:
        elapsed_s: The counter when it was written.
        boot_id: Of the boot; empty: not known.
        since_boot_s: How old that boot was.
        belief: The last moment whose time of day was believed; ``None``: there was none.
    """

    elapsed_s: float = 0.0
    boot_id: str = ""
    since_boot_s: float = 0.0
    belief: Belief | None = None


class Keeper(Protocol):
    """Where the counter is kept."""

    def kept(self) -> Kept:
        """Read it."""

    def keep(self, kept: Kept) -> None:
        """Write it, durably."""


def since_boot_s() -> float:
    """Give the age of this boot in seconds, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Give what names this boot; empty: nothing does."""
    with contextlib.suppress(OSError):
        return BOOT_ID.read_text("ascii").strip()
    return ""


class ElapsedTime:
    """Counts; any thread may ask.

    Args:
        keeper: Where it is kept.
        believed_s: Gives the time of day where it can be believed, seconds since 1970, or ``None``.
        since_boot: A clock that goes from boot to boot and only forward, in seconds.
        boot: Names this boot; empty: nothing does, and each start is taken for one.

    Raises:
        StateError: What is kept cannot be read.
    """

    def __init__(
        self,
        keeper: Keeper,
        believed_s: Callable[[], float | None],
        *,
        since_boot: Callable[[], float] = since_boot_s,
        boot: Callable[[], str] = boot_id,
    ) -> None:
        self._keeper = keeper
        self._believed_s = believed_s
        self._since_boot_s = since_boot
        self._boot_id = boot()
        self._lock = threading.Lock()
        kept = keeper.kept()
        self._belief = kept.belief
        self._base_s, self._base_boot_s = kept.elapsed_s, since_boot()
        if self._boot_id and kept.boot_id == self._boot_id:
            # The agent was away, not the device.
            self._base_s += max(0.0, self._base_boot_s - kept.since_boot_s)
        self._begun_s = self._base_s
        self._kept_s = kept.elapsed_s
        self._has_news = kept.boot_id != self._boot_id
        self._is_believed = False
        self._is_refused = False

    def now_s(self) -> float:
        """Give the counter, in seconds; it never falls while the agent runs.

        After a power cut it may be behind what it was, by what was not kept.
        """
        with self._lock:
            return self._counted_s()

    def keep(self) -> None:
        """Write the counter if that is worth it; call this now and then.

        A disk that refuses only makes the counter slower.
        """
        with self._lock:
            now_s = self._counted_s()
            often_s = (now_s - self._begun_s) * KEEP_SHARE
            if self._has_news or now_s - self._kept_s >= min(max(often_s, KEEP_S_MIN), KEEP_S_MAX):
                self._keep(now_s)

    def settle(self) -> None:
        """Write the counter: the agent ends."""
        with self._lock:
            self._keep(self._counted_s())

    def _counted_s(self) -> float:
        now_s = self._base_s + max(0.0, self._since_boot_s() - self._base_boot_s)
        if self._is_believed:
            return now_s
        wall_s = self._believed_s()
        if wall_s is None:
            return now_s
        self._is_believed = self._has_news = True
        before = self._belief
        if before is not None and (not self._boot_id or before.boot_id != self._boot_id):
            missed_s = (wall_s - before.wall_s) - (now_s - before.elapsed_s)
            made_up_s = min(max(0.0, missed_s), MADE_UP_S_MAX)
            self._base_s += made_up_s
            now_s += made_up_s
        self._belief = self._believed(wall_s, now_s)
        return now_s

    def _believed(self, wall_s: float, now_s: float) -> Belief:
        """Give what to remember of a clock that is believed: never less than has passed since."""
        before = self._belief
        if before is not None:
            wall_s = max(wall_s, before.wall_s + (now_s - before.elapsed_s))
        return Belief(wall_s, now_s, self._boot_id)

    def _keep(self, now_s: float) -> None:
        wall_s = self._believed_s()
        if wall_s is not None:
            self._belief = self._believed(wall_s, now_s)
        try:
            self._keeper.keep(Kept(now_s, self._boot_id, self._since_boot_s(), self._belief))
        except StateError as error:
            if not self._is_refused:
                _log.warning("the time that has passed cannot be kept now: %s", error.message)
            self._is_refused = True
            return
        self._kept_s, self._has_news, self._is_refused = now_s, False, False
