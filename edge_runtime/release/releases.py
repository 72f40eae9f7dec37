"""Releases on this device: what people and the agent order, and what they are told.

Everything here is called on the event loop's thread. Bundles are copied on others, so that a disk
that hangs holds up nothing but the release it is for.
"""

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from functools import partial
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

import msgspec

from edge_runtime.errors import (
    ArtifactError,
    ConflictError,
    EdgeRuntimeError,
    InvalidRequestError,
    StorageError,
)
from edge_runtime.failpoints import wall_time
from edge_runtime.manifest import check_model_name
from edge_runtime.protocol import release_schemas as schemas
from edge_runtime.release import reports
from edge_runtime.release.admission import Admission
from edge_runtime.release.disk_thread import ANSWER_S, aside
from edge_runtime.release.fleet_orders import check_no_override, check_own, check_revertible
from edge_runtime.release.known_bad import known_bad, matching, refusal
from edge_runtime.release.machine import Machine
from edge_runtime.release.machines import STUCK_S, Machines
from edge_runtime.release.needed_versions import would_orphan
from edge_runtime.release.questions import Questions
from edge_runtime.release.records import STORE, Override, OverrideKind, Release
from edge_runtime.release.renewal import RENEWED, Newcomer
from edge_runtime.release.states import UNFINISHED, Cause, Event, State
from edge_runtime.release.steps import Means, Outcome
from edge_runtime.release.way_back import check_under_way, too_late, way_back
from edge_runtime.store.installed import Installed

_log = logging.getLogger(__name__)

PERCENT: Final = 100
MOVE_S: Final = 20.0
"""How long an order waits to see itself done, in seconds; it goes on all the same."""
OVERRIDES_MAX: Final = 1_000
"""Models that may be held; a rollback is always taken."""


class Releases(Questions):
    """The door to releases; see ``release_orders.Orders``, which says what each order does.

    Args:
        means: What the releases share.
        machines: Those under way.
        admission: Takes bundles into the store.
    """

    def __init__(self, means: Means, machines: Machines, admission: Admission) -> None:
        super().__init__(means, machines, admission)
        #: Gone with the last who waits: names that nobody has cost nothing.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    # -- orders --------------------------------------------------------------------------------

    async def stage(
        self,
        source: Path | int,
        *,
        mode: schemas.Mode = "automatic",
        again: bool = False,
        rollout: str = "",
        asked_by: str = "",
    ) -> schemas.Release:
        """Install a bundle and begin its release; see ``release_orders``."""
        async with self._machines.arriving():
            newcomer = Newcomer(self._means, self._machines, rollout)
            installed = await aside(partial(self._admission.install, source, refuse=newcomer.check))
            if newcomer.is_renewed:
                return await self._renewed(installed, asked_by)
            return await self._staged(installed, mode, asked_by, again=again)

    async def _staged(
        self, installed: Installed, mode: schemas.Mode, asked_by: str, *, again: bool
    ) -> schemas.Release:
        """Begin the release of a version that is in the store."""
        means, journal = self._means, self._means.journal
        name = installed.name
        async with self._lock(name):
            digests = set(means.digests(installed.manifest).values())
            remembered = await means.keep(partial(journal.all_bad, name))
            bad = known_bad(remembered, installed.manifest_sha256, digests)
            if bad is not None and not again:
                raise ArtifactError(refusal(installed, bad))
            slots = means.serving.slots(name)
            if (slots.active, slots.active_source) == (installed.version, STORE):
                raise InvalidRequestError(
                    f"version {installed.version} of {name!r} was committed meanwhile"
                )
            present = self._machines.by_model.get(name)
            if present is not None and present.release.manifest_sha256 == installed.manifest_sha256:
                return self._shown(present)
            order = await means.keep(journal.next_order)
            for each in matching(remembered, installed.manifest_sha256, digests) if again else ():
                await means.keep(partial(journal.forget_bad, each.manifest_sha256))
            now_s = wall_time()
            release = Release(
                model=name,
                version=installed.version,
                manifest_sha256=installed.manifest_sha256,
                state=str(State.INSTALLED),
                weights=means.settings().weights,
                mode=mode,
                source=asked_by,
                order=order,
                created_s=now_s,
                updated_s=now_s,
            )
            first = self._machines.row(None, release, "staged")
            taken = self._taken(means.keep.patiently(lambda: journal.insert(release, first)))
            running = asyncio.ensure_future(taken)
            done, _ = await asyncio.wait((running,), timeout=STUCK_S + ANSWER_S)
            if not done:  # it is stored when the disk wakes up, and then it must go on
                self._machines.later(running)
                raise StorageError(
                    "the disk does not answer; the order stands if it is stored all the same"
                )
            return self._shown(running.result())

    async def _taken(self, inserted: Awaitable[Release]) -> Machine:
        """Begin a release that is stored; only then is an older one given up."""
        release = await inserted
        _log.info("release of %s version %d: %s", release.model, release.version, release.source)
        await self._machines.supersede(release.model)
        machine = self._machines.machine(release)
        self._machines.run(machine)
        return machine

    async def promote(self, model: str, *, reason: str = "", asked_by: str = "") -> schemas.Release:
        """Take the release under way to its next decision; see ``release_orders``."""
        machine = self._under_way(model)
        why = reason or f"promoted by {asked_by or 'hand'}"
        before = machine.release.state
        ordered = machine.order(Outcome(Event.PROMOTE, None, why))
        if ordered is None:
            at = "being rolled back" if machine.is_going_back else before
            raise InvalidRequestError(
                f"the release of {model!r} is {at}; it can be promoted from staged to probation"
            )
        shown = await self._after(machine, before, ends=False)
        await asyncio.wait((ordered.is_done,), timeout=MOVE_S)
        if ordered.is_done.done() and not ordered.is_done.result():
            raise ConflictError(
                f"the release of {model!r} went on by itself meanwhile and is "
                f"{machine.release.state} now: nothing was promoted; look, and order it again if "
                "you still mean it"
            )
        return shown

    async def rollback(
        self,
        model: str,
        *,
        to: int | None = None,
        disable: bool = False,
        reason: str = "",
        asked_by: str = "",
    ) -> schemas.Release:
        """Go back; see ``release_orders``."""
        async with self._lock(model):
            why = reason or f"rolled back by {asked_by or 'hand'}"
            outcome = Outcome(Event.ROLL_BACK, Cause.OPERATOR, why)
            at_once = to is None and not disable
            machine = await self._machines.settled(model, at_once=at_once)
            if machine is None:
                machine = self._machines.machine(await self._committed(model))
                before = machine.release.state
                await self._choose(model, why, to, disable=disable)
                await self._override(model, "rollback", why, asked_by)
                machine.order(outcome)
                self._machines.run(machine)
            else:
                check_under_way(model, to, disable=disable)
                before = machine.release.state
                if machine.order(outcome) is None:
                    raise too_late(machine.release, is_going_back=machine.is_going_back)
                try:
                    await self._override(model, "rollback", why, asked_by)
                except StorageError as error:
                    raise StorageError(
                        f"the active version of {model!r} answers from now on, and the release "
                        f"goes back when the disk takes it; nothing is recorded yet: {error}"
                    ) from error
        return await self._after(machine, before)

    async def revert(
        self, model: str, *, to: int | None = None, reason: str = "", asked_by: str = ""
    ) -> schemas.Release:
        """Go back from the active version without an override; see ``release_orders``."""
        async with self._lock(model):
            check_no_override(model, self._machines.overrides.get(model))
            if not await self._machines.over(model):
                raise ConflictError(
                    f"a release of {model!r} is under way; abort it, or wait for its end"
                )
            release = await self._committed(model)
            ran = partial(self._means.journal.releases, model, limit=1)
            is_newest = (await self._means.keep(ran))[0].id == release.id
            check_revertible(self._means.serving.slots(model), to, is_newest=is_newest)
            machine = self._machines.machine(release)
            before = release.state
            why = "; ".join(filter(None, [reason, f"reverted by {asked_by or 'hand'}"]))
            machine.order(Outcome(Event.ROLL_BACK, Cause.REVERTED, why))
            self._machines.run(machine)
        return await self._after(machine, before)

    async def abort(
        self, model: str, *, rollout: str = "", reason: str = "", asked_by: str = ""
    ) -> schemas.Release:
        """End the release under way; see ``release_orders``."""
        machine = self._under_way(model)
        check_own(machine.release, rollout)
        why = reason or f"aborted by {asked_by or 'hand'}"
        before = machine.release.state
        if machine.order(Outcome(Event.ROLL_BACK, Cause.ABORTED, why)) is None:
            raise too_late(machine.release, is_going_back=machine.is_going_back)
        return await self._after(machine, before)

    async def hold(self, model: str, *, reason: str = "", asked_by: str = "") -> None:
        """Refuse the fleet's orders, and let nothing go on; see ``release_orders``."""
        try:
            check_model_name(model)
        except EdgeRuntimeError as error:
            raise InvalidRequestError(error.message) from error
        overrides = self._machines.overrides
        if model not in overrides and len(overrides) >= OVERRIDES_MAX:
            raise InvalidRequestError(
                f"{OVERRIDES_MAX} models are held or rolled back by hand already; `release clear` "
                "some first"
            )
        await self._override(model, "hold", reason or f"held by {asked_by or 'hand'}", asked_by)

    async def clear(self, model: str, *, reason: str = "", asked_by: str = "") -> None:
        """Remove the hold or the recorded rollback; see ``release_orders``."""
        await self._check_known(model)
        note = self._machines.note(model, "cleared", reason or f"cleared by {asked_by or 'hand'}")
        journal = self._means.journal
        await self._means.keep(lambda: journal.clear_override(model, note))
        self._machines.overrides.pop(model, None)
        if model in self._machines.by_model:
            self._machines.by_model[model].progress.changed.set()

    async def traffic(
        self, model: str, weights: Mapping[int, int], *, reason: str = "", asked_by: str = ""
    ) -> None:
        """Split a model's traffic for as long as nobody changes it; see ``release_orders``."""
        async with self._lock(model):
            if not await self._machines.over(model):
                raise InvalidRequestError(
                    f"a release of {model!r} is under way; abort it, or wait for its end"
                )
            if weights and (sum(weights.values()) != PERCENT or min(weights.values()) < 1):
                raise InvalidRequestError("the percentages must be 1 or more, and 100 together")
            before = self._means.serving.slots(model)
            await self._check_splittable(model, weights)
            slots = msgspec.structs.replace(
                before, traffic={str(version): share for version, share in weights.items()}
            )
            self._means.serving.take(slots)
            try:
                async with asyncio.timeout(MOVE_S):
                    await self._means.serving.settle(model)
                why = reason or f"set by {asked_by or 'hand'}"
                note = self._machines.note(model, "traffic", why, {"weights": slots.traffic})
                await self._means.keep(lambda: self._means.journal.set_slots(slots, note))
            except BaseException:
                self._means.serving.take(before)
                self._machines.later(self._means.serving.settle(model))
                raise

    async def accept_keyring(
        self, data: bytes, *, force: bool = False, asked_by: str = ""
    ) -> schemas.Trust:
        """Replace the keyring by a newer one; see ``release_orders``."""
        needed = self._machines.needed()
        accept = partial(self._admission.accept_keyring, data, needed, force=force)
        version, lost = await asyncio.to_thread(accept)
        _log.info("keyring version %d installed, ordered by %s", version, asked_by or "hand")
        if lost:
            _log.warning("%s", would_orphan(version, lost))
        trust = await asyncio.to_thread(self._admission.trust)
        return msgspec.structs.replace(trust, orphaned=[str(each) for each in lost])

    # -- inside --------------------------------------------------------------------------------

    def _lock(self, model: str) -> asyncio.Lock:
        return self._locks.setdefault(model, asyncio.Lock())

    def _shown(self, machine: Machine) -> schemas.Release:
        return reports.shown(machine.release, machine.progress, self._means.clock.now_s())

    def _under_way(self, model: str) -> Machine:
        machine = self._machines.by_model.get(model)
        if machine is None:
            raise InvalidRequestError(
                f"no release of {model!r} is under way; `release status` lists what was"
            )
        return machine

    async def _choose(self, model: str, why: str, to: int | None, *, disable: bool) -> None:
        """Settle where a rollback of the active version leads, or refuse it."""
        means = self._means
        ran = await means.keep(partial(means.journal.releases, model))
        installed = await aside(partial(means.store.versions, model), within_s=ANSWER_S)
        slots = way_back(
            means.serving.slots(model),
            ran,
            installed,
            self._machines.overrides.get(model),
            to=to,
            disable=disable,
        )
        if slots is None:
            return
        note = self._machines.note(model, "way-back", why, {"previous": slots.previous})
        await means.keep(partial(means.journal.set_slots, slots, note))
        means.serving.take(slots)

    async def _committed(self, model: str) -> Release:
        """Find the release that made the active version active."""
        slots = self._means.serving.slots(model)
        for release in await self._means.keep(partial(self._means.journal.releases, model)):
            if (
                release.state == State.COMMITTED
                and slots.active_source == STORE
                and release.version == slots.active
            ):
                return release
        raise InvalidRequestError(
            f"there is nothing of {model!r} to go back from: no release of it is active"
        )

    async def _after(self, machine: Machine, before: str, *, ends: bool = True) -> schemas.Release:
        """Wait until an order is done, or goes on by itself.

        Args:
            machine: Of the release.
            before: Its state when the order came.
            ends: Whether the order ends it: a step that was just being stored is not the end.
        """
        waits = {before, State.ROLLING_BACK, *(UNFINISHED if ends else ())}
        try:
            async with asyncio.timeout(MOVE_S):
                while machine.release.state in waits:
                    await machine.moved.wait()
                    machine.moved.clear()
        except TimeoutError:
            _log.warning("an order about %s is still being carried out", machine.release.model)
        return self._shown(machine)

    async def _override(self, model: str, kind: OverrideKind, reason: str, asked_by: str) -> None:
        override = Override(
            model=model, kind=kind, reason=reason, source=asked_by, created_s=wall_time()
        )
        note = self._machines.note(model, kind, reason)
        await self._means.keep(partial(self._means.journal.set_override, override, note))
        self._machines.overrides[model] = override

    async def _renewed(self, installed: Installed, asked_by: str) -> schemas.Release:
        """Answer an order that brought a newer signature, and nothing to release."""
        name, version = installed.name, installed.version
        why = f"of version {version}, by {asked_by or 'hand'}: it answers already"
        note = self._machines.note(name, "signature-renewed", why)
        journal = self._means.journal
        await self._means.keep(lambda: journal.set_slots(journal.slots(name), note))
        release = await self._committed(name)
        shown = reports.shown(release, None, self._means.clock.now_s())
        return msgspec.structs.replace(shown, note=RENEWED)

    async def _check_splittable(self, model: str, weights: Mapping[int, int]) -> None:
        """Make sure that every version of a split may answer."""
        slots = self._means.serving.slots(model)
        may = {slots.active, slots.previous} | self._means.serving.seeds(model)
        for release in await self._means.keep(partial(self._means.journal.releases, model)):
            if release.state == State.COMMITTED:
                may.add(release.version)
        for version in weights:
            if version not in may:
                raise InvalidRequestError(
                    f"version {version} of {model!r} was never committed here, and is not what "
                    "the configuration serves; release it first"
                )
            if version not in self._means.serving.configured(model):  # damaged: it is refused
                await aside(partial(self._means.store.bundle, model, version), within_s=ANSWER_S)

    async def _check_known(self, model: str) -> None:
        await self.status_of(model)
