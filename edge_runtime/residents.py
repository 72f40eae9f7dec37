"""Versions in and out of memory: make room, load, check what a load really took, let go.

Does what ``residency`` decides. Everything here runs on the event loop's thread, under the
catalog's lock.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from time import perf_counter_ns
from typing import Final, NamedTuple

from edge_runtime.bundle import Bundle
from edge_runtime.errors import EdgeRuntimeError, ModelNotReadyError, NoRoomError
from edge_runtime.fairness import User
from edge_runtime.load_shares import LoadShares
from edge_runtime.loader_thread import LoaderThread
from edge_runtime.registry import Registry
from edge_runtime.registry_entry import Entry
from edge_runtime.residency import (
    STAY_MAX_S,
    Action,
    Key,
    Load,
    Snapshot,
    Version,
    admit,
    overflow,
)
from edge_runtime.routing import LoadedVersion, VersionState

_log = logging.getLogger(__name__)

_NS: Final = 1e9
_LONG_AGO_S: Final = float("-inf")


class Asked(NamedTuple):
    """The requests that wait for one version: how many, since when the first, and whose."""

    requests: int
    since_s: float
    users: frozenset[User] = frozenset()


class Residents:
    """The versions in memory, and the way in and out.

    Args:
        registry: The versions known.
        thread: Loads and frees.
        held_bytes: Reads the resident memory of this process, in bytes.
        clock_ns: A monotonic clock, in nanoseconds; the one that statistics use.

    Attributes:
        budget_bytes: What the process may hold; 0: no budget.
        is_closing: Whether nothing is loaded any more.
        shares: Who caused loads lately.
        freed: Called when a version's memory was given back.
        arrived: Called when a version answers that did not.
    """

    def __init__(
        self,
        registry: Registry,
        thread: LoaderThread,
        held_bytes: Callable[[], int],
        clock_ns: Callable[[], int] = perf_counter_ns,
    ) -> None:
        self.registry = registry
        self.thread = thread
        self.budget_bytes = 0
        self.is_closing = False
        self.shares = LoadShares()
        self._held_bytes = held_bytes
        self.freed: Callable[[], None] = lambda: None
        self.arrived: Callable[[], None] = lambda: None
        self._clock_ns = clock_ns
        self._leaving: dict[LoadedVersion, asyncio.Event] = {}

    @property
    def now_s(self) -> float:
        """The clock, in seconds."""
        return self._clock_ns() / _NS

    @property
    def leaving(self) -> Collection[LoadedVersion]:
        """Versions that were taken out and are not closed yet."""
        return self._leaving.keys()

    def snapshot(
        self, asked: Mapping[Key, Asked] | None = None, letting_go: Collection[LoadedVersion] = ()
    ) -> Snapshot:
        """Look at memory now.

        Args:
            asked: The requests that wait, by version.
            letting_go: Versions in memory that go next, whatever is decided.
        """
        asked = asked or {}
        now_s = self.now_s
        versions = []
        for entry in self.registry:
            loaded = entry.loaded
            waiting = asked.get(entry.key)
            if loaded in letting_go:
                continue
            if loaded is not None:
                versions.append(self._resident(entry, loaded, waiting, now_s))
            elif waiting is not None:
                versions.append(self._wanted(entry, entry.need_bytes or 0, waiting, now_s))
        leaving = sum(self._size(each) for each in (*self._leaving, *letting_go))
        held = self._held_bytes() if self.budget_bytes else 0
        return Snapshot(now_s, held, self.budget_bytes, tuple(versions), leaving)

    async def need(self, entry: Entry, bundle: Bundle) -> tuple[int, bool]:
        """Find out what a bundle needs.

        Returns:
            Memory, in bytes: as measured when these very files were loaded, else as expected.
            And whether what is in memory was made of these very files.

        Raises:
            EdgeRuntimeError: The files are not usable; it is noted at the entry.
        """
        known = entry.files if entry.loaded_as == entry.loads_as else None
        try:
            look, expected = await self.thread.survey(bundle, known)
        except EdgeRuntimeError as error:
            self._failed(entry, error)
            raise
        if expected is None:
            return entry.need_bytes or 0, entry.loaded is not None
        if entry.loaded is None:
            entry.know(look, expected)
        return expected, False

    async def load(
        self, entry: Entry, bundle: Bundle, users: Collection[User] = ()
    ) -> LoadedVersion:
        """Load a version's files; it does not answer yet.

        Args:
            entry: What is to be loaded.
            bundle: Of what.
            users: Who waits for it; none: the operator wants it.

        Returns:
            What was loaded, or what serves already if nothing would change.

        Raises:
            EdgeRuntimeError: It cannot be loaded; it is noted at the entry.
        """
        if self.is_closing:
            raise ModelNotReadyError("the daemon is stopping, and loads nothing any more")
        serving = entry.loaded
        if serving is None and entry.state.state != "LOADING":
            entry.state = VersionState("LOADING")
        began_s = self.now_s
        try:
            loaded, look = await self.thread.load(bundle, serving)
        except EdgeRuntimeError as error:
            self._failed(entry, error)
            raise
        finally:
            self.shares.charge(users, self.now_s - began_s, self.now_s)
        entry.loaded_for = users
        entry.know(look, loaded.size_bytes or entry.need_bytes or 0)
        if loaded is not serving:
            text = "model %s version %s loaded in %.3f s: %s"
            _log.info(text, entry.name, entry.text, loaded.load_s, loaded.variant_reason)
        return loaded

    def arrive(self, entry: Entry, loaded: LoadedVersion, bundle: Bundle) -> None:
        """Let a version that was loaded answer from now on."""
        entry.arrive(loaded, bundle, self._clock_ns())
        self.registry.refresh(entry.name)
        self.arrived()

    async def make_room(
        self, entry: Entry, need_bytes: int, yielding: Collection[Load] = ("request", "start")
    ) -> None:
        """Evict others until a version fits.

        Args:
            entry: What is to be loaded.
            need_bytes: What it needs.
            yielding: Whose versions may leave for it.

        Raises:
            NoRoomError: There is no room for it.
        """
        wanted = self._wanted(entry, need_bytes, Asked(1, _LONG_AGO_S), self.now_s)
        while True:
            action = admit(self.snapshot(), wanted, yielding=yielding)
            if action.kind == "load":
                return
            if action.kind == "refuse":
                raise refusal(entry, action)
            await self.evict(self.registry.entry(*action.key), action.reason)

    def check_possible(
        self, entry: Entry, need_bytes: int, letting_go: Collection[LoadedVersion]
    ) -> None:
        """Make sure that a version could fit, once others were let go of.

        Args:
            entry: What is to be loaded.
            need_bytes: What it needs.
            letting_go: Versions that would go for it.

        Raises:
            NoRoomError: Even then it would not fit.
        """
        wanted = self._wanted(entry, need_bytes, Asked(1, self.now_s), self.now_s)
        action = admit(self.snapshot(letting_go=letting_go), wanted)
        if action.kind == "refuse":
            raise refusal(entry, action)

    async def check_size(
        self, entry: Entry, loaded: LoadedVersion, letting_go: Collection[LoadedVersion] = ()
    ) -> None:
        """Keep the budget after a load, now that the real size is known.

        Args:
            entry: What was loaded.
            loaded: The version; it does not answer yet.
            letting_go: Versions that go once it answers.

        Raises:
            NoRoomError: It does not fit, and was let go of again.
        """
        while True:
            now = self.snapshot(letting_go=letting_go)
            arrived = self._resident(entry, loaded, None, now.now_s)
            others = tuple(each for each in now.versions if each.key != entry.key)
            action = overflow(replace(now, versions=(*others, arrived)), arrived)
            if action.kind == "wait":
                return
            if action.kind == "refuse":
                await self.let_go(loaded).wait()
                raise refusal(entry, action)
            await self.evict(self.registry.entry(*action.key), action.reason)

    async def evict(self, entry: Entry, why: str, *, is_idle: bool = False) -> None:
        """Take a version out of memory; the next request brings it back."""
        loaded = entry.leave()
        entry.sleep(why)
        entry.unloads += is_idle
        entry.evictions += not is_idle
        self.registry.refresh(entry.name)
        _log.info("model %s version %s leaves memory: %s", entry.name, entry.text, why)
        await self.let_go(loaded).wait()

    def let_go(self, loaded: LoadedVersion) -> asyncio.Event:
        """Give a version's memory back once its last lease has ended.

        Returns:
            Set when that is done.
        """
        gone = self._leaving[loaded] = asyncio.Event()
        if loaded.leases:
            loaded.when_free = self._close
        else:
            self._close(loaded)
        return gone

    def take_back(self, loaded: LoadedVersion) -> bool:
        """Keep a version after all, if it is not being closed yet; tell whether."""
        if loaded not in self._leaving or not loaded.leases:
            return False
        del self._leaving[loaded]
        loaded.when_free = None
        return True

    def _size(self, loaded: LoadedVersion) -> int:
        entry = self.registry.find((loaded.name, int(loaded.version)))
        return loaded.size_bytes or (entry.need_bytes if entry is not None else 0) or 0

    def _close(self, loaded: LoadedVersion) -> None:
        def closed() -> None:
            self._leaving.pop(loaded).set()
            self.freed()

        self.thread.close_session(loaded, closed)

    def _failed(self, entry: Entry, error: EdgeRuntimeError) -> None:
        _log.error("model %s version %s: %s", entry.name, entry.text, error.message)
        entry.fail(error, self.now_s)
        self.registry.refresh(entry.name)  # another version may answer by default now

    def _resident(
        self, entry: Entry, loaded: LoadedVersion, waiting: Asked | None, now_s: float
    ) -> Version:
        if loaded.leases:
            loaded.last_used_ns = self._clock_ns()
        used_ns = max(loaded.last_used_ns, loaded.statistics.last_success_ns)
        return Version(
            key=entry.key,
            size_bytes=self._size(loaded),
            load="always" if self.registry.is_kept(entry.key) else entry.settings.load,
            last_used_s=used_ns / _NS,
            leases=loaded.leases,
            waiting=waiting.requests if waiting else 0,
            idle_unload_s=entry.settings.idle_unload_s,
            stays_until_s=entry.arrived_ns / _NS + min(loaded.load_s, STAY_MAX_S),
            loads_s=self.shares.least_s(entry.loaded_for, now_s),
        )

    def _wanted(self, entry: Entry, need_bytes: int, waiting: Asked, now_s: float) -> Version:
        return Version(
            key=entry.key,
            size_bytes=need_bytes,
            load=entry.settings.load,
            is_resident=False,
            waiting=waiting.requests,
            waiting_since_s=waiting.since_s,
            loads_s=self.shares.least_s(waiting.users, now_s),
        )


def refusal(entry: Entry, action: Action) -> NoRoomError:
    """Make the error of an action that refuses."""
    return NoRoomError(
        f"model {entry.name!r} version {entry.text} is not loaded: {action.reason}",
        retry_after_s=action.retry_after_s,
    )
