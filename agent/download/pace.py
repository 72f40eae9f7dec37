"""How fast bytes may come, and how long to wait after a failure; pure."""

from typing import Final

BURST_S: Final = 1.0
"""So much of the bandwidth may come at once after a pause, in seconds of it."""

_DOUBLINGS_MAX: Final = 32


class TokenBucket:
    """A bandwidth limit.

    Args:
        bytes_per_s: Most bytes a second on average; 0: no limit.
        now_s: Now, in seconds of a clock that only goes forwards.
    """

    def __init__(self, bytes_per_s: int, now_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._burst = bytes_per_s * BURST_S
        self._tokens = self._burst
        self._at_s = now_s

    def take(self, size: int, now_s: float) -> float:
        """Note that bytes came.

        Args:
            size: How many.
            now_s: Now, by the same clock.

        Returns:
            How long to wait before the next ones, in seconds.
        """
        if not self._bytes_per_s:
            return 0.0
        passed_s = max(0.0, now_s - self._at_s)
        self._at_s = now_s
        self._tokens = min(self._burst, self._tokens + passed_s * self._bytes_per_s) - size
        return max(0.0, -self._tokens / self._bytes_per_s)


def backoff_s(failures: int, share: float, first_s: float, most_s: float) -> float:
    """Give the pause after failures in a row, with full jitter: a fleet must not come as one.

    Args:
        failures: How many, from 1.
        share: A random number, 0 to 1.
        first_s: Longest pause after the first.
        most_s: Longest pause at all.

    Source:
        The "full jitter" of Brooker, "Exponential Backoff And Jitter" (2015).
    """
    doublings = min(max(failures - 1, 0), _DOUBLINGS_MAX)
    return share * min(most_s, first_s * 2.0**doublings)
