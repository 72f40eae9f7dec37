"""The catalog under any order of loads, failures, requests and unloads."""

import asyncio
import gc
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge_runtime.catalog import Catalog
from edge_runtime.errors import EdgeRuntimeError, ManifestError
from edge_runtime.routing import LoadedVersion
from tests.fakes import FakeLoader, bundle

MODELS = st.sampled_from(["m", "n"])
GOOD, BROKEN = ["a", "b"], "broken"
WANTED = st.dictionaries(st.integers(1, 3), st.sampled_from([*GOOD, BROKEN]), max_size=3)


class CatalogMachine(RuleBasedStateMachine):
    """Compares the catalog with what a caller may count on."""

    def __init__(self) -> None:
        super().__init__()
        gc.freeze()  # as the daemon does: each unload collects garbage
        self.loop = asyncio.new_event_loop()
        self.loader = FakeLoader(broken={BROKEN: ManifestError("broken")})
        self.catalog = Catalog(self.loader)
        self.leases: list[LoadedVersion] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.expected: dict[str, dict[int, str]] = {"m": {}, "n": {}}

    async def _settle(self) -> None:
        for _ in range(12):  # loads and disposals of one change follow each other on one thread
            await self.catalog.off_loop(lambda: None)
            await asyncio.sleep(0)

    async def _results(self) -> list[BaseException | None]:
        return await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _release(self, leased: LoadedVersion) -> None:
        self.catalog.release(leased)
        await self._settle()

    def _start(self, change: Any) -> None:  # noqa: ANN401 - a coroutine
        self.tasks.append(self.loop.create_task(change))
        self.loop.run_until_complete(self._settle())

    @rule(name=MODELS, wanted=WANTED)
    def apply(self, name: str, wanted: dict[int, str]) -> None:
        """Ask for versions, some of which cannot be loaded."""
        before = self.expected[name]
        after = {
            version: before[version] if digest == BROKEN else digest
            for version, digest in wanted.items()
            if digest != BROKEN or version in before
        }
        if BROKEN in wanted.values() and not after:
            after = before
        self.expected[name] = after
        bundles = {version: bundle(name, version, digest) for version, digest in wanted.items()}
        self._start(self.catalog.apply(name, bundles))

    @rule(name=MODELS)
    def unload(self, name: str) -> None:
        """Unload a model, known or not."""
        self.expected[name] = {}
        self._start(self.catalog.unload(name))

    @rule(name=MODELS, version=st.sampled_from(["", "1", "2", "3"]))
    def lease(self, name: str, version: str) -> None:
        """Begin a request."""
        expected = self.expected[name]
        try:
            leased = self.catalog.lease(name, version)
        except EdgeRuntimeError:
            assert not expected if not version else int(version) not in expected
            return
        assert leased.version == (version or str(max(expected)))
        self.leases.append(leased)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """End a request."""
        if self.leases:
            index = data.draw(st.integers(0, len(self.leases) - 1))
            self.loop.run_until_complete(self._release(self.leases.pop(index)))

    @invariant()
    def what_answers_is_what_was_asked_for(self) -> None:
        """The table holds exactly the versions that should answer."""
        found: dict[str, dict[int, str]] = {"m": {}, "n": {}}
        for version in self.catalog.loaded():
            found[version.name][int(version.version)] = version.digest
        assert found == self.expected

    @invariant()
    def memory_is_held_exactly_as_long_as_it_is_needed(self) -> None:
        """A version is closed when it is neither in the table nor leased, and not before."""
        needed = {id(version) for version in (*self.catalog.loaded(), *self.leases)}
        for version in self.loader.loaded:
            closed = self.loader.session_of(version).closed.is_set()
            assert closed == (id(version) not in needed)

    @invariant()
    def index_tells_what_answers(self) -> None:
        """READY is said of exactly the versions in the table; nothing is left loading."""
        ready = {
            (name, version)
            for name, version, state in self.catalog.index()
            if state.state == "READY"
        }
        assert ready == {(each.name, each.version) for each in self.catalog.loaded()}
        assert not any(state.state == "LOADING" for _, _, state in self.catalog.index())

    def teardown(self) -> None:
        """End every request: then every change ends, and nothing is held."""
        for leased in self.leases:
            self.loop.run_until_complete(self._release(leased))
        for result in self.loop.run_until_complete(self._results()):
            assert result is None or isinstance(result, EdgeRuntimeError)
        self.loop.run_until_complete(self.catalog.close())
        self.loop.close()
        gc.unfreeze()
        for version in self.loader.loaded:
            assert self.loader.session_of(version).closed.is_set()


TestCatalogMachine = CatalogMachine.TestCase
TestCatalogMachine.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
