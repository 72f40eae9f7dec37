"""Brings memory in line with the policy, the clock and the requests that wait: step by step.

One task, which exists while there is something to do, and at most one timer, which is set for the
moment when time alone changes the decision. A daemon whose models never go idle has neither.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from operator import is_
from typing import Final

from edge_runtime.bundle import Bundle
from edge_runtime.errors import EdgeRuntimeError, ModelNotReadyError, NoRoomError, UnavailableError
from edge_runtime.fairness import User
from edge_runtime.registry_entry import Entry
from edge_runtime.residency import Action, Key, next_action
from edge_runtime.residents import Asked, Residents, refusal
from edge_runtime.routing import LoadedVersion
from edge_runtime.waiting import Waiter, Waiting

_log = logging.getLogger(__name__)

#: The model's name and the versions to pass over, to the bundles that may answer instead.
Spare = Callable[[str, Collection[int]], Awaitable[Mapping[int, Bundle]]]
_LEAST_DELAY_S: Final = 0.01  # a timer that comes too early must not spin


class Reconciler:
    """Does what ``residency.next_action`` says, until it says that there is nothing to do.

    Args:
        residents: What is in memory.
        waiting: The requests that wait.
        spare: Gives the bundles that may answer for a model instead of those that cannot be
            loaded.

    Attributes:
        changing: Held by whoever changes what is in memory, from the decision to its end.
    """

    def __init__(self, residents: Residents, waiting: Waiting, spare: Spare | None) -> None:
        self._residents = residents
        self._registry = residents.registry
        self._waiting = waiting
        self._spare = spare
        self._task: asyncio.Task[None] | None = None
        self._is_due = False
        self._timer: asyncio.TimerHandle | None = None
        self.changing = asyncio.Lock()
        residents.freed = self._freed
        residents.arrived = self._answer_there

    def look(self) -> None:
        """Begin to look what is to be done, or look again if that goes on."""
        self._is_due = True
        if self._task is None and not self._residents.is_closing:
            self._task = asyncio.get_running_loop().create_task(self._work(), name="residency")

    def settle(self) -> None:
        """Answer the requests whose version is there, and those for which none can come."""
        self._answer_there()
        now_s = self._residents.now_s
        for waiter in list(self._waiting):
            entry = self._registry.resolve(waiter.name, waiter.version)
            if entry is None or not entry.may_load(now_s):
                error = self._registry.missing(waiter.name, waiter.version, now_s)
                self._waiting.answer(partial(is_, waiter), error)

    def _answer_there(self) -> None:
        """Answer the requests whose version is there."""

        def is_there(waiter: Waiter) -> bool:
            entry = self._registry.resolve(waiter.name, waiter.version)
            return entry is not None and entry.loaded is not None

        self._waiting.answer(is_there, None)

    async def spare(self, name: str, without: Collection[int]) -> dict[int, Bundle]:
        """Find what may answer for a model instead of the versions that cannot be loaded.

        Args:
            name: The model.
            without: Versions that were tried.
        """
        if self._spare is None:
            return {}
        found = await self._spare(name, without)
        return {version: bundle for version, bundle in found.items() if version not in without}

    async def close(self) -> None:
        """Let nobody wait any more, and wait for the change that goes on."""
        if self._timer is not None:
            self._timer.cancel()
        stopping = UnavailableError("the daemon is stopping")
        self._waiting.answer(lambda _: True, stopping)
        if self._task is not None:
            await self._task
        async with self.changing:
            self._waiting.answer(lambda _: True, stopping)

    async def _work(self) -> None:
        action = Action("wait")
        try:
            while self._is_due:
                self._is_due = False
                async with self.changing:
                    action = await self._step()
                self._is_due |= action.kind != "wait"
        except Exception:  # noqa: BLE001 - the outermost frame of a task; it is logged
            _log.exception("the care for memory failed in a way nobody foresaw")
            error = ModelNotReadyError("the daemon failed to load the model; its log says why")
            self._waiting.answer(lambda _: True, error)
        finally:
            self._task = None
        self._look_later(action)

    async def _step(self) -> Action:
        """Decide on one action and do it."""
        self._waiting.drop_cancelled()
        self.settle()
        await self._find_needs()
        asked = self._asked()
        action = next_action(self._residents.snapshot(asked))
        entry = self._registry.find(action.key)
        if entry is None:
            if action.is_blocked:
                self._watch_leases()
        elif action.kind == "load":
            await self._load(entry, asked[entry.key].users)
        elif action.kind == "refuse":
            self._refuse(entry, refusal(entry, action))
        else:
            await self._residents.evict(entry, action.reason, is_idle=action.kind == "unload")
        return action

    async def _find_needs(self) -> None:
        """Find out what the versions that are waited for need, where nobody knows yet."""
        if not self._residents.budget_bytes:
            return
        for name, number in self._asked():
            entry = self._registry.entry(name, number)
            if entry.loaded is None and entry.need_bytes is None and entry.bundle is not None:
                try:
                    await self._residents.need(entry, entry.bundle)
                except EdgeRuntimeError:
                    await self._fall_back(entry)
        self.settle()

    def _asked(self) -> dict[Key, Asked]:
        """Group the requests that wait by the version that they wait for."""
        asked: dict[Key, Asked] = {}
        for waiter in self._waiting:
            entry = self._registry.resolve(waiter.name, waiter.version)
            if entry is not None and not entry.is_changing:
                first = asked.get(entry.key, Asked(0, waiter.since_s))
                users = first.users | {waiter.user}
                asked[entry.key] = Asked(first.requests + 1, first.since_s, users)
        return asked

    async def _load(self, entry: Entry, users: Collection[User]) -> None:
        """Load a version that requests of some users wait for; else look for another one."""
        bundle = entry.bundle
        assert bundle is not None  # noqa: S101 - whatever may be loaded has one
        try:
            loaded = await self._residents.load(entry, bundle, users)
            await self._residents.check_size(entry, loaded)
        except NoRoomError as error:
            self._refuse(entry, error)
        except EdgeRuntimeError:
            await self._fall_back(entry)
        else:
            self._residents.arrive(entry, loaded, bundle)
        self.settle()

    async def _fall_back(self, failed: Entry) -> None:
        """Where a model is left without a version that answers, put a spare one in its place."""
        versions = self._registry.of(failed.name)
        if any(entry.answers for entry in versions):
            return
        tried = {entry.version for entry in versions if entry.failures}
        for version, bundle in (await self.spare(failed.name, tried)).items():
            entry = self._registry.entry(failed.name, version)
            entry.settings, entry.bundle = failed.settings, bundle
            entry.sleep()

    def _refuse(self, entry: Entry, error: NoRoomError) -> None:
        """Answer the requests that wait for a version for which there is no room."""
        _log.warning("%s", error.message)
        if error.retry_after_s is None:
            entry.refuse(error)
        else:
            entry.sleep("there was no room for it")
        resolve = self._registry.resolve
        self._waiting.answer(lambda each: resolve(each.name, each.version) is entry, error)

    def _watch_leases(self) -> None:
        """Look again when a version that is in use now is not any more."""
        for entry in self._registry:
            loaded = entry.loaded
            if loaded is not None and loaded.leases and loaded.when_free is None:
                loaded.when_free = self._became_free

    def _became_free(self, loaded: LoadedVersion) -> None:
        loaded.when_free = None
        self.look()

    def _freed(self) -> None:
        if len(self._waiting):
            self.look()

    def _look_later(self, action: Action) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if action.look_again_s is not None and not self._residents.is_closing:
            delay_s = max(action.look_again_s - self._residents.now_s, _LEAST_DELAY_S)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self.look)
