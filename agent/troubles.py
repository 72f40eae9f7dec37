"""What goes wrong for a while: said when it begins, when its reason changes, and when it ends."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

_log = logging.getLogger(__name__)

WHY_BYTES_MAX: Final = 1000
"""Longest reason that is said and kept."""


class Trouble(NamedTuple):
    """Something that does not work now.

    Attributes:
        why: The reason.
        since_s: When it began, whatever the reason was then, in seconds since 1970.
    """

    why: str
    since_s: float


class Troubles:
    """Remembers what does not work; for one thread.

    Args:
        wall_s: Seconds since 1970.
    """

    def __init__(self, wall_s: Callable[[], float]) -> None:
        self._wall_s = wall_s
        self._known: dict[str, Trouble] = {}

    def note(self, what: str, why: str, *, level: int = logging.ERROR, fault: bool = False) -> None:
        """Say that something does not work, unless that was the last word about it.

        Args:
            what: What does not work; it is known by this.
            why: The reason.
            level: Of the log.
            fault: Whether the exception that is handled now is a fault of this program, whose
                traceback is wanted.
        """
        why = why[:WHY_BYTES_MAX]
        known = self._known.get(what)
        if known is None:
            _log.log(level, "%s: %s", what, why, exc_info=fault)
            self._known[what] = Trouble(why, self._wall_s())
        elif known.why != why:
            _log.log(level, "%s, since %s: %s", what, _at(known.since_s), why, exc_info=fault)
            self._known[what] = known._replace(why=why)

    def settle(self, what: str) -> None:
        """Say that something works again, if it did not."""
        known = self._known.pop(what, None)
        if known is not None:
            _log.info("this is over, it began at %s: %s", _at(known.since_s), what)

    def of(self, what: str) -> Trouble | None:
        """Give what is known of something; ``None``: it works."""
        return self._known.get(what)


def _at(seconds: float) -> str:
    return f"{datetime.fromtimestamp(max(0.0, seconds), tz=UTC):%Y-%m-%dT%H:%M:%SZ}"
