"""Memory under any order of requests, failures, idle times, budgets, loads and unloads."""

import asyncio
import gc
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_runtime.errors import EdgeRuntimeError, ManifestError, ModelNotReadyError, OverloadedError
from edge_runtime.protocol.schemas import LOADS_WHEN_ASKED
from edge_runtime.residency import ROOM_WAIT_S
from edge_runtime.routing import LoadedVersion
from edge_runtime.settings import Model
from tests.fakes import bundle
from tests.residency_world import OWN, World

NAMES = st.sampled_from(["a", "b", "c"])
VERSIONS = st.sampled_from(["", "1", "2", "latest", "good"])
DIGESTS = ["small", "large", "liar", "broken"]
SIZES = {"small": 30, "large": 60, "liar": 70}
SETTINGS = st.builds(
    Model,
    load=st.sampled_from(["always", "start", "request", "request"]),
    idle_unload_s=st.sampled_from([0.0, 5.0]),
    aliases=st.sampled_from([{}, {"good": 1}, {"good": 2}]),
)
WANTED = st.dictionaries(st.integers(1, 2), st.sampled_from(DIGESTS), max_size=2)


@dataclass
class Request:
    """One request that waits or did."""

    answers: int = 0
    is_gone: bool = False


class ResidencyMachine(RuleBasedStateMachine):
    """Does what operators, clients and time do, and looks what may be counted on."""

    def __init__(self) -> None:
        super().__init__()
        gc.freeze()  # as the daemon does: each unload collects garbage
        self.loop = asyncio.new_event_loop()
        self.world = self.loop.run_until_complete(self._begin())
        self.catalog = self.world.catalog
        self.leases: list[LoadedVersion] = []
        self.requests: list[Request] = []
        self.changes: list[asyncio.Task[None]] = []
        self.held: set[str] = set()

    async def _begin(self) -> World:
        world = World()
        world.loader.sizes = dict(SIZES)
        world.loader.expects = {"liar": 10}
        world.loader.broken = {"broken": ManifestError("broken")}
        world.spares = {1: bundle("a", 1, "small")}
        return world

    def _settle(self) -> None:
        self.loop.run_until_complete(self.world.settle())

    def _start(self, change: Coroutine[Any, Any, None]) -> None:
        self.changes.append(self.loop.create_task(change))
        self._settle()

    # -- operators -----------------------------------------------------------------------------

    @rule(name=NAMES, wanted=WANTED, model=SETTINGS, at_once=st.booleans())
    def configure(self, name: str, wanted: dict[int, str], model: Model, *, at_once: bool) -> None:
        """Ask for versions, some of which cannot be loaded or are larger than they seem."""
        bundles = {version: bundle(name, version, digest) for version, digest in wanted.items()}
        self.held.discard(name)
        self._start(self.catalog.apply(name, bundles, model, at_once=at_once))

    @rule(name=NAMES)
    def unload(self, name: str) -> None:
        """Unload a model, known or not."""
        self.held.add(name)
        self._start(self.catalog.unload(name))

    @rule(room=st.sampled_from([None, 30, 65, 100, 150]))
    def change_budget(self, room: int | None) -> None:
        """Change the budget, as SIGHUP does."""
        self.catalog.budget_bytes = 0 if room is None else OWN + room
        self.loop.call_soon(self.catalog.look)
        self._settle()

    # -- clients -------------------------------------------------------------------------------

    @rule(name=NAMES, version=VERSIONS, is_gone=st.booleans())
    def ask(self, name: str, version: str, *, is_gone: bool) -> None:
        """Ask for a prediction that may have to wait."""
        self.loop.run_until_complete(self._ask(name, version, Request(is_gone=is_gone)))
        self._settle()

    async def _ask(self, name: str, version: str, request: Request) -> None:
        def resume(error: EdgeRuntimeError | None) -> None:
            request.answers += 1
            assert request.answers == 1
            if error is None:
                self._use(self.catalog.lease(name, version))

        try:
            self._use(self.catalog.lease(name, version))
        except ModelNotReadyError:
            try:
                waits = self.catalog.wake(name, version, resume, lambda: request.is_gone)
            except OverloadedError:
                return
            assert not request.answers
            assert not (waits and name in self.held)
            if waits:
                self.requests.append(request)
        except EdgeRuntimeError:
            pass

    def _use(self, leased: LoadedVersion) -> None:
        assert not self.world.loader.session_of(leased).closed.is_set()
        leased.statistics.last_success_ns = self.world.clock.ns
        self.catalog.release(leased)

    @rule(name=NAMES, version=VERSIONS)
    def lease(self, name: str, version: str) -> None:
        """Begin a request that takes long."""
        try:
            self.leases.append(self.catalog.lease(name, version))
        except EdgeRuntimeError:
            return

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """End such a request."""
        leased = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        self.loop.run_until_complete(self._release(leased))

    async def _release(self, leased: LoadedVersion) -> None:
        self.catalog.release(leased)
        await self.world.settle()

    @precondition(lambda self: self.requests)
    @rule()
    def leave(self) -> None:
        """A client goes away."""
        self.requests[-1].is_gone = True

    @rule(seconds=st.sampled_from([1.0, 6.0, 30.0]))
    def pass_time(self, seconds: float) -> None:
        """Nothing happens for a while."""
        self.loop.run_until_complete(self.world.pass_time(seconds))

    # -- what may be counted on ----------------------------------------------------------------

    @invariant()
    def memory_is_held_exactly_as_long_as_it_is_needed(self) -> None:
        """A version is closed when it is neither in the table nor leased, and not before."""
        needed = {id(version) for version in (*self.catalog.loaded(), *self.leases)}
        for version in self.world.loader.loaded:
            closed = self.world.loader.session_of(version).closed.is_set()
            assert closed == (id(version) not in needed)

    @invariant()
    def budget_is_kept_as_far_as_requests_allow(self) -> None:
        """Over the budget, nothing is left that could leave."""
        budget = self.catalog.budget_bytes
        if budget and self.world.loader.held_bytes() > budget:
            for entry in self.catalog.entries():
                if entry.loaded is not None:
                    assert entry.loaded.leases or entry.settings.load == "always"

    @invariant()
    def index_tells_what_is_in_memory(self) -> None:
        """READY without a word on loading is said of what is in memory, and of nothing else."""
        ready = {
            (name, version)
            for name, version, state in self.catalog.index()
            if state.state == "READY" and not state.reason.startswith(LOADS_WHEN_ASKED)
        }
        assert ready == {(each.name, each.version) for each in self.catalog.loaded()}

    @invariant()
    def nobody_waits_for_what_is_there_or_cannot_come(self) -> None:
        """Whoever still waits waits for room, which versions in use hold, or for their leaving."""
        waiting = [each for each in self.requests if not each.answers and not each.is_gone]
        if waiting and not self._is_changing:
            assert self.leases

    @property
    def _is_changing(self) -> bool:
        return any(not change.done() for change in self.changes)

    def teardown(self) -> None:
        """End every request: then every change ends, nobody waits, and nothing is held."""
        while self.leases:
            self.loop.run_until_complete(self._release(self.leases.pop()))
        self.loop.run_until_complete(self.world.pass_time(ROOM_WAIT_S + 1))
        for request in self.requests:
            assert request.answers == 1
        results = self.loop.run_until_complete(self._results())
        for result in results:
            assert result is None or isinstance(result, EdgeRuntimeError), result
        assert self.loop.run_until_complete(self.catalog.close())
        self.loop.close()
        gc.unfreeze()
        assert self.world.loader.held_bytes() == OWN

    async def _results(self) -> list[BaseException | None]:
        return await asyncio.gather(*self.changes, return_exceptions=True)


TestResidencyMachine = ResidencyMachine.TestCase
TestResidencyMachine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
