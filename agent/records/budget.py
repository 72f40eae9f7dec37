"""How many bytes went over the network: by month, link class and kind, and by rollout.

Counted on disk before they are received: a part of what was asked for is written down as spent,
and bytes that arrive use that up. What a dying process had not used stays counted. So after
``kill -9`` no byte that was asked for is missing from the count, and at most ``RESERVATION_BYTES``
of each kind are in it that were not received. Of bytes that nobody asked for, those of the last
``spend`` may be missing. Bytes are those of bodies; headers and encryption come on top.

The way of a download: ``ask`` before each request, ``spend(0)`` when the answer's head is there,
``spend`` for each read, ``settle`` at the end. Who sends spends before it sends.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from agent.errors import BudgetError
from agent.records.file import RecordsFile
from agent.settings.device import LinkClass
from edge_runtime.failpoints import failpoint

Kind = Literal["metadata", "artifact", "telemetry"]
KINDS: Final[tuple[Kind, ...]] = ("metadata", "artifact", "telemetry")

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS byte_accounts (
    name TEXT NOT NULL PRIMARY KEY,
    bytes INTEGER NOT NULL,
    month TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""

RESERVATION_BYTES: Final[Mapping[Kind, int]] = {
    "metadata": 65_536,
    "artifact": 1_048_576,
    "telemetry": 65_536,
}
"""Most bytes that are counted before they are received."""
UNASKED: Final = 4
"""So much less is counted beforehand of what nobody asked for, at most."""
UNASKED_FIRST_BYTES: Final = 2048
"""So much of it is at first, and twice as much each time: who is killed again and again, a few
seconds after each start, must not use up a month's budget by bytes that were never sent."""

METADATA_RESERVE_BYTES: Final = 262_144
"""So far beyond a month's budget may metadata go, and nothing else: looks at a repository in which
little happens take less in a month, and so does an order to go back to an earlier version."""
PERMILLE: Final[Mapping[Kind, int]] = {"metadata": 1000, "telemetry": 950, "artifact": 900}
"""Up to which part of a month's budget a kind may go: a model that eats the month must not keep the
order to stop it, or the report about it, from getting through."""

MONTHS_KEPT: Final = 13


@dataclass(slots=True)
class _Reservation:
    """Bytes of one account that are on disk as spent, and not yet received.

    Attributes:
        left: How many.
        coming: Bytes for which somebody asked and that have not come.
    """

    left: int = 0
    coming: int = 0

    def is_low(self, kind: Kind) -> bool:
        """Tell whether the next bytes might not be counted yet when they come."""
        return self.left < min(RESERVATION_BYTES[kind] // 2, self.coming)


class Budget:
    """The byte accounts of this device. Any thread may ask and spend.

    Args:
        file: Where they are kept.
        now_s: The time, in seconds since 1970.
        link: Which class the link is of now.
        limits: Most bytes of a calendar month (UTC) by link class; 0: no limit.

    Raises:
        StateError: Of every method: the disk refused.
    """

    def __init__(
        self,
        file: RecordsFile,
        now_s: Callable[[], float],
        link: Callable[[], LinkClass],
        limits: Mapping[LinkClass, int],
    ) -> None:
        self._file = file
        self._now_s = now_s
        self._link = link
        self._limits = dict(limits)
        self._lock = threading.Lock()
        self._reservations: dict[str, _Reservation] = {}
        self._unasked: dict[str, int] = {}

    def ask(self, kind: Kind, size: int, rollout: str = "", rollout_max: int = 0) -> None:
        """Make sure that bytes may be received; nothing is written yet: a server may be away.

        Args:
            kind: What they are of.
            size: How many.
            rollout: The rollout for which they come; empty: for none.
            rollout_max: Most bytes of that rollout; 0: no limit.

        Raises:
            BudgetError: There is no room for so many; says how many there is room for.
        """
        reason = self.why_not(kind, size, rollout, rollout_max)
        if reason:
            raise BudgetError(reason)
        with self._lock:
            for name in self._accounts(kind, rollout):
                self._reservations.setdefault(name, _Reservation()).coming = size

    def why_not(self, kind: Kind, size: int, rollout: str = "", rollout_max: int = 0) -> str:
        """Say why bytes may not be received; empty: they may. See ``ask``."""
        link, spent = self._link(), self.spent()
        limit = self._limit(link, kind)
        if limit is not None and spent + size > limit:
            return (
                f"{size} bytes of {kind} do not fit into this month's budget of the {link} link: "
                f"{spent} of {limit} bytes are spent; wait for the next month, raise the limit in "
                "[downloads], or use another link"
            )
        if rollout and rollout_max:
            used = self.spent_on(rollout)
            if used + size > rollout_max:
                return (
                    f"{size} bytes do not fit into the budget of rollout {rollout}: {used} of "
                    f"{rollout_max} bytes are spent; raise its bytes_max in a new plan"
                )
        return ""

    def room(self, kind: Kind) -> int | None:
        """Tell how many bytes of a kind may still go over the present link in this month.

        Args:
            kind: What they are of.

        Returns:
            How many; ``None``: there is no limit.
        """
        limit = self._limit(self._link(), kind)
        return None if limit is None else max(0, limit - self.spent())

    def allows(self, kind: Kind, size: int, rollout: str = "", rollout_max: int = 0) -> bool:
        """Tell whether bytes may be received. See ``ask``."""
        return not self.why_not(kind, size, rollout, rollout_max)

    def spend(self, kind: Kind, size: int, rollout: str = "") -> None:
        """Count bytes that were received, of use or not.

        Args:
            kind: What they are of.
            size: How many; 0: those that were asked for are about to come.
            rollout: The rollout for which they came; empty: for none.
        """
        with self._lock:
            short = False
            for name in self._accounts(kind, rollout):
                reservation = self._reservations.setdefault(name, _Reservation())
                reservation.left -= size
                reservation.coming = max(0, reservation.coming - size)
                short = short or reservation.is_low(kind)
            if short:
                self._reserve(kind, rollout)

    def spent(self, kind: Kind | None = None) -> int:
        """Count what went over links of the present class in this month, in bytes.

        Args:
            kind: Of one kind only.
        """
        month, link = self._month(), self._link()
        names = [_month_account(month, link, one) for one in KINDS if kind in {None, one}]
        return sum(self._used(name) for name in names)

    def spent_on(self, rollout: str) -> int:
        """Count what a rollout took on this device so far, in bytes."""
        return self._used(_rollout_account(rollout))

    def settle(self) -> None:
        """Give back what was counted beforehand and has not come."""
        with self._lock:
            back = {name: one.left for name, one in self._reservations.items() if one.left}
            self._reservations.clear()
            if back:
                self._add({name: -left for name, left in back.items()})

    def _limit(self, link: LinkClass, kind: Kind) -> int | None:
        """Give the most bytes of a month up to which a kind may go; ``None``: there is no limit."""
        limit = self._limits.get(link, 0)
        if not limit:
            return None
        reserve = METADATA_RESERVE_BYTES if kind == "metadata" else 0
        return limit * PERMILLE[kind] // 1000 + reserve

    def _accounts(self, kind: Kind, rollout: str) -> Iterator[str]:
        yield _month_account(self._month(), self._link(), kind)
        if rollout:
            yield _rollout_account(rollout)

    def _reserve(self, kind: Kind, rollout: str) -> None:
        """Fill up the reservations of what is coming, in one transaction."""
        amounts: dict[str, int] = {}
        for name in self._accounts(kind, rollout):
            reservation = self._reservations.setdefault(name, _Reservation())
            if reservation.is_low(kind):
                unasked = 0 if reservation.coming else self._next_unasked(name, kind)
                wanted = min(RESERVATION_BYTES[kind], reservation.coming or unasked)
                amounts[name] = wanted - reservation.left
        if amounts:
            self._add(amounts)
            for name, amount in amounts.items():
                self._reservations[name].left += amount
            failpoint("agent.budget.reserved")

    def _next_unasked(self, name: str, kind: Kind) -> int:
        # Whoever does not ask spends again soon: not every time is worth a transaction.
        size = min(self._unasked.get(name, UNASKED_FIRST_BYTES), RESERVATION_BYTES[kind] // UNASKED)
        self._unasked[name] = 2 * size
        return size

    def _add(self, amounts: Mapping[str, int]) -> None:
        month = self._month()
        with self._file.transaction() as connection:
            for name, amount in amounts.items():
                connection.execute(
                    "INSERT INTO byte_accounts VALUES (?, max(0, ?), ?) ON CONFLICT (name) "
                    "DO UPDATE SET bytes = max(0, bytes + ?), month = ?",
                    (name, amount, month, amount, month),
                )
            connection.execute("DELETE FROM byte_accounts WHERE month < ?", (_months_ago(month),))

    def _used(self, name: str) -> int:
        # Not under the lock, which is held while a disk hangs: ``status`` asks too. Reservations
        # come first, so that for a moment too much may be told, never too little.
        reserved = self._reservations.get(name)
        left = reserved.left if reserved else 0
        with self._file.reading() as connection:
            row = connection.execute(
                "SELECT bytes FROM byte_accounts WHERE name = ?", (name,)
            ).fetchone()
        return max(0, (row[0] if row else 0) - left)

    def _month(self) -> str:
        return month_of(self._now_s())


def month_of(now_s: float) -> str:
    """Name the calendar month (UTC) of a time in seconds since 1970: ``2026-11``."""
    return f"{datetime.fromtimestamp(max(0.0, now_s), tz=UTC):%Y-%m}"


def _months_ago(month: str) -> str:
    year, number = divmod(int(month[:4]) * 12 + int(month[5:]) - 1 - MONTHS_KEPT, 12)
    return f"{year:04}-{number + 1:02}"


def _month_account(month: str, link: LinkClass, kind: Kind) -> str:
    return f"{month}/{link}/{kind}"


def _rollout_account(rollout: str) -> str:
    return f"rollout/{rollout}"
