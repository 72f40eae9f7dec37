"""How long a server is waited for: pure arithmetic over what came and how long it took.

Only time spent waiting counts against a server, so a reader that takes its time (a bandwidth
limit, a slow disk) never makes a good server look slow.
"""

import math
from dataclasses import dataclass
from typing import Final

from agent.errors import NetworkError, TooSlowError

TIMEOUT_S_MIN: Final = 0.001
"""A socket's timeout of 0 would mean: do not wait at all."""


@dataclass(frozen=True)
class LowSpeed:
    """When a server that still sends is given up.

    Attributes:
        bytes_per_s: Slower than this is too slow; 0: never.
        window_s: Seconds of waiting over which it is measured.
    """

    bytes_per_s: float
    window_s: float = 60.0


@dataclass(frozen=True)
class Limits:
    """How long an answer may take, in seconds; ``None``: no limit.

    Attributes:
        silence_s: Longest wait for the next bytes.
        first_byte_s: Until the head of the answer is there, however it drips in.
        whole_s: From the request to the last byte, by the clock of the reader too.
        low_speed: Least speed of the body.
    """

    silence_s: float
    first_byte_s: float | None = None
    whole_s: float | None = None
    low_speed: LowSpeed | None = None


class Patience:
    """Keeps the limits of one answer.

    Args:
        limits: The limits.
        origin: What is waited for, for messages.
        begun_s: The monotonic clock at the request.
    """

    def __init__(self, limits: Limits, origin: str, begun_s: float) -> None:
        self._limits = limits
        self._origin = origin
        self._begun_s = begun_s
        self._in_head = True
        self._window_waited_s = 0.0
        self._window_bytes = 0

    def head_is_there(self) -> None:
        """The body begins."""
        self._in_head = False

    def timeout_s(self, now_s: float) -> float:
        """Say how long the next read may wait.

        Args:
            now_s: The monotonic clock.

        Raises:
            TooSlowError: The time for the answer is over already.
        """
        left_s = self._limits.silence_s
        for limit_s in (self._limits.whole_s, self._head_limit_s()):
            if limit_s is not None:
                left_s = min(left_s, self._begun_s + limit_s - now_s)
        if left_s <= 0:
            raise TooSlowError(f"{self._origin}: {self._verdict(now_s)}")
        return max(left_s, TIMEOUT_S_MIN)

    def waited(self, waited_s: float, size_bytes: int, now_s: float) -> None:
        """Take note of a read that gave bytes.

        Args:
            waited_s: How long it took.
            size_bytes: What came.
            now_s: The monotonic clock.

        Raises:
            TooSlowError: The server is too slow, or its time is over.
        """
        self._window_waited_s += waited_s
        self._window_bytes += size_bytes
        low = self._limits.low_speed
        if low is not None and self._window_waited_s >= low.window_s:
            if self._window_bytes < low.bytes_per_s * self._window_waited_s:
                raise TooSlowError(
                    f"{self._origin}: {self._window_bytes} bytes in {self._window_waited_s:.0f} s "
                    f"is slower than {low.bytes_per_s:g} bytes per second"
                )
            self._window_waited_s = 0.0
            self._window_bytes = 0
        self.timeout_s(now_s)

    def nothing_came(self, now_s: float) -> NetworkError:
        """Make the error of a read that ran into its timeout.

        Args:
            now_s: The monotonic clock.

        Returns:
            A ``TooSlowError`` if the whole time is over; silence alone is a link that broke.
        """
        verdict = self._verdict(now_s)
        if verdict:
            return TooSlowError(f"{self._origin}: {verdict}")
        return NetworkError(
            f"{self._origin}: the server sent nothing for {self._limits.silence_s:g} s"
        )

    def _head_limit_s(self) -> float | None:
        return self._limits.first_byte_s if self._in_head else None

    def _verdict(self, now_s: float) -> str:
        taken_s = now_s - self._begun_s + TIMEOUT_S_MIN
        head_s = self._head_limit_s()
        if taken_s >= (self._limits.whole_s or math.inf):
            return f"not whole within {self._limits.whole_s:g} s"
        if head_s is not None and taken_s >= head_s:
            return f"no answer within {head_s:g} s"
        return ""
