"""How much may be written: flash memory wears out by every byte. Pure arithmetic."""

from typing import Final

HOUR_S: Final = 3600.0


class Wear:
    """The budget of written bytes, hour by hour.

    Args:
        bytes_per_hour: Most that may be written.
    """

    __slots__ = ("_bytes_per_hour", "_started_s", "spent_bytes")

    def __init__(self, bytes_per_hour: int) -> None:
        self._bytes_per_hour = bytes_per_hour
        self._started_s: float | None = None
        #: Written in this hour.
        self.spent_bytes = 0

    def allows(self, now_s: float) -> bool:
        """Say whether more may be written.

        Args:
            now_s: Monotonic seconds.
        """
        if self._started_s is None or now_s - self._started_s >= HOUR_S:
            self._started_s = now_s
            self.spent_bytes = 0
        return self.spent_bytes < self._bytes_per_hour

    def spend(self, size_bytes: int) -> None:
        """Note what was written."""
        self.spent_bytes += size_bytes
