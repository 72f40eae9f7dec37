"""What a run of a model is expected to cost, learned from the runs that were."""

from typing import Final

ANY_SIZE: Final = 2**31
"""What ``size_within`` gives where no size takes too long."""

_WARM_UP_RUNS: Final = 2
_STEP_MAX: Final = 4
_STEP_FLOOR_NS: Final = 10_000
_SAME_SIZE: Final = 1e-6  # relative spread that rounding alone can make
_LEARN_EVERY: Final = 16  # learning costs a microsecond, so a steady model pays it rarely
_FORGET: Final = 0.95  # weight of the past per observation: about the last 20 count


class RunCost:
    """Expected time of a run: ``a + b * size``, fitted to what was seen lately.

    A size is a number of rows, or of elements where other axes than the first may vary.

    Attributes:
        seen: Runs so far.
        known: Whether there is an estimate: the first runs warm the model up and do not count.
    """

    __slots__ = (
        "_intercept_ns",
        "_slope_ns",
        "_sum_r",
        "_sum_rr",
        "_sum_rt",
        "_sum_t",
        "_weight",
        "known",
        "seen",
    )

    def __init__(self) -> None:
        self.seen = 0
        self.known = False
        self._intercept_ns = self._slope_ns = 0.0
        self._weight = self._sum_r = self._sum_t = self._sum_rr = self._sum_rt = 0.0

    def estimate_ns(self, size: int) -> float:
        """Give the expected time of a run, in nanoseconds; only meaningful once ``known``."""
        return self._intercept_ns + self._slope_ns * size

    @property
    def is_guess(self) -> bool:
        """Whether nobody knows what other sizes than those seen lately would cost."""
        return not self._intercept_ns

    def size_within(self, ns: float) -> int:
        """Give the largest size expected to take no longer than ``ns``, at least 1."""
        if not self._slope_ns:
            return ANY_SIZE if self._intercept_ns <= ns else 1
        return max(1, int((ns - self._intercept_ns) / self._slope_ns))

    def observe(self, size: int, ns: float) -> None:
        """Learn from one run of this size that took ``ns`` nanoseconds."""
        self.seen += 1
        if self.seen <= _WARM_UP_RUNS:
            return
        if self.known:
            expected = self._intercept_ns + self._slope_ns * size
            if expected < 2 * ns < 4 * expected and self.seen % _LEARN_EVERY:
                return
            # One run that the system interrupted must not banish a model to the pool; a model
            # that really became slower gets there in a few steps.
            ns = min(ns, _STEP_MAX * expected + _STEP_FLOOR_NS)
        self.known = True
        self._weight = weight = self._weight * _FORGET + 1
        self._sum_r = sum_r = self._sum_r * _FORGET + size
        self._sum_t = sum_t = self._sum_t * _FORGET + ns
        self._sum_rr = self._sum_rr * _FORGET + size * size
        self._sum_rt = self._sum_rt * _FORGET + size * ns
        spread = weight * self._sum_rr - sum_r * sum_r
        if spread > weight + _SAME_SIZE * sum_r * sum_r:  # sizes differed: fit a line
            slope = (weight * self._sum_rt - sum_r * sum_t) / spread
            self._slope_ns = max(slope, 0.0)
            self._intercept_ns = max((sum_t - self._slope_ns * sum_r) / weight, 0.0)
        else:  # one size only: take cost as proportional, the careful guess for larger ones
            self._slope_ns = sum_t / max(sum_r, 1.0)
            self._intercept_ns = 0.0
