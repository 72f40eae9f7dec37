"""Does keeping answers pay? Pure arithmetic on what look-ups, runs and hits cost lately.

A look-up costs its time for every request, and saves a run for those that hit. Where that is a
loss the cache by-passes itself, and looks again now and then whether it still is.
"""

from typing import Final

#: A run shorter than this is by-passed whatever a look-up costs: answering a request costs as
#: much beside it, and requests that share a run cost a few microseconds each.
RUN_NS_MIN: Final = 50_000
SEEN_MIN: Final = 64
_HITS_FORGET: Final = 1 / 128
_TIMES_FORGET: Final = 1 / 32
#: Hits after which one runs all the same, so that the time of a run stays true; sooner until a warm
#: one is known.
RUN_EVERY: Final = 256
RUN_EVERY_AT_FIRST: Final = 32
RUNS_KNOWN: Final = 2  # the first one is cold
MEASURING_SHARE: Final = 0.1  # of the time of look-ups: what those runs may take
_STEP_MAX: Final = 4  # one time that the system interrupted must not turn the verdict
_STEP_FLOOR_NS: Final = 10_000
#: While by-passed, so many requests in a row are looked up out of so many. In a row, because a
#: question repeats soon or never: single requests far apart would find nothing.
TRIAL: Final = 128
TRIAL_EVERY: Final = 4096
DISK_TRIAL_EVERY: Final = 32


class Average:
    """A mean that forgets.

    Args:
        forget: Weight of one new value.

    Attributes:
        value: The mean.
        known: Whether there was any value.
    """

    __slots__ = ("_count", "_forget", "known", "value")

    def __init__(self, forget: float) -> None:
        self._forget = forget
        self._count = 0
        self.value = 0.0
        self.known = False

    def add(self, ns: float) -> None:
        """Take in one duration, in nanoseconds; the first few all weigh the same."""
        if not self.known:
            self.begin(ns)
            return
        self._count += 1
        most = _STEP_MAX * self.value + _STEP_FLOOR_NS
        weight = max(self._forget, 1 / self._count)
        self.value += weight * (min(ns, most) - self.value)

    def begin(self, ns: float) -> None:
        """Forget everything but this one duration."""
        self.known, self._count, self.value = True, 1, float(ns)


class Worth:
    """Decides for one model version, from what it is told.

    Attributes:
        is_bypassed: Whether requests are not looked up, trials aside.
    """

    __slots__ = ("_disk", "_disk_turn", "_hits", "_lookup", "_run", "_runs", "_seen", "_since_run",
                 "_store", "_turn", "is_bypassed")  # fmt: skip

    def __init__(self) -> None:
        self._lookup = Average(_TIMES_FORGET)
        self._store = Average(_TIMES_FORGET)
        self._run = Average(_TIMES_FORGET)
        self._disk = Average(_TIMES_FORGET)
        self._hits = 0.5  # until it is known better, so that a cheap look-up gets a long trial
        self._seen = 0
        self._runs = 0
        self._since_run = 0
        self._turn = 0
        self._disk_turn = 0
        self.is_bypassed = False

    def admits(self) -> bool:
        """Say whether the next request is to be looked up."""
        if not self.is_bypassed:
            return True
        self._turn += 1
        if self._turn >= TRIAL_EVERY:
            self._turn = 0
        return self._turn >= TRIAL_EVERY - TRIAL

    def admits_disk(self) -> bool:
        """Say whether an answer on disk is worth its reading."""
        if not self._disk.known or not self._run.known or self._disk.value < self._run.value:
            return True
        self._disk_turn += 1
        return self._disk_turn % DISK_TRIAL_EVERY == 0

    def takes_run(self) -> bool:
        """Say whether this hit is to run all the same: nobody knows what a run takes nowadays."""
        hits = self._since_run
        if self._runs < RUNS_KNOWN:
            is_due = hits >= RUN_EVERY_AT_FIRST
        else:
            affordable_ns = MEASURING_SHARE * hits * self._lookup.value
            is_due = hits >= RUN_EVERY and affordable_ns >= self._run.value
        if is_due:
            self._since_run = 0  # one is enough, however long it takes
        return is_due

    @property
    def run_ns(self) -> int:
        """What a run takes, in nanoseconds; 0: not known."""
        return int(self._run.value)

    def hit(self, lookup_ns: int, run_ns: int) -> None:
        """Learn from a request that was answered without a run of its own.

        Args:
            lookup_ns: Time on the loop's thread that it took.
            run_ns: Time that the run had taken, perhaps long ago or as the first of its process:
                it counts until one is measured here.
        """
        self._hits += _HITS_FORGET * (1 - self._hits)
        self._since_run += 1
        if not self._runs:
            self._run.add(run_ns)
        self._looked_up(lookup_ns)

    def miss(self, lookup_ns: int) -> None:
        """Learn from a request that must run; its look-up took ``lookup_ns``."""
        self._hits -= _HITS_FORGET * self._hits
        self._looked_up(lookup_ns)

    def stored(self, store_ns: int, run_ns: int) -> None:
        """Learn from an answer that was kept: how long that took, and its run."""
        self._store.add(store_ns)
        self.ran(run_ns)

    def ran(self, run_ns: int) -> None:
        """Learn what a run took, in nanoseconds; the first one is cold, and soon forgotten."""
        self._since_run = 0
        self._runs += 1
        if self._runs <= RUNS_KNOWN:
            self._run.begin(run_ns)
        else:
            self._run.add(run_ns)

    def read(self, ns: int) -> None:
        """Learn how long it took until an answer came from disk, in nanoseconds."""
        self._disk.add(ns)

    @property
    def text(self) -> str:
        """The verdict and its reason, for a person."""
        lookup, run = self._lookup.value / 1000, self._run.value / 1000
        if self._seen < SEEN_MIN:
            return "learning"
        facts = f"a look-up costs {lookup:.1f} us, a run {run:.1f} us"
        if self.is_bypassed and self._run.value < RUN_NS_MIN:
            return f"by-passed: {facts}; runs below {RUN_NS_MIN // 1000} us are not worth keeping"
        verb = "by-passed" if self.is_bypassed else "on"
        return f"{verb}: {facts}, {self._hits:.1%} of requests hit"

    def _looked_up(self, ns: int) -> None:
        self._lookup.add(ns)
        self._seen += 1
        if self._seen < SEEN_MIN or not self._run.known:
            return
        saved = self._hits * self._run.value
        cost = self._lookup.value + (1 - self._hits) * self._store.value
        self.is_bypassed = self._run.value < RUN_NS_MIN or saved < cost
