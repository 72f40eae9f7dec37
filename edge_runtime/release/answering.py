"""What answers for the models that releases know: looks, and changes nothing."""

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from edge_runtime.catalog import Catalog
from edge_runtime.registry_entry import UNKNOWN_VERSION
from edge_runtime.release.needed_versions import NeededVersion, needed_versions
from edge_runtime.release.records import SEED, STORE, Release, Slots
from edge_runtime.routing import LoadedVersion, route

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle


class Answering:
    """Knows the slots, the candidates beside them, and the catalog that is to match.

    Args:
        catalog: The models in memory.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._slots: dict[str, Slots] = {}
        self._beside: dict[str, int] = {}
        self._alone: dict[str, int] = {}
        self._displaced: set[str] = set()  # the active version may have left for a candidate
        self._unloaded: dict[str, int] = {}  # the one that somebody had unloaded before that
        #: What the settings and the folders asked for last, of models that were released.
        self._found: dict[str, Mapping[int, Bundle]] = {}

    def slots(self, name: str) -> Slots:
        """Give what the journal says of a model."""
        return self._slots.get(name) or Slots(model=name)

    def loaded(self, name: str, version: int) -> LoadedVersion | None:
        """Give a version that is in memory."""
        return route(self._catalog.table, name, str(version))

    def active(self, name: str) -> LoadedVersion | None:
        """Give the version that is active, if it is in memory."""
        slots = self._slots.get(name)
        if slots is not None and slots.active_source == STORE and slots.active is not None:
            return self.loaded(name, slots.active)
        if slots is not None and slots.disabled:
            return None
        seeds = self.seeds(name)
        if slots is not None and slots.traffic and slots.active in seeds:
            return self.loaded(name, slots.active)  # the others were released, and get a share
        return self.loaded(name, max(seeds)) if seeds else None

    def unloaded(self, name: str) -> int | None:
        """Name the active version if somebody took it out of memory; ``None``: nobody did.

        It does not come back by itself then, and not for a release either.
        """
        slots, candidates = self.slots(name), {self._beside.get(name), self._alone.get(name)}
        if slots.disabled:
            return None
        if name in self._displaced:
            return self._unloaded.get(name)
        if name not in self._catalog.taken_out:
            return None
        numbers = (each.version for each in self._catalog.entries() if each.name == name)
        known = slots.active or self._unloaded.get(name)
        return known or max((each for each in numbers if each not in candidates), default=None)

    def running_digest(self, name: str) -> str:
        """Name the digest of what answers for a model now; empty: nothing does."""
        loaded = route(self._catalog.table, name, "")
        return loaded.digest if loaded is not None else ""

    def seeds(self, name: str) -> set[int]:
        """List the versions of a model in memory that the configuration asked for."""
        candidates = {self._beside.get(name), self._alone.get(name)}
        return {
            int(each.version)
            for each in self._catalog.loaded()
            if each.name == name and int(each.version) not in candidates
        }

    def configured(self, name: str) -> Collection[int]:
        """List the versions of a released model that the configuration and its folders have."""
        return self._found.get(name, {}).keys()

    def answering(self, name: str) -> set[int]:
        """List the versions of a model that answer when asked, in memory or not, but candidates."""
        slots = self.slots(name)
        if slots.disabled:
            return set()
        found = {int(version) for version in slots.traffic}
        if slots.active_source == STORE and slots.active is not None:
            return {*found, slots.active}
        candidates = {self._beside.get(name), self._alone.get(name)}
        known = {int(version) for version in self._catalog.versions(name) if version.isdecimal()}
        return found | (known - candidates)

    def in_use(self) -> set[tuple[str, int]]:
        """List every version in memory: its files must stay."""
        return {(each.name, int(each.version)) for each in self._catalog.loaded()}

    def trouble(self, name: str) -> str:
        """Say why the active version does not answer, or could not be loaded again.

        Returns:
            The catalog's reason; empty: it answers or is loaded when asked, or nothing is active.
        """
        slots = self.slots(name)
        if slots.disabled or name in {*self._alone, *self._displaced}:  # it made room on purpose
            return ""
        entries = {each.version: each for each in self._catalog.entries() if each.name == name}
        number = slots.active
        if number is None:
            number = max(self._found.get(name, ()), default=UNKNOWN_VERSION)
        known = [entries[each] for each in (number, UNKNOWN_VERSION) if each in entries]
        reasons = [
            each.state.reason
            for each in known
            if each.loaded is not None or each.state.state == "UNAVAILABLE"
        ]
        return next(filter(None, reasons), "")

    def needed(self, under_way: Iterable[Release]) -> list[NeededVersion]:
        """List the versions that must be loadable again: active, previous, with a share, to come.

        Args:
            under_way: The releases under way.
        """
        entries = self._catalog.entries()
        served = (each.bundle if each.loaded is None else each.served for each in entries)
        bundles = {
            (each.manifest.name, each.manifest.version): each for each in served if each is not None
        }
        for slots in self._slots.values():
            before = self._found.get(slots.model, {}).get(slots.previous or 0)
            if slots.previous_source == SEED and before is not None:
                bundles.setdefault((slots.model, before.manifest.version), before)
        return needed_versions(self._slots.values(), under_way, bundles)
