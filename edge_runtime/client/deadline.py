"""The time that one call may take, from its beginning to the last byte of the answer."""

import math
from time import monotonic

from edge_runtime.client.endpoint import Endpoint
from edge_runtime.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    TransportError,
    UnavailableError,
)


class Deadline:
    """When a call must be over.

    Args:
        timeout_s: Seconds from now; ``None``: never.

    Raises:
        InvalidRequestError: The timeout is not above 0.
    """

    __slots__ = ("_due", "timeout_s")

    def __init__(self, timeout_s: float | None) -> None:
        if timeout_s is not None and not timeout_s > 0:
            raise InvalidRequestError(f"timeout_s must be above 0, or None for none: {timeout_s}")
        # Infinity is a fine way to say never, but no socket takes it.
        self.timeout_s = None if timeout_s == math.inf else timeout_s
        self._due = math.inf if self.timeout_s is None else monotonic() + self.timeout_s

    def explains(self, error: OSError) -> bool:
        """Tell whether it is this deadline that ended an operation, and not the network.

        Args:
            error: What the operation raised.
        """
        # A timeout set by us has no number; the system's own (ETIMEDOUT) has one. Event loops may
        # call a timer a little early, so the clock alone does not tell.
        ours = isinstance(error, TimeoutError) and error.errno is None
        return ours or monotonic() >= self._due

    def remaining_s(self) -> float | None:
        """Give the seconds that are left; ``None``: no limit.

        Raises:
            TimeoutError: None are left.
        """
        if self.timeout_s is None:
            return None
        left = self._due - monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def left_s(self) -> float:
        """Give the seconds that are left: infinity without a limit, below 0 once it has passed."""
        return self._due - monotonic()

    def within(self, limit_s: float | None, part: str) -> "Deadline":
        """Give the deadline of a part of the call, which ends with the call at the latest.

        Args:
            limit_s: Seconds from now that the part may take; ``None``: as long as the call.
            part: What it is, for the message.

        Returns:
            This one if it is the earlier, else one whose passing is a ``TransportError``: the
            call may go on elsewhere.
        """
        if limit_s is None or self.left_s() <= limit_s:
            return self
        return _PartDeadline(limit_s, part)

    def exceeded(self, endpoint: Endpoint, *, request_sent: bool) -> UnavailableError:
        """Say that the time is over.

        Args:
            endpoint: Who was asked.
            request_sent: Whether a byte of the request had left.
        """
        what = "the request was sent and may have run" if request_sent else "nothing was sent"
        return DeadlineExceededError(
            f"no answer from {endpoint} within {self.timeout_s:g} s ({what}); "
            "raise the timeout, or look at what keeps the daemon busy"
        )


class _PartDeadline(Deadline):
    """The time that a part of a call may take, be it one attempt of several or the connecting."""

    __slots__ = ("_part",)

    def __init__(self, limit_s: float, part: str) -> None:
        super().__init__(limit_s)
        self._part = part

    def exceeded(self, endpoint: Endpoint, *, request_sent: bool) -> UnavailableError:
        """Say that this endpoint took too long, which the caller's own limit did not."""
        what = "the request may have run" if request_sent else "nothing was sent"
        return TransportError(
            f"{endpoint}: {self._part} took longer than {self.timeout_s:g} s ({what})",
            request_sent=request_sent,
        )
