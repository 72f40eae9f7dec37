"""A catalog on a fake loader, with a memory and a clock that tests rule."""

import asyncio
from collections.abc import Collection, Mapping

from edge_runtime.bundle import Bundle
from edge_runtime.catalog import Catalog
from edge_runtime.errors import EdgeRuntimeError, ModelNotReadyError
from edge_runtime.routing import LoadedVersion
from edge_runtime.settings import Model
from tests.fakes import WAIT_S, FakeLoader, bundle

LAZY = Model(load="request")
WAITING_MAX = 4
OWN = 40
S = 1_000_000_000


class Clock:
    """A clock that tests turn.

    Attributes:
        ns: The time.
        tick_ns: How much goes by with every look.
    """

    def __init__(self) -> None:
        self.ns = S
        self.tick_ns = 0

    def __call__(self) -> int:
        """Tell the time."""
        self.ns += self.tick_ns
        return self.ns


class World:
    """A catalog, its fake loader and its clock, and what happened to the requests.

    Attributes:
        spares: Bundles that may stand in, by version.
        answered: What each request got: the version that it leased, or the error.
    """

    def __init__(self) -> None:
        self.loader = FakeLoader(own_bytes=OWN)
        self.clock = Clock()
        self.spares: dict[int, Bundle] = {}
        self.catalog = Catalog(
            self.loader,
            expected=self.loader.expected,
            held_bytes=self.loader.held_bytes,
            spare=self._spare,
            waiting_max=WAITING_MAX,
            clock_ns=self.clock,
        )
        self.answered: list[LoadedVersion | EdgeRuntimeError] = []
        self._answer = asyncio.Event()

    async def _spare(self, name: str, without: Collection[int]) -> Mapping[int, Bundle]:
        return {
            number: each
            for number, each in self.spares.items()
            if each.manifest.name == name and number not in without
        }

    def budget(self, room: int) -> None:
        """Leave this much room for models."""
        self.catalog.budget_bytes = OWN + room
        self.catalog.look()

    async def serve(
        self,
        name: str,
        *versions: int,
        settings: Model = LAZY,
        digest: str = "first",
        at_once: bool = False,
    ) -> None:
        """Configure a model."""
        wanted = {version: bundle(name, version, digest) for version in versions}
        await self.catalog.apply(name, wanted, settings, at_once=at_once)
        await self.settle()

    def ask(
        self,
        name: str = "m",
        version: str = "",
        *,
        is_gone: bool = False,
        user: int | None = None,
    ) -> bool:
        """Ask for a prediction as the request path does; tell whether it waits."""

        def resume(error: EdgeRuntimeError | None) -> None:
            self._answer.set()
            if error is not None:
                self.answered.append(error)
                return
            try:
                leased = self.catalog.lease(name, version)
            except ModelNotReadyError as gone:  # the answer of the request path, too
                self.answered.append(gone)
                return
            self.answered.append(leased)
            leased.statistics.last_success_ns = self.clock.ns
            self.catalog.release(leased)

        try:
            self.catalog.release(self.catalog.lease(name, version))
        except ModelNotReadyError:
            return self.catalog.wake(name, version, resume, lambda: is_gone, user=user)
        resume(None)
        return False

    async def asks(
        self, name: str = "m", version: str = "", *, user: int | None = None
    ) -> LoadedVersion | EdgeRuntimeError:
        """Ask, and wait for the answer."""
        self._answer.clear()
        waits = self.ask(name, version, user=user)
        assert waits or self._answer.is_set(), "it neither waits nor has an answer"
        async with asyncio.timeout(WAIT_S):
            await self._answer.wait()
        return self.answered[-1]

    async def settle(self) -> None:
        """Let the loop and the loader thread do all they can do now."""
        for _ in range(30):
            await self.catalog.off_loop(lambda: None)
            await asyncio.sleep(0)

    async def pass_time(self, seconds: float) -> None:
        """Turn the clock; look, as the timer would."""
        self.clock.ns += int(seconds * S)
        self.catalog.look()
        await self.settle()

    def in_memory(self) -> list[str]:
        """List what is in memory."""
        return [f"{each.name}/{each.version}" for each in self.catalog.loaded()]

    def has_timer(self) -> bool:
        """Tell whether the catalog waits for a moment to come."""
        return self.catalog._reconciler._timer is not None

    def state(self, name: str = "m", version: str = "1") -> tuple[str, str]:
        """Give what the index says."""
        return next(
            (state.state, state.reason)
            for model, number, state in self.catalog.index()
            if (model, number) == (name, version)
        )
