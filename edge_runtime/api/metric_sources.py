"""Where the metrics are read: the daemon's parts, and a look at each model version."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from edge_runtime.cache.counters import Counters
from edge_runtime.cache.status import Status
from edge_runtime.cache.status import Version as Kept
from edge_runtime.catalog import Catalog
from edge_runtime.metrics import ServerStatistics, VersionStatistics
from edge_runtime.registry_entry import UNKNOWN_VERSION, Entry
from edge_runtime.routing import PERMYRIAD, LoadedVersion

GONE_MAX: Final = 4  # versions of a model that are served no more and whose counters are told


class Queue(Protocol):
    """What is needed of the scheduler."""

    @property
    def waiting(self) -> int:
        """Runs that wait for the pool."""
        ...

    @property
    def running(self) -> int:
        """Batches in the pool now."""
        ...


class CacheOfVersion(Protocol):
    """What is needed of the cache of one version."""

    @property
    def counters(self) -> Counters:
        """What happened."""
        ...


class Cache(Protocol):
    """What is needed of the prediction cache."""

    def find(self, model: str, version: str = "", /) -> CacheOfVersion | None:
        """Give the cache of a version."""
        ...

    def status(self) -> Status:
        """Say how the cache does."""
        ...


@dataclass(frozen=True, slots=True)
class Sources:
    """Where numbers come from.

    Attributes:
        catalog: The models and their counters.
        server: The daemon's counters.
        scheduler: What waits and runs.
        cache: The prediction cache.
        shows: Whether a model's numbers are to be told.
    """

    catalog: Catalog
    server: ServerStatistics
    scheduler: Queue | None = None
    cache: Cache | None = None
    shows: Callable[[str], bool] = lambda _model: True

    def versions(self) -> list["Version"]:
        """List every version that has numbers: in memory or not, and the last that were let go."""
        kept = self.cache.status().versions if self.cache is not None else ()
        stored = {(each.name, each.version): each for each in kept}
        return [
            Version(
                labels=(entry.name, entry.text),
                entry=entry,
                last=entry.loaded or entry.last,
                cache=self.cache_counters(entry.name, entry.text),
                kept=stored.get((entry.name, entry.text)),
                share=self._share(entry),
            )
            for entry in _told(self.catalog.entries())
            if self.shows(entry.name)
        ]

    def _share(self, entry: Entry) -> float | None:
        traffic = self.catalog.traffic(entry.name)
        return None if traffic is None else traffic.shares.get(entry.version, 0) / PERMYRIAD

    def cache_counters(self, name: str, version: str) -> Counters | None:
        """Give the counters of a version's cache; ``None``: it has none."""
        found = self.cache.find(name, version) if self.cache is not None else None
        return found.counters if found is not None else None


class Version(NamedTuple):
    """One version and its counters.

    Attributes:
        labels: Its model's name and its number.
        entry: As the catalog knows it.
        last: What is in memory, or was before; ``None``: it was never loaded.
        cache: Counters of its cache; ``None``: it has none.
        kept: How much its cache keeps now; ``None`` likewise.
        share: Of the requests that name no version, 0 to 1; ``None``: nobody directed them.
    """

    labels: tuple[str, str]
    entry: Entry
    last: LoadedVersion | None
    cache: Counters | None
    kept: Kept | None
    share: float | None = None

    @property
    def in_memory(self) -> LoadedVersion | None:
        """What is in memory."""
        return self.entry.loaded

    @property
    def statistics(self) -> VersionStatistics | None:
        """Counters of its requests; ``None``: it was never loaded."""
        return self.last.statistics if self.last is not None else None


def _told(entries: Iterable[Entry]) -> Sequence[Entry]:
    """Leave out the oldest of those that are not served any more: the rest is bounded by disk."""
    told: list[Entry] = []
    gone: dict[str, int] = {}
    for entry in sorted(entries, key=lambda each: -each.version):
        if entry.version == UNKNOWN_VERSION:  # a problem of a whole model
            continue
        if entry.loaded is None and not entry.can_load:
            gone[entry.name] = gone.get(entry.name, 0) + 1
            if gone[entry.name] > GONE_MAX:
                continue
        told.append(entry)
    return sorted(told, key=lambda each: each.key)
