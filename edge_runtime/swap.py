"""One change of the versions that a model serves: what is new comes, what is old goes.

TF Serving's two ways. Availability-preserving: the new version is loaded beside the old one, which
answers until then. Resource-preserving, where both do not fit into the budget: the old one leaves
first, requests wait for the new one, and if that cannot be loaded the old one is loaded again.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from edge_runtime.bundle import Bundle
from edge_runtime.errors import EdgeRuntimeError, ModelNotReadyError, NoRoomError
from edge_runtime.registry_entry import Entry, public, still_serving
from edge_runtime.residency import Load, swap_way
from edge_runtime.residents import Residents
from edge_runtime.routing import LoadedVersion, State, VersionState
from edge_runtime.settings import Model

_log = logging.getLogger(__name__)

EMPTY_S: Final = 10.0  # for the last requests of a version that has to leave before another comes
_UNLOADED: Final = "unloaded"
_RETRY_AFTER_S: Final = 1


class _Left(NamedTuple):
    """A version that left to make room for its successor."""

    entry: Entry
    loaded: LoadedVersion
    gone: asyncio.Event


class Swap:
    """One change of one model.

    Args:
        residents: What is in memory.
        name: The model.
        settings: Of the model.
        changing: Held by the caller; given up while the last requests of an old version go on,
            so that they do not hold up other models.
        at_once: Whether an operator asked for it: then it is loaded now, whatever the settings
            say, and others make room as they would for a request.
    """

    def __init__(
        self,
        residents: Residents,
        name: str,
        settings: Model,
        changing: asyncio.Lock,
        *,
        at_once: bool = False,
    ) -> None:
        self._residents = residents
        self._registry = residents.registry
        self._name = name
        self._settings = settings
        self._changing = changing
        self._at_once = at_once
        self._is_served = any(entry.loaded for entry in self._registry.of(name))
        self._retired: list[tuple[Entry, asyncio.Event]] = []

    async def bring(self, desired: Mapping[int, Bundle]) -> EdgeRuntimeError | None:
        """Make these versions answer, or ready to be loaded when asked for.

        What is not among them goes, unless that would leave nothing.

        Args:
            desired: Bundles by version number.

        Returns:
            The first failure; the other versions answer all the same.
        """
        failure: EdgeRuntimeError | None = None
        works = not desired
        others = [entry for entry in self._registry.of(self._name) if entry.version not in desired]
        coming = {version: self._begin(version) for version in desired}
        try:
            for version, bundle in sorted(desired.items()):
                entry, stays_out = coming[version]
                try:
                    await self._one(entry, bundle, others, stays_out=stays_out)
                except EdgeRuntimeError as error:
                    failure = failure or error
                    works = works or entry.loaded is not None
                else:
                    works = True
                finally:
                    entry.is_changing = False
        finally:
            for entry, _ in coming.values():
                entry.is_changing = False
        if works:
            for entry in others:
                self._drop(entry)
        if works and desired:
            self._registry.drop_problem(self._name)
        self._registry.refresh(self._name)
        return failure

    async def ended(self) -> None:
        """Wait until what was replaced has given its memory back."""
        for entry, gone in self._retired:
            await gone.wait()
            # Another load may have brought the version back meanwhile, or failed to.
            if entry.state.state == "UNLOADING":
                entry.state = VersionState("UNAVAILABLE", _UNLOADED)
            _log.info("model %s version %s let go", entry.name, entry.text)

    def _begin(self, version: int) -> tuple[Entry, bool]:
        """Take in the settings; a version that is loaded now is waited for from here on.

        Returns:
            The version's entry, and whether it stays out of memory until it is asked for.
        """
        entry = self._registry.entry(self._name, version)
        load, before = self._settings.load, entry.settings.load
        entry.settings = self._settings
        if entry.loaded is not None:
            return entry, False
        # What left memory stays out, unless the settings say otherwise since.
        is_asleep = entry.can_load and load == before != "always"
        is_lazy = load == "request" and not self._is_served
        if not self._at_once and (is_asleep or is_lazy):
            return entry, True
        entry.is_changing = True
        entry.state = VersionState("LOADING")
        return entry, False

    async def _one(
        self, entry: Entry, bundle: Bundle, others: list[Entry], *, stays_out: bool
    ) -> None:
        if stays_out:
            # What an operator unloaded has no bundle, and counts on if it is the same.
            before = entry.served if entry.bundle is None else entry.bundle
            if before != bundle:
                entry.last = entry.need_bytes = entry.files = None
            entry.bundle = bundle
            entry.sleep()
            return
        olds = [each for each in (entry, *others) if each.loaded is not None]
        if olds:
            await self._replace(entry, bundle, olds)
            return
        if self._residents.budget_bytes:
            need_bytes, _ = await self._residents.need(entry, bundle)
            try:
                await self._residents.make_room(entry, need_bytes, self._yielding)
            except NoRoomError as error:
                if self._at_once or self._settings.load == "always":
                    entry.refuse(error)
                    raise
                _log.warning("%s; it is loaded when asked", error.message)
                entry.bundle = bundle
                entry.sleep("there was no room for it")
                return
        loaded = await self._load(entry, bundle)
        self._residents.arrive(entry, loaded, bundle)

    @property
    def _yielding(self) -> tuple[Load, ...]:
        """Whose versions leave for what is new: at the start, only what waits to be asked."""
        is_urgent = self._at_once or self._settings.load == "always"
        return ("request", "start") if is_urgent else ("request",)

    async def _replace(self, entry: Entry, bundle: Bundle, olds: list[Entry]) -> None:
        """Load a version that takes the place of others."""
        residents = self._residents
        need_bytes, is_same = await residents.need(entry, bundle)
        keeps, way = swap_way(residents.snapshot(), need_bytes)
        if not (keeps or is_same):
            await self._replace_leanly(entry, bundle, olds, need_bytes, way)
            return
        serving = entry.loaded
        if not is_same:
            self._says(entry, "READY" if serving else "LOADING", way)
        letting_go = [each.loaded for each in olds if each.loaded is not None]
        loaded = await self._load(entry, bundle, letting_go)
        if loaded is serving:
            entry.state = VersionState("READY")
            entry.bundle = bundle
            return
        loaded.swap = way
        residents.arrive(entry, loaded, bundle)
        if serving is not None:
            self._retired.append((entry, residents.let_go(serving)))

    async def _replace_leanly(
        self, entry: Entry, bundle: Bundle, olds: list[Entry], need_bytes: int, way: str
    ) -> None:
        """Let go of what is replaced before its successor is loaded."""
        residents = self._residents
        try:
            letting_go = [each.loaded for each in olds if each.loaded is not None]
            residents.check_possible(entry, need_bytes, letting_go)
        except NoRoomError as error:
            entry.refuse(error)
            raise
        left: list[_Left] = []
        for old in olds:
            loaded = old.leave()
            old.can_load = False
            old.state = VersionState("UNLOADING")
            left.append(_Left(old, loaded, residents.let_go(loaded)))
        entry.can_load = entry.is_changing = True  # requests wait for it, and load nothing
        entry.failures = 0
        self._says(entry, "LOADING", way)
        self._registry.refresh(self._name)
        try:
            await self._all_gone(left)
            await residents.make_room(entry, need_bytes)
            loaded = await self._load(entry, bundle)
        except EdgeRuntimeError as error:
            await self._bring_back(left, error)
            if entry.loaded is None:
                entry.can_load = False
                entry.state = VersionState("UNAVAILABLE", public(error))
            else:
                entry.state = still_serving(error)
            raise
        finally:
            entry.is_changing = False
        loaded.swap = way
        residents.arrive(entry, loaded, bundle)
        for old, *_ in left:
            if old is not entry:
                old.forget(_UNLOADED)

    async def _all_gone(self, left: list[_Left]) -> None:
        self._changing.release()
        try:
            async with asyncio.timeout(EMPTY_S):
                for _, _, gone in left:
                    await gone.wait()
        except TimeoutError as error:
            raise ModelNotReadyError(
                f"requests on the old version did not end within {EMPTY_S:g} s, and there is no "
                "room for both; the old one answers on",
                retry_after_s=_RETRY_AFTER_S,
            ) from error
        finally:
            await self._changing.acquire()

    async def _bring_back(self, left: list[_Left], error: EdgeRuntimeError) -> None:
        """Let what left answer again, because its successor cannot be loaded."""
        for old, loaded, gone in left:
            if self._residents.take_back(loaded):
                old.loaded = loaded
                old.can_load = True
                old.state = VersionState("READY")
                self._registry.refresh(self._name)
                self._residents.arrived()  # who waits for it need not wait for the others' loads
                continue
            await gone.wait()
            bundle = old.served
            assert bundle is not None  # noqa: S101 - it was loaded from it
            _log.warning(
                "model %s version %s is loaded again, because its successor failed: %s",
                old.name,
                old.text,
                error.message,
            )
            try:
                again = await self._residents.load(old, bundle)
            except EdgeRuntimeError:
                continue  # logged, and in the index
            self._residents.arrive(old, again, bundle)
        self._registry.refresh(self._name)

    async def _load(
        self, entry: Entry, bundle: Bundle, letting_go: Collection[LoadedVersion] = ()
    ) -> LoadedVersion:
        loaded = await self._residents.load(entry, bundle)
        if loaded is not entry.loaded:
            try:
                await self._residents.check_size(entry, loaded, letting_go)
            except NoRoomError as error:
                entry.refuse(error)
                raise
        return loaded

    def _says(self, entry: Entry, state: State, way: str) -> None:
        entry.state = VersionState(state, f"new files are loaded: {way}")
        _log.info("model %s version %s: %s swap", entry.name, entry.text, way)

    def _drop(self, entry: Entry) -> None:
        """Let go of a version that is not wanted any more."""
        if entry.loaded is not None:
            loaded = entry.leave()
            entry.forget(_UNLOADED)
            entry.state = VersionState("UNLOADING")
            self._retired.append((entry, self._residents.let_go(loaded)))
        elif entry.can_load:
            entry.forget(_UNLOADED)
