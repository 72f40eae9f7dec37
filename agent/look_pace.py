"""How long to wait for the next look at a repository that failed, and what bells do about it."""

from typing import Final

FIRST_S: Final = 10.0
MOST_S: Final = 1800.0


class LookPace:
    """Counts the looks that failed in a row; one thread at a time.

    Args:
        poll_s: Pause between looks when all is well.

    Attributes:
        is_distrusted: Whether what was seen last could not be believed.
    """

    def __init__(self, poll_s: float) -> None:
        self._poll_s = poll_s
        self._failures = 0
        self.is_distrusted = False

    def failed(self, *, is_distrusted: bool = False) -> float:
        """Note a look that failed.

        Args:
            is_distrusted: Whether what came could not be believed; else nothing came.

        Returns:
            Seconds to wait: doubled each time, at most half an hour, never longer than usual.
        """
        self._failures += 1
        self.is_distrusted |= is_distrusted
        return min(FIRST_S * 2.0 ** min(self._failures, 20), MOST_S, self._poll_s)

    def succeeded(self) -> bool:
        """Note that all is well; whether what was seen before could not be believed."""
        was_distrusted, self.is_distrusted = self.is_distrusted, False
        self._failures = 0
        return was_distrusted
