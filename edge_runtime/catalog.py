"""The models: who answers for a name, leases that pin a version, swaps that drop nothing.

Rules: everything here runs on the event loop's thread except what ``LoaderThread`` does. The
routing table is replaced, never changed. A version that is taken out of the table lives until its
last lease ends. One change at a time, so that two loads never count on the same room.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from time import perf_counter_ns
from typing import Final, TypeVar

from edge_runtime.bundle import Bundle
from edge_runtime.errors import EdgeRuntimeError, ModelNotReadyError
from edge_runtime.fairness import User
from edge_runtime.loader_thread import Expected, Loader, LoaderThread, file_bytes
from edge_runtime.reconciler import Reconciler, Spare
from edge_runtime.registry import UNKNOWN_VERSION, Entry, Registry
from edge_runtime.residents import Residents
from edge_runtime.routing import LoadedVersion, Table, VersionState, route
from edge_runtime.settings import Model
from edge_runtime.swap import Swap
from edge_runtime.waiting import IsCancelled, Resume, Waiter, Waiting

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")
CLOSE_S: Final = 10.0
WAITING_MAX: Final = 256
_DEFAULTS: Final = Model()


class Catalog:
    """The models, in memory or not.

    Args:
        loader: Makes a bundle runnable, or gives back what serves now if nothing would change;
            called on the loader thread.
        expected: Memory that a bundle will need before anybody has measured it, in bytes; called
            on the loader thread.
        held_bytes: Reads the resident memory of this process, in bytes.
        spare: Gives the bundles that may answer for a model instead of the versions that cannot
            be loaded.
        waiting_max: Requests that may wait for loads.
        clock_ns: A monotonic clock, in nanoseconds; the one that statistics use.
    """

    def __init__(
        self,
        loader: Loader,
        *,
        expected: Expected = file_bytes,
        held_bytes: Callable[[], int] = lambda: 0,
        spare: Spare | None = None,
        waiting_max: int = WAITING_MAX,
        clock_ns: Callable[[], int] = perf_counter_ns,
    ) -> None:
        self._registry = Registry()
        self._thread = LoaderThread(loader, expected)
        self._residents = Residents(self._registry, self._thread, held_bytes, clock_ns)
        self._waiting = Waiting(waiting_max)
        self._reconciler = Reconciler(self._residents, self._waiting, spare)
        self._models: dict[str, asyncio.Lock] = {}
        self._there: dict[str, Collection[int]] = {}
        #: Called with the name and the number of a version that is forgotten for good.
        self.gone: Callable[[str, str], None] = lambda _name, _version: None
        #: Whether every model has been looked for; while not, an unknown one may yet come.
        self.is_settled = True

    @property
    def table(self) -> Table:
        """Who answers for what, now."""
        return self._registry.table

    @property
    def budget_bytes(self) -> int:
        """Resident memory that the process may hold; 0: no budget."""
        return self._residents.budget_bytes

    @budget_bytes.setter
    def budget_bytes(self, count: int) -> None:
        self._residents.budget_bytes = count

    # -- the request path ----------------------------------------------------------------------

    def lease(self, name: str, version: str = "") -> LoadedVersion:
        """Pin the version that answers for a name; ``release`` must follow.

        Raises:
            ModelNotFoundError: No such model or version is known.
            ModelNotReadyError: It is known, but not in memory; ``wake`` may bring it there.
        """
        loaded = self.peek(name, version)
        loaded.leases += 1
        return loaded

    def release(self, loaded: LoadedVersion) -> None:
        """End a lease."""
        loaded.leases -= 1
        if loaded.when_free is not None and not loaded.leases:
            loaded.when_free(loaded)

    def peek(self, name: str, version: str = "") -> LoadedVersion:
        """Look at the version that answers for a name, without a lease.

        Raises:
            ModelNotFoundError: No such model or version is known.
            ModelNotReadyError: It is known, but not in memory.
        """
        loaded = route(self._registry.table, name, version)
        if loaded is None:
            raise self._missing(name, version)
        return loaded

    def wake(
        self,
        name: str,
        version: str,
        resume: Resume,
        is_cancelled: IsCancelled = lambda: False,
        *,
        user: User = None,
    ) -> bool:
        """Bring a version that is not in memory back for a request.

        Args:
            name: The model.
            version: A number or an alias; empty: the one that answers by default.
            resume: Called exactly once on the loop's thread, never before this returns: with
                ``None`` when the version is there (lease it inside this call), or with the error.
            is_cancelled: Whether nobody waits for the answer any more; then ``resume`` gets an
                ``UnavailableError``, and the request alone makes nothing load.
            user: Who asks.

        Returns:
            Whether the request waits now; if not, ``lease`` has said why.

        Raises:
            OverloadedError: Too many requests wait already.
        """
        entry = self._registry.resolve(name, version)
        now_s = self._residents.now_s
        if self._residents.is_closing or entry is None or not entry.may_load(now_s):
            return False
        self._waiting.add(Waiter(name, version, resume, is_cancelled, now_s, user))
        self.look()
        return True

    @property
    def waiting(self) -> int:
        """Requests that wait for a version to be in memory."""
        return len(self._waiting)

    # -- facts ---------------------------------------------------------------------------------

    def last_known(self, name: str, version: str = "") -> LoadedVersion | None:
        """Give what answers for a name, or what did before it left memory.

        Its signature, digest and manifest can be read; if it left, its session is closed.

        Args:
            name: The model.
            version: A number or an alias; empty: the one that answers by default.
        """
        entry = self._registry.resolve(name, version) or self._registry.last(name, version)
        return entry.last if entry else None

    def number(self, name: str, version: str = "") -> str | None:
        """Say which version a caller means, in memory or not.

        Args:
            name: The model.
            version: A number or an alias; empty: the one that answers by default.

        Returns:
            Its number; empty where the model is there and none of its versions can be told, since
            its files cannot be read; ``None`` where there is no such version.
        """
        entry = self._registry.resolve(name, version)
        if entry is not None:
            return entry.text
        entries = self._registry.of(name)
        numbers = [each.text for each in entries if each.text]
        if not numbers and entries:
            return version if version.isdecimal() else ""
        return None if version or not numbers else numbers[-1]

    def describe(
        self,
        name: str,
        version: str,
        then: Callable[[LoadedVersion | EdgeRuntimeError], None],
        is_cancelled: IsCancelled = lambda: False,
        *,
        user: User = None,
    ) -> None:
        """Find a version whose signature can be read; one that was never loaded is loaded now.

        Args:
            name: The model.
            version: A number or an alias; empty: the one that answers by default.
            then: Called once, perhaps before this returns; what it gets may not be in memory.
            is_cancelled: Whether nobody waits for the answer any more.
            user: Who asks.

        Raises:
            ModelNotFoundError: No such model or version is known.
            ModelNotReadyError: It is known, but cannot answer.
            OverloadedError: Too many requests wait already.
        """
        entry = self._registry.resolve(name, version)
        if entry is None or not entry.is_changing:
            self.check_ready(name, version)
        known = self.last_known(name, version)
        if known is not None:
            then(known)
            return

        def resume(error: EdgeRuntimeError | None) -> None:
            then(error or self.peek(name, version))

        if not self.wake(name, version, resume, is_cancelled, user=user):
            raise self._missing(name, version)

    def check_ready(self, name: str, version: str = "") -> None:
        """Make sure that a version answers when asked, at once or after being loaded.

        Raises:
            ModelNotFoundError: No such model or version is known.
            ModelNotReadyError: It is known, but cannot answer.
        """
        entry = self._registry.resolve(name, version)
        is_ready = entry is not None and (
            entry.loaded is not None or (entry.can_load and entry.state.state != "UNAVAILABLE")
        )
        if not is_ready:
            raise self._missing(name, version)

    def answers(self, name: str = "") -> bool:
        """Tell whether a model (empty: any) answers when asked."""
        entries = self._registry.of(name) if name else self._registry
        return any(entry.answers for entry in entries)

    def known(self) -> list[str]:
        """List the models of which anything is known, whether they answer or not."""
        return self._registry.names()

    def names(self) -> list[str]:
        """List the models that answer when asked."""
        return list(dict.fromkeys(entry.name for entry in self._registry if entry.answers))

    def versions(self, name: str) -> list[str]:
        """List the versions of a model that answer when asked."""
        return [entry.text for entry in self._registry.of(name) if entry.answers]

    def index(self) -> list[tuple[str, str, VersionState]]:
        """List every version known: name, version (empty: of the whole model), state."""
        return self._registry.index()

    def loaded(self) -> list[LoadedVersion]:
        """List every version in memory, by name and number."""
        return [entry.loaded for entry in self._registry if entry.loaded is not None]

    def counted(self) -> list[LoadedVersion]:
        """List every version that has counters, in memory or not, by name and number."""
        return [entry.last for entry in self._registry if entry.last is not None]

    def entries(self) -> list[Entry]:
        """List every version known, to be read only: loads, evictions, sizes, what was last."""
        return list(self._registry)

    # -- changes -------------------------------------------------------------------------------

    async def apply(
        self,
        name: str,
        desired: Mapping[int, Bundle],
        settings: Model = _DEFAULTS,
        *,
        at_once: bool = False,
    ) -> None:
        """Make exactly these versions of a model answer; no request is dropped for it.

        A version that cannot be loaded leaves what it would have replaced in place. If then
        nothing would answer for the model, spare versions are tried.

        Args:
            name: The model.
            desired: Bundles by version number; empty unloads the model.
            settings: Of the model.
            at_once: Whether to load what would otherwise wait for a request.

        Raises:
            ArtifactError: A version could not be loaded; the others answer all the same.
            ModelNotReadyError: There is no room for it.
        """
        changing = self._reconciler.changing
        # One change of a model at a time, and then one change of memory at a time.
        async with self._models.setdefault(name, asyncio.Lock()), changing:
            self._registry.announce(name, settings.aliases)
            swap = Swap(self._residents, name, settings, changing, at_once=at_once)
            failure = await swap.bring(desired)
            tried = set(desired)
            while failure is not None and not self.answers(name):
                spare = await self._reconciler.spare(name, tried)
                if not spare:
                    break
                tried |= spare.keys()
                await swap.bring(spare)
            self._registry.configure(name, settings.aliases)
            for problem in self._registry.alias_problems(name) if desired else ():
                _log.error("model %s: %s", name, problem)
            self._reconciler.settle()
        self.look()
        # Outside the lock: a request that runs for long must not hold up other models' loads.
        await swap.ended()
        self._prune(name)
        if failure is not None:
            raise failure

    async def unload(self, name: str) -> None:
        """Take a model out and wait until its last request was answered and its memory is free.

        No request brings it back; ``apply`` does.

        Raises:
            ModelNotFoundError: No such model is known.
        """
        if not self._registry.of(name):
            raise self._missing(name, "")
        await self.apply(name, {})

    def note_problem(self, name: str, version: int | None, error: EdgeRuntimeError) -> None:
        """Record files that could not even be tried, for the index.

        Args:
            name: The model.
            version: Its version; ``None`` if the whole model is concerned.
            error: What is wrong.
        """
        if version is None:
            entry = self._registry.resolve(name, "")
            version = entry.version if entry is not None else UNKNOWN_VERSION
        self._registry.entry(name, version).refuse(error)

    def note_there(self, name: str, versions: Collection[int]) -> None:
        """Note which versions a model's source has; another is forgotten once it is over."""
        self._there[name] = versions
        self._prune(name)

    def _prune(self, name: str) -> None:
        there = self._there.get(name)
        for entry in self._registry.prune(name, there) if there is not None else ():
            _log.info("model %s version %s is not there any more", name, entry.text)
            self.gone(name, entry.text)

    def look(self) -> None:
        """Do next what memory, time and the waiting requests ask for, if anything."""
        self._reconciler.look()

    def terminate(self) -> None:
        """Load nothing any more, and make every run that goes on end early: the daemon stops."""
        self._residents.is_closing = True
        for loaded in (*self.loaded(), *self._residents.leaving):
            loaded.session.terminate()

    async def close(self, within_s: float = CLOSE_S) -> bool:
        """Unload everything and end the loader thread.

        Args:
            within_s: Time for a load that goes on and for the last leases, in seconds.

        Returns:
            Whether all of it has ended; a load cannot be cut from outside.
        """
        self._residents.is_closing = True
        try:
            async with asyncio.timeout(within_s):
                await self._reconciler.close()
                for name in list(self.table):
                    await self.apply(name, {})
                await self.off_loop(lambda: None)
        except TimeoutError:
            self._thread.end(wait=False)
            return False
        self._thread.end(wait=True)
        return True

    async def off_loop(self, work: Callable[[], _Result]) -> _Result:
        """Do slow work, such as reading folders, on the loader thread."""
        return await self._thread.run(work)

    def _missing(self, name: str, version: str) -> EdgeRuntimeError:
        if not self.is_settled and not self._registry.of(name):
            return ModelNotReadyError(
                "the daemon is starting, and does not know its models yet", retry_after_s=1
            )
        return self._registry.missing(name, version, self._residents.now_s)
