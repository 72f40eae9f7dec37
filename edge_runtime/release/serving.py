"""What answers for the models that releases know: the wish, and making the catalog match it."""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final, Protocol

from edge_runtime.bundle import Bundle
from edge_runtime.catalog import Catalog
from edge_runtime.errors import (
    ConfigError,
    EdgeRuntimeError,
    ModelNotFoundError,
    ModelNotReadyError,
    NoRoomError,
    StorageError,
)
from edge_runtime.failpoints import reached
from edge_runtime.registry_entry import public
from edge_runtime.release.answering import Answering
from edge_runtime.release.records import STORE, Release, Slots
from edge_runtime.release.variants import only_variant
from edge_runtime.routing import LoadedVersion, Traffic

_log = logging.getLogger(__name__)

PERMYRIAD: Final = 10_000
_PERCENT: Final = 100


class NoActiveError(ModelNotReadyError):
    """There is no active version in memory that a candidate could stand beside."""


class Versions(Protocol):
    """What is needed of the store."""

    def bundle(self, name: str, version: int) -> Bundle:
        """Give an installed version."""
        ...


class Serving(Answering):
    """Makes the catalog match the slots, and a candidate beside them.

    Args:
        catalog: The models in memory.
        store: The installed versions.
        reload: Reads what is to answer for a model, and makes the catalog match.
    """

    def __init__(
        self, catalog: Catalog, store: Versions, reload: Callable[[str], Awaitable[None]]
    ) -> None:
        super().__init__(catalog)
        self._store = store
        self._reload = reload
        self._variants: dict[tuple[str, int], str] = {}

    # -- Holdings ------------------------------------------------------------------------------

    def names(self) -> Collection[str]:
        """List the models of which a version is, or was, released here."""
        return {*self._slots, *self._beside, *self._alone}

    def amend(self, name: str, found: Mapping[int, Bundle]) -> Mapping[int, Bundle]:
        """Say what answers for a model.

        Args:
            name: One of ``names``.
            found: What the settings and the folders ask for.

        Raises:
            EdgeRuntimeError: A version is not in the store, or damaged; the index says which.
        """
        self._found[name] = found
        if name in self._alone:
            return {self._alone[name]: self._bundle(name, self._alone[name])}
        slots = self._slots.get(name)
        wanted: dict[int, Bundle] = {}
        if slots is None or (slots.active_source != STORE and not slots.disabled):
            wanted.update(found)
        elif slots.active is not None:
            wanted[slots.active] = self._bundle(name, slots.active)
        for version in map(int, slots.traffic if slots is not None else ()):
            if version in found:
                wanted.setdefault(version, found[version])
            elif version not in wanted:
                try:
                    wanted[version] = self._bundle(name, version)
                except EdgeRuntimeError as error:  # the default answers in its place
                    _log.error("model %s gets no share for version %d: %s", name, version, error)
        if name in self._beside:
            wanted[self._beside[name]] = self._bundle(name, self._beside[name])
        return wanted

    def _bundle(self, name: str, version: int) -> Bundle:
        """Give an installed version with the variant that its self-test chose."""
        variant = self._variants.get((name, version), "")
        try:
            bundle = self._store.bundle(name, version)
            return only_variant(bundle, variant) if variant else bundle
        except EdgeRuntimeError as error:
            self._catalog.note_problem(name, version, error)
            raise

    # -- the wish ------------------------------------------------------------------------------

    def choose(self, release: Release) -> None:
        """Take in which variant of a release runs on this device, once that is known."""
        if release.variant:
            self._variants[release.model, release.version] = release.variant

    def take(self, slots: Slots) -> None:
        """Take in what the journal says of a model."""
        self._slots[slots.model] = slots

    async def restore(self, name: str) -> None:
        """Let the active version answer, and nothing beside it; the next request gets it.

        One that somebody unloaded stays out.

        Raises:
            EdgeRuntimeError: It cannot be loaded.
        """
        slots = self._slots.get(name)
        if slots is not None and slots.disabled:
            self._beside.pop(name, None)
            self._alone.pop(name, None)
            self._catalog.direct(name, None)
            await self._catalog.disable(name, slots.disabled)
            return
        unloaded = self.unloaded(name)
        self._point_to_active(name)
        self._beside.pop(name, None)
        self._alone.pop(name, None)
        if unloaded is None:
            await self._reload_if_any(name)
        elif name in self._displaced:
            await self._catalog.unload(name)
        await self._direct(name, self._standing(name))
        self._displaced.discard(name)

    async def add(self, name: str, version: int, permyriad: int) -> None:
        """Let a candidate answer a share of the requests beside the active version.

        Args:
            name: The model.
            version: The candidate, which is in the store.
            permyriad: Its share, in ten-thousandths.

        Raises:
            NoActiveError: No active version is in memory.
            NoRoomError: Both are not to be had at once; the active version answers on.
            EdgeRuntimeError: The candidate cannot be loaded; the same.
        """
        active = self._there(name)
        self._catalog.direct(name, Traffic(int(active.version), {}))
        if self._beside.get(name) != version or self.loaded(name, version) is None:
            self._beside[name] = version
            try:
                await self._load_beside(name, version)
                active = self._there(name)
            except BaseException:
                self._beside.pop(name, None)
                raise
        await self._direct(name, Traffic(int(active.version), {version: permyriad}))

    async def _load_beside(self, name: str, version: int) -> None:
        """Load a candidate; that the active version's own files are no good is not its fault."""
        try:
            await self._reload(name)
        except StorageError:
            raise
        except EdgeRuntimeError as error:
            if self.loaded(name, version) is not None:
                _log.warning("model %s: beside version %d: %s", name, version, error.message)
                return
            entries = self._catalog.entries()
            entry = next((each for each in entries if each.key == (name, version)), None)
            if entry is not None and entry.state.reason == public(error):
                raise
            # Whose fault it is shows where the candidate is loaded alone.
            raise NoRoomError(f"it cannot be loaded beside the active version: {error}") from error

    def _there(self, name: str) -> LoadedVersion:
        active = self.active(name)
        if active is None:
            raise NoActiveError(f"model {name!r} has no active version to stand beside")
        return active

    async def replace(self, name: str, version: int) -> str:
        """Let a candidate answer everything, the active version warm beside it if there is room.

        Args:
            name: The model.
            version: The candidate.

        Returns:
            How: ``availability-preserving`` or ``resource-preserving``.

        Raises:
            EdgeRuntimeError: It cannot be loaded; the active version answers on.
        """
        try:
            active = await self.woken(name)
        except StorageError:
            raise
        except EdgeRuntimeError as error:  # logged where it happened, and in the index
            _log.warning("model %s: version %d has nothing beside it: %s", name, version, error)
            active = None
        if active is not None:
            try:
                await self.add(name, version, PERMYRIAD)
            except ModelNotReadyError:
                pass  # no room for both
            else:
                await self._direct(name, Traffic(version, {}, int(active.version)))
                return "availability-preserving"
        self._alone[name] = version
        self._displaced.add(name)
        try:
            await self._direct(name, None)
            await self._reload(name)
        except BaseException:
            del self._alone[name]
            raise
        return "resource-preserving"

    def divert(self, name: str) -> None:
        """Send requests to the active version from the next one on, if it is in memory.

        Where no candidate gets any, a split that stands stays as it is.
        """
        if name in self._beside or name in self._alone:
            self._point_to_active(name)

    async def abandon(self, name: str, version: int) -> None:
        """Forget a candidate whose release was given up: it is not to stay beside the active one.

        Args:
            name: The model.
            version: The candidate.

        Raises:
            EdgeRuntimeError: The active version cannot be loaded.
        """
        if version not in {self._beside.get(name), self._alone.get(name)}:
            return
        await self.restore(name)

    async def settle(self, name: str) -> None:
        """Let the slots decide alone, after a commit.

        Raises:
            EdgeRuntimeError: What they name cannot be loaded.
        """
        self._beside.pop(name, None)
        self._alone.pop(name, None)
        self._displaced.discard(name)
        self._unloaded.pop(name, None)
        await self._reload(name)
        await self._direct(name, self._standing(name))

    async def woken(self, name: str) -> LoadedVersion | None:
        """Give the version that is active, in memory; ``None``: none, or somebody unloaded it.

        Raises:
            EdgeRuntimeError: There is one, and it cannot be loaded.
        """
        if self.slots(name).disabled:
            return None
        active = self.active(name)
        if active is not None:
            self._unloaded.pop(name, None)
            return active
        unloaded = self.unloaded(name)
        if unloaded is not None:
            self._unloaded[name] = unloaded
            return None
        if self.slots(name).active is None and name not in self._catalog.known():
            return None
        await self._reload_if_any(name)
        return self.active(name)

    async def _reload_if_any(self, name: str) -> None:
        """Load what is active; that there is nothing is right where nothing was ever committed.

        That its files are no good any more is no matter while it answers from memory.
        """
        try:
            await self._reload(name)
        except (ConfigError, ModelNotFoundError):
            if self.slots(name).active is not None or self.seeds(name):
                raise
        except StorageError:
            raise
        except EdgeRuntimeError as error:
            if self.active(name) is None:
                raise
            _log.warning("model %s answers on from memory: %s", name, error.message)

    async def stand(self, name: str) -> None:
        """Share out the traffic as the slots say, at the start; a disabled model says so."""
        slots = self.slots(name)
        if slots.disabled:
            await self._catalog.disable(name, slots.disabled)
        elif slots.traffic:
            self._catalog.direct(name, self._standing(name))

    async def _direct(self, name: str, traffic: Traffic | None) -> None:
        await reached("swap.before")
        self._catalog.direct(name, traffic)
        await reached("swap.after")

    def _point_to_active(self, name: str) -> None:
        active = self.active(name)
        if active is not None:
            self._catalog.direct(name, Traffic(int(active.version), {}))

    def _standing(self, name: str) -> Traffic | None:
        """Give the split that stays, if there is one."""
        weights = self.slots(name).traffic
        if not weights:
            return None
        shares = {int(version): weight * _PERCENT for version, weight in weights.items()}
        default = max(shares, key=lambda version: (shares[version], version))
        return Traffic(default, {key: share for key, share in shares.items() if key != default})
