"""Plain counters of one version's cache. The request path adds; the exposition reads."""


class Counters:
    """What the cache of one version did.

    Attributes:
        hits: Requests answered from memory or disk.
        hit_ns: Time from the look-up to the answer of those, and that the look-ups of ``joined``
            took, in nanoseconds.
        disk_hits: Those of ``hits`` that were read from disk.
        joined: Requests answered by another request's run of the same question.
        misses: Requests that had to run.
        miss_ns: Time that looking up and keeping took for those, in nanoseconds.
        stale: Answers given while the model could not run.
        bypassed: Requests that were not looked up, because it does not pay or has no user.
        evicted: Answers that left memory for others.
        disk_evicted: Answers that left the disk for others or for their age.
        dropped: Answers that were not written: queue full, disk full or failing, flash spared.
        errors: Failures of the cache; each was a miss.
        ram_entries: Answers in memory now.
        ram_bytes: What they take.
    """

    __slots__ = (
        "bypassed",
        "disk_evicted",
        "disk_hits",
        "dropped",
        "errors",
        "evicted",
        "hit_ns",
        "hits",
        "joined",
        "miss_ns",
        "misses",
        "ram_bytes",
        "ram_entries",
        "stale",
    )

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)

    @property
    def answered(self) -> int:
        """Requests answered without a run of their own."""
        return self.hits + self.joined

    hits: int
    hit_ns: int
    disk_hits: int
    joined: int
    misses: int
    miss_ns: int
    stale: int
    bypassed: int
    evicted: int
    disk_evicted: int
    dropped: int
    errors: int
    ram_entries: int
    ram_bytes: int
