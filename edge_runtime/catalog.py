"""The loaded models: who answers for a name, leases that pin a version, swaps that drop nothing.

Rules: everything here runs on the event loop's thread except ``load`` and ``dispose``, which are
handed to one loader thread. The routing table is replaced, never changed. A version that is taken
out of the table lives until its last lease ends.
"""

import asyncio
import gc
import logging
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Final, TypeVar

from edge_runtime.bundle import Bundle
from edge_runtime.errors import (
    EdgeRuntimeError,
    ModelLoadError,
    ModelNotFoundError,
    ModelNotReadyError,
)
from edge_runtime.routing import EMPTY, LoadedVersion, Routes, Table, VersionState, route
from edge_runtime.session import release_memory

_log = logging.getLogger(__name__)

Loader = Callable[[Bundle, LoadedVersion | None], LoadedVersion]
_Result = TypeVar("_Result")
CLOSE_S: Final = 10.0
UNKNOWN_VERSION: Final = 0  # of a problem that concerns a whole model
_folders: Final = re.compile(r"(?<![^\s'\"(=])/(?:[^/\s'\"]+/)+")


class Catalog:
    """The models in memory.

    Args:
        loader: Makes a bundle runnable, or gives back what serves now if nothing would change;
            called on the loader thread.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._table = EMPTY
        self._states: dict[tuple[str, int], VersionState] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._changing = asyncio.Lock()
        self._leaving: set[LoadedVersion] = set()
        self._is_closing = False
        #: Whether every model has been looked for; while not, an unknown one may yet come.
        self.is_settled = True

    @property
    def table(self) -> Table:
        """Who answers for what, now."""
        return self._table

    def lease(self, name: str, version: str = "") -> LoadedVersion:
        """Pin the version that answers for a name; ``release`` must follow.

        Raises:
            ModelNotFoundError: No such model or version is known.
            ModelNotReadyError: It is known, but not loaded.
        """
        loaded = self.peek(name, version)
        loaded.leases += 1
        return loaded

    def release(self, loaded: LoadedVersion) -> None:
        """End a lease."""
        loaded.leases -= 1
        if loaded.gone is not None and not loaded.leases:
            self._dispose(loaded, loaded.gone)

    def peek(self, name: str, version: str = "") -> LoadedVersion:
        """Look at the version that answers for a name, without a lease.

        Raises:
            ModelNotFoundError: No such model or version is known.
            ModelNotReadyError: It is known, but not loaded.
        """
        loaded = route(self._table, name, version)
        if loaded is None:
            raise self._missing(name, version)
        return loaded

    def index(self) -> list[tuple[str, str, VersionState]]:
        """List every version known: name, version (empty: of the whole model), state."""
        states = sorted(self._states.items())
        return [(name, str(version or ""), state) for (name, version), state in states]

    def loaded(self) -> list[LoadedVersion]:
        """List every version that answers, by name and number."""
        return [
            routes.versions[version]
            for _, routes in sorted(self._table.items())
            for version in sorted(routes.versions, key=int)
        ]

    async def apply(self, name: str, desired: Mapping[int, Bundle]) -> None:
        """Make exactly these versions of a model answer, without a moment when none does.

        New versions are loaded first, then the table is replaced, then the rest is let go. A
        version that cannot be loaded leaves what it would have replaced in place.

        Args:
            name: The model.
            desired: Bundles by version number; empty unloads the model.

        Raises:
            ArtifactError: A version could not be loaded; the others answer all the same.
        """
        async with self._changing:
            before = self._table.get(name)
            current = dict(before.versions) if before else {}
            failure: EdgeRuntimeError | None = None
            after: dict[str, LoadedVersion] = {}
            for version, bundle in sorted(desired.items()):
                try:
                    after[str(version)] = await self._load(name, version, bundle, current)
                except EdgeRuntimeError as error:
                    failure = failure or error
                    if str(version) in current:
                        after[str(version)] = current[str(version)]
            if failure and not after:
                after = current  # keep what answers rather than nothing
            self._replace(name, after)
        # Outside the lock: a request that runs for long must not hold up other models' loads.
        retired = [old for key, old in current.items() if after.get(key) is not old]
        await self._retire(retired, kept=after)
        if failure:
            raise failure

    async def unload(self, name: str) -> None:
        """Take a model out and wait until its last request was answered and its memory is free.

        Raises:
            ModelNotFoundError: No such model is known.
        """
        if not any(known == name for known, _ in self._states):
            raise self._missing(name, "")
        await self.apply(name, {})

    def note_problem(self, name: str, version: int | None, error: EdgeRuntimeError) -> None:
        """Record files that could not even be tried, for the index.

        Args:
            name: The model.
            version: Its version; ``None`` if the whole model is concerned.
            error: What is wrong.
        """
        serving = self._versions(name)
        if version is None and serving:
            version = int(max(serving, key=int))
        key = (name, version or UNKNOWN_VERSION)
        if str(version) in serving:
            self._states[key] = _still_serving(error)
        else:
            self._states[key] = VersionState("UNAVAILABLE", _public(error))

    def terminate(self) -> None:
        """Load nothing any more, and make every run that goes on end early: the daemon stops."""
        self._is_closing = True
        for loaded in (*self.loaded(), *self._leaving):
            loaded.session.terminate()

    async def close(self, within_s: float = CLOSE_S) -> bool:
        """Unload everything and end the loader thread.

        Args:
            within_s: Time for a load that goes on and for the last leases, in seconds.

        Returns:
            Whether all of it has ended; a load cannot be cut from outside.
        """
        self._is_closing = True
        try:
            async with asyncio.timeout(within_s):
                for name in list(self._table):
                    await self.apply(name, {})
                await self.off_loop(lambda: None)
        except TimeoutError:
            self._thread.shutdown(wait=False, cancel_futures=True)
            return False
        self._thread.shutdown(wait=True)
        return True

    async def off_loop(self, work: Callable[[], _Result]) -> _Result:
        """Do slow work, such as reading folders, on the loader thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _load(
        self, name: str, version: int, bundle: Bundle, current: Mapping[str, LoadedVersion]
    ) -> LoadedVersion:
        if self._is_closing:
            raise ModelNotReadyError("the daemon is stopping, and loads nothing any more")
        serving = current.get(str(version))
        if serving is None:
            self._states[name, version] = VersionState("LOADING")
        loop = asyncio.get_running_loop()
        try:
            loaded = await loop.run_in_executor(self._thread, self._load_now, bundle, serving)
        except EdgeRuntimeError as error:
            _log.error("model %s version %s: %s", name, version, error.message)
            self._states[name, version] = (
                _still_serving(error) if serving else VersionState("UNAVAILABLE", _public(error))
            )
            raise
        # What the index said of an earlier attempt no longer holds.
        if serving is not None:
            self._states[name, version] = VersionState("READY")
        if loaded is serving:
            return serving
        text = "model %s version %s loaded in %.3f s: %s"
        _log.info(text, name, version, loaded.load_s, loaded.variant_reason)
        return loaded

    def _load_now(self, bundle: Bundle, serving: LoadedVersion | None) -> LoadedVersion:
        """Load on the loader thread; whatever fails there is a failed load and nothing more."""
        try:
            return self._loader(bundle, serving)
        except EdgeRuntimeError:
            raise
        except Exception as error:
            _log.exception("a load failed in a way nobody foresaw")
            raise ModelLoadError(
                "the daemon failed to load these files; its log says why"
            ) from error

    def _replace(self, name: str, versions: Mapping[str, LoadedVersion]) -> None:
        table = dict(self._table)
        if versions:
            newest = versions[max(versions, key=int)]
            table[name] = Routes(newest, MappingProxyType(dict(versions)))
            self._states.pop((name, UNKNOWN_VERSION), None)
            for version in versions:
                state = self._states.get((name, int(version)))
                if state is None or state.state != "READY":
                    self._states[name, int(version)] = VersionState("READY")
        else:
            table.pop(name, None)
        self._table = MappingProxyType(table)

    async def _retire(
        self, versions: list[LoadedVersion], kept: Mapping[str, LoadedVersion]
    ) -> None:
        leaving: list[tuple[LoadedVersion, asyncio.Event]] = []
        for old in versions:
            gone = old.gone = asyncio.Event()
            leaving.append((old, gone))
            self._leaving.add(old)
            if old.version not in kept:
                self._states[old.name, int(old.version)] = VersionState("UNLOADING")
            if not old.leases:
                self._dispose(old, gone)
        for old, gone in leaving:
            await gone.wait()
            self._leaving.discard(old)
            key = (old.name, int(old.version))
            # Another load may have brought the version back meanwhile, or failed to.
            if old.version not in kept and self._states[key].state == "UNLOADING":
                self._states[key] = VersionState("UNAVAILABLE", "unloaded")
            _log.info("model %s version %s let go", old.name, old.version)

    def _dispose(self, loaded: LoadedVersion, gone: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()

        def dispose() -> None:
            loaded.session.close()
            gc.collect()
            release_memory()
            loop.call_soon_threadsafe(gone.set)

        self._thread.submit(dispose)

    def _versions(self, name: str) -> Mapping[str, LoadedVersion]:
        routes = self._table.get(name)
        return routes.versions if routes else {}

    def _missing(self, name: str, version: str) -> EdgeRuntimeError:
        known = {number: state for (model, number), state in self._states.items() if model == name}
        if not known and not self.is_settled:
            return ModelNotReadyError(
                "the daemon is starting, and does not know its models yet", retry_after_s=1
            )
        if not known:
            return ModelNotFoundError(
                f"there is no model {name!r}; POST /v2/repository/index lists what there is"
            )
        numbers = [str(number) for number in sorted(known) if number != UNKNOWN_VERSION]
        if version and numbers and version not in numbers:
            return ModelNotFoundError(
                f"model {name!r} has no version {version!r}; it has {', '.join(numbers)}"
            )
        state = known[int(version)] if version in numbers else known[max(known)]
        which = f"model {name!r} version {version}" if version else f"model {name!r}"
        reason = f" ({state.reason})" if state.reason else ""
        return ModelNotReadyError(f"{which} is {state.state.lower()}{reason}")


def _still_serving(error: EdgeRuntimeError) -> VersionState:
    return VersionState("READY", f"still the earlier files; the new ones failed: {_public(error)}")


def _public(error: EdgeRuntimeError) -> str:
    """Take the folders out of a message: where files lie is the operator's business."""
    return _folders.sub("", error.message)
