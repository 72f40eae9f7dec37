"""The releases under way: one machine a model, started where the last daemon stopped.

Everything here is called on the event loop's thread.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

import msgspec

from edge_runtime.errors import EdgeRuntimeError, StorageError
from edge_runtime.failpoints import wall_time
from edge_runtime.release.disk_thread import aside
from edge_runtime.release.machine import Machine
from edge_runtime.release.needed_versions import NeededVersion
from edge_runtime.release.records import Numbers, Override, Release, Transition
from edge_runtime.release.recovery import Crash, counts_against, recovered, suspects
from edge_runtime.release.states import FINAL, Cause, Event, State
from edge_runtime.release.steps import Means, Outcome
from edge_runtime.routing import LoadedVersion

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

TICK_S: Final = 60.0
"""How often the awake time is stored while a release is under way, in seconds."""
COLLECT_S: Final = 5.0
"""Time for old versions to leave the disk before a newer one may come in, in seconds."""
STUCK_S: Final = 30.0
"""Time for an older release to end before a newer one goes on without it, in seconds."""


class Machines:
    """The releases under way.

    Args:
        means: What they share.

    Attributes:
        by_model: The machine of each model with a release under way.
        overrides: Local decisions, by model.
        problem: Why releases stand still; empty: they do not.
    """

    def __init__(self, means: Means) -> None:
        self._means = means
        self.by_model: dict[str, Machine] = {}
        self.overrides: dict[str, Override] = {}
        self.problem = ""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._arriving = 0
        self._collecting = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.TimerHandle | None = None

    async def begin(self, crash: Crash | None) -> None:
        """Go on where the last daemon stopped; the active versions are in place already.

        Args:
            crash: How it died; ``None``: it did not, or the power was cut.
        """
        means = self._means
        journal = means.journal
        overrides = await self._stored(journal.overrides)
        unfinished = await self._stored(partial(journal.releases, unfinished=True))
        self.overrides = {each.model: each for each in overrides or ()}
        blamed = suspects(unfinished or (), crash)
        ids = {each.release.id for each in self.by_model.values()}
        for release in reversed(unfinished or ()):  # of two of one model, the newer one wins
            if release.id in ids:
                continue  # it was ordered while the disk could not be read
            kept, outcome = recovered(
                release,
                means.settings().crashes_max,
                has_crashed=counts_against(release, crash, blamed),
                others=[_named(each) for each in blamed if each.id != release.id]
                if release in blamed
                else (),
            )
            if kept != release:
                await self._stored(partial(journal.save, kept))
            await self.supersede(kept.model)
            machine = self.machine(kept)
            if outcome is not None:
                machine.order(outcome)
            self.run(machine)
        self._tick()

    async def end(self) -> None:
        """Stop in order: releases go on at the next start."""
        if self._ticker is not None:
            self._ticker.cancel()
        tasks = [*self._tasks.values(), *self._background]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STUCK_S)

    def needed(self) -> list[NeededVersion]:
        """List the versions that must be loadable again, whatever becomes of the keyring."""
        under_way = [each.release for each in self.by_model.values()]
        return self._means.serving.needed(under_way)

    def failed(self, loaded: LoadedVersion, _error: EdgeRuntimeError) -> None:
        """Note that a request failed on a version on trial, before another one is asked."""
        machine = self.by_model.get(loaded.name)
        if machine is not None:
            machine.failed(loaded)

    # -- machines ------------------------------------------------------------------------------

    def machine(self, release: Release) -> Machine:
        """Make the machine of a release; ``run`` starts it."""
        model = release.model

        def is_held() -> bool:
            override = self.overrides.get(model)
            return override is not None and override.kind == "hold"

        return Machine(release, self._means, is_held)

    def run(self, machine: Machine) -> None:
        """Let a release go on until it is over."""
        model = machine.release.model
        self.by_model[model] = machine

        async def run() -> None:
            try:
                await self._to_its_end(machine)
            except Exception as error:  # noqa: BLE001 - the outermost frame; logged
                _log.exception("the release of %s stopped", model)
                machine.progress.problem = "it stopped; the daemon's log says why"
                self.problem = f"the release of {model} stopped: {error}"
            else:
                self.problem = ""
            if self.by_model.get(model) is machine:
                del self.by_model[model]
            await self.collect()

        task = asyncio.get_running_loop().create_task(run(), name=f"release of {model}")
        self._tasks[model] = task

        def ended(done: asyncio.Task[None]) -> None:
            if self._tasks.get(model) is done:
                del self._tasks[model]

        task.add_done_callback(ended)

    async def _to_its_end(self, machine: Machine) -> None:
        """Let a release go on; one that fails in a way nobody foresaw goes back."""
        try:
            await machine.run()
        except Exception:  # noqa: BLE001 - logged; whatever it was, the active version answers
            _log.exception("the release of %s failed and goes back", machine.release.model)
            self._means.serving.divert(machine.release.model)
            why = "the daemon failed in a way nobody foresaw; its log says why"
            machine.order(Outcome(Event.ROLL_BACK, Cause.INTERNAL, why))
            await machine.run()

    async def supersede(self, model: str) -> None:
        """End the release under way, if there is one; one that does not end is left behind."""
        machine, task = self.by_model.get(model), self._tasks.get(model)
        if machine is None or task is None:
            return
        why = "a newer release was ordered"
        if machine.release.state not in FINAL:  # what was committed just now, stays
            machine.order(Outcome(Event.ROLL_BACK, Cause.SUPERSEDED, why))
        await asyncio.wait((task,), timeout=STUCK_S)
        if not task.done():
            task.cancel()
            _log.error("the release of %s does not end; the next one goes on without it", model)
            if machine.release.state not in FINAL:
                await self._stored(partial(self._give_up, machine.release, why))
                self.later(self._means.serving.abandon(model, machine.release.version))
        self.by_model.pop(model, None)

    async def over(self, model: str) -> bool:
        """Tell whether no release of a model is under way; one that is over may still tidy up."""
        machine, task = self.by_model.get(model), self._tasks.get(model)
        if machine is None or task is None:
            return machine is None
        if machine.release.state in FINAL:
            await asyncio.wait((task,), timeout=STUCK_S)
        return model not in self.by_model

    async def settled(self, model: str, *, at_once: bool) -> Machine | None:
        """Give the release of a model that is under way, after one that is over has tidied up.

        Args:
            model: Of which model.
            at_once: Whether one that can still go back is not waited for.
        """
        machine = self.by_model.get(model)
        if machine is None or not (at_once and machine.allows(Event.ROLL_BACK)):
            await self.over(model)
        return self.by_model.get(model)

    def _give_up(self, release: Release, why: str) -> None:
        """Store that a release did not come to its end; on the journal's thread."""
        journal = self._means.journal
        # What it was about to store when it was given up may have been stored after all.
        release = journal.release(release.id) or release
        if release.state in FINAL:
            return
        rolling = msgspec.structs.replace(
            release,
            state=str(State.ROLLING_BACK),
            cause=str(Cause.INTERNAL),
            reason=f"{why}, and it did not end within {STUCK_S:g} s",
            updated_s=wall_time(),
        )
        failed = msgspec.structs.replace(rolling, state=str(State.FAILED))
        if release.state != State.ROLLING_BACK:
            journal.move(rolling, self.row(release, rolling, Event.ROLL_BACK))
        journal.move(failed, self.row(rolling, failed, Event.ERROR))

    @contextlib.asynccontextmanager
    async def arriving(self) -> AsyncIterator[None]:
        """Let a version come in: nothing is removed until a release keeps it."""
        async with self._collecting:
            self._arriving += 1
        try:
            yield
        finally:
            self._arriving -= 1

    async def collect(self) -> None:
        """Remove versions from the disk that nobody can come back to.

        While one comes in nothing is removed: what ends its release collects again.
        """
        async with self._collecting:
            # A journal that was lost says nothing of what is active: then everything stays.
            if not self._arriving and not self._means.journal.damage:
                await self._collect()

    async def _collect(self) -> None:
        means = self._means
        keep = {(each.release.model, each.release.version) for each in self.by_model.values()}
        keep |= means.serving.in_use()
        for slots in await means.keep(means.journal.all_slots):
            for version in (slots.active, slots.previous, *map(int, slots.traffic)):
                if version is not None:
                    keep.add((slots.model, version))
        spared = means.settings().keep_versions
        # Of what nobody uses, what was committed last is worth most, and what failed least.
        worth = {
            (each.model, each.version): each.id
            for each in reversed(await means.keep(means.journal.releases))
            if each.state == State.COMMITTED
        }

        def collect() -> None:
            for name in means.store.names():
                others = [each for each in means.store.versions(name) if (name, each) not in keep]
                others.sort(key=lambda version: worth.get((name, version), 0))
                keep.update((name, each) for each in others[max(0, len(others) - spared) :])
            means.store.collect(keep)

        try:
            # What takes longer goes on by itself: the store spares what comes in meanwhile.
            await aside(collect, within_s=COLLECT_S)
        except (EdgeRuntimeError, OSError) as error:
            _log.warning("old versions stay on the disk: %s", error)

    # -- the journal ---------------------------------------------------------------------------

    def row(
        self, before: Release | None, after: Release, event: str, numbers: Numbers | None = None
    ) -> Transition:
        """Make the row of the history for a change of a release, as things stand now."""
        return Transition.between(
            before,
            after,
            str(event),
            digest=self._means.serving.running_digest(after.model),
            wall_s=wall_time(),
            awake_s=self._means.clock.now_s(),
            boot_id=self._means.boot_id,
            numbers=numbers,
        )

    def note(
        self, model: str, event: str, reason: str, numbers: Numbers | None = None
    ) -> Transition:
        """Make the row of the history for something that concerns a model and no release."""
        return Transition(
            model=model,
            event=event,
            reason=reason,
            digest=self._means.serving.running_digest(model),
            numbers=numbers or {},
            wall_s=wall_time(),
            awake_s=self._means.clock.now_s(),
            boot_id=self._means.boot_id,
        )

    def later(self, work: Awaitable[object]) -> None:
        """Do something beside everything else; what fails there is logged."""

        async def run() -> None:
            try:
                await work
            except Exception:  # noqa: BLE001 - the outermost frame; logged
                _log.exception("something beside a release failed")

        task = asyncio.get_running_loop().create_task(run())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _stored(self, work: Callable[[], _Result]) -> _Result | None:
        """Store something; where that fails, releases stand still and everything else goes on."""
        try:
            result = await self._means.keep(work)
        except (StorageError, OSError, ValueError) as error:
            self.problem = str(error)
            _log.error("releases stand still: %s", error)
            return None
        self.problem = ""
        return result

    def _tick(self) -> None:
        """Store the awake time while releases are under way, so that deadlines survive."""
        self._ticker = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        if self._tasks:
            now_s = self._means.clock.now_s()
            self.later(self._stored(partial(self._means.journal.tick, now_s)))


def _named(release: Release) -> str:
    return f"{release.model} version {release.version}"
