"""The models: who answers for a name, leases that pin a version, swaps that drop nothing.

Rules: everything here runs on the event loop's thread except what ``LoaderThread`` does. The
routing table is replaced, never changed. A version that is taken out of the table lives until its
last lease ends. One change at a time, so that two loads never count on the same room.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping
from time import perf_counter_ns
from typing import Final, TypeVar
from weakref import WeakValueDictionary

from edge_runtime.bundle import Bundle
from edge_runtime.errors import EdgeRuntimeError, OverloadedError
from edge_runtime.fairness import User
from edge_runtime.known_models import KnownModels
from edge_runtime.loader_thread import Expected, Loader, LoaderThread, file_bytes
from edge_runtime.reconciler import Reconciler, Spare
from edge_runtime.registry import Registry
from edge_runtime.registry_entry import UNKNOWN_VERSION
from edge_runtime.residents import Residents
from edge_runtime.routing import Asker, LoadedVersion, Traffic, route
from edge_runtime.settings import Model
from edge_runtime.swap import Swap
from edge_runtime.waiting import IsCancelled, Resume, Waiter, Waiting

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")
CLOSE_S: Final = 10.0
WAITING_MAX: Final = 256
_DEFAULTS: Final = Model()


class Catalog(KnownModels):
    """The models, in memory or not: who answers, and what changes that.

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
        registry = Registry()
        self._thread = LoaderThread(loader, expected)
        self._residents = Residents(registry, self._thread, held_bytes, clock_ns)
        super().__init__(registry, lambda: self._residents.now_s)
        self._waiting = Waiting(waiting_max)
        self._reconciler = Reconciler(self._residents, self._waiting, spare)
        # Weak: a lock lives while somebody holds it or waits for it, and no longer.
        self._models: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._there: dict[str, Collection[int]] = {}
        #: Models that somebody unloaded, until somebody has one of their versions loaded.
        self.taken_out: set[str] = set()
        #: Called with the name and the number of a version that is forgotten for good.
        self.gone: Callable[[str, str], None] = lambda _name, _version: None

    @property
    def budget_bytes(self) -> int:
        """Resident memory that the process may hold; 0: no budget."""
        return self._residents.budget_bytes

    @budget_bytes.setter
    def budget_bytes(self, count: int) -> None:
        self._residents.budget_bytes = count

    # -- the request path ----------------------------------------------------------------------

    def lease(self, name: str, version: str = "", asker: Asker | None = None) -> LoadedVersion:
        """Pin the version that answers for a name; ``release`` must follow.

        Args:
            name: The model.
            version: A number or an alias; empty: the one that answers by default, or another one
                that gets a share of such requests.
            asker: Whose key says which; ``None``: the default, whatever the shares.

        Raises:
            ModelNotFoundError: No such model or version is known.
            ModelNotReadyError: It is known, but not in memory; ``wake`` may bring it there.
        """
        loaded = route(self._registry.table, name, version, asker)
        if loaded is None:
            raise self._missing(name, version)
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

    def drop_cancelled(self) -> None:
        """Answer those that nobody waits for any more, whatever is being loaded meanwhile."""
        self._waiting.drop_cancelled()

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
            if error is not None:
                then(error)
                return
            try:
                found = self.peek(name, version)
            except EdgeRuntimeError as gone:  # it left again before this one's turn came
                then(gone)
                return
            then(found)

        if not self.wake(name, version, resume, is_cancelled, user=user):
            raise self._missing(name, version)

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
        if desired:
            self.taken_out.discard(name)
        # One change of a model at a time, and then one change of memory at a time.
        model = self._models.setdefault(name, asyncio.Lock())
        async with model, changing:
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

    def direct(self, name: str, traffic: Traffic | None) -> None:
        """Share out a model's requests from the next one on; it is not disabled any more.

        Versions with a share stay in memory from now on, and those that are not there are loaded.
        Until then, and where one cannot be loaded, the default answers in its place.

        Args:
            name: The model.
            traffic: The shares; ``None``: the highest version that answers gets all, as ever.
        """
        self._registry.direct(name, traffic)
        for version in sorted(traffic.kept) if traffic is not None else ():
            entry = self._registry.find((name, version))
            if entry is not None and entry.loaded is None:
                with contextlib.suppress(OverloadedError):
                    self.wake(name, entry.text, _log_missing)
        self.look()

    async def disable(self, name: str, reason: str) -> None:
        """Let nothing answer for a model, from the next request on, until ``direct``.

        Args:
            name: The model, known or not.
            reason: Why, as a sentence; every caller is told.
        """
        self._registry.disable(name, reason)
        _log.error("model %s is disabled: %s", name, reason)
        await self.apply(name, {})

    async def unload(self, name: str) -> None:
        """Take a model out and wait until its last request was answered and its memory is free.

        No request brings it back; ``apply`` does.

        Raises:
            ModelNotFoundError: No such model is known.
        """
        if not self._registry.of(name):
            raise self._missing(name, "")
        self.taken_out.add(name)
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
        if there is None:
            return
        for entry in self._registry.prune(name, there):
            _log.info("model %s version %s is not there any more", name, entry.text)
            self.gone(name, entry.text)
        if not there and not self._registry.of(name):
            self._there.pop(name, None)  # new names may come for ever
            self.taken_out.discard(name)

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


def _log_missing(error: EdgeRuntimeError | None) -> None:
    if error is not None:
        _log.error("a version that should get requests is not there: %s", error.message)
