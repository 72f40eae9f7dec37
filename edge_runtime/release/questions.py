"""What releases tell people and programs, of what is stored and what is under way."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from edge_runtime.errors import ModelNotFoundError, StorageError
from edge_runtime.protocol import release_schemas as schemas
from edge_runtime.protocol.handover_schemas import Needs
from edge_runtime.release import reports
from edge_runtime.release.admission import Admission
from edge_runtime.release.disk_thread import ANSWER_S, aside
from edge_runtime.release.explanation import explain
from edge_runtime.release.machines import Machines
from edge_runtime.release.steps import Means

if TYPE_CHECKING:
    from edge_runtime.release.records import BadDigest, Release


@dataclass(frozen=True, slots=True)
class _Stored:
    """What the disk knows of one model."""

    ended: "list[Release]" = field(default_factory=list)
    installed: list[int] = field(default_factory=list)
    bad: "list[BadDigest]" = field(default_factory=list)


class Questions:
    """The half of ``release_orders.Orders`` that changes nothing.

    Args:
        means: What the releases share.
        machines: Those under way.
        admission: Takes bundles into the store.
    """

    def __init__(self, means: Means, machines: Machines, admission: Admission) -> None:
        self._means = means
        self._machines = machines
        self._admission = admission

    async def status(self) -> schemas.Releases:
        """Say how every model does that releases know; the disk is looked at once for all."""
        journal = self._means.journal
        known = {
            *self._means.serving.names(),
            *self._machines.by_model,
            *self._machines.overrides,
        }
        stored, silence = await self._stored_of_all()
        known |= {model for model, each in stored.items() if each.ended}
        problems = [self._machines.problem, journal.problem, journal.damage, silence]
        return schemas.Releases(
            trust=await self._trust(),
            problem="; ".join(dict.fromkeys(filter(None, problems))),
            models=[self._told(model, stored.get(model, _Stored())) for model in sorted(known)],
        )

    async def needs(self, manifest: bytes, signature: bytes | None) -> Needs:
        """Say which files of a bundle would have to come; see ``release_orders``."""
        return await aside(partial(self._admission.needs, manifest, signature))

    async def content(self, sha256: str) -> int | None:
        """Open a content of the store; see ``release_orders``."""
        return await aside(partial(self._admission.content, sha256))

    async def _stored_of_all(self) -> "tuple[dict[str, _Stored], str]":
        """Read what the disk knows of each model, and why not all of it."""
        journal, store = self._means.journal, self._means.store
        stored: defaultdict[str, _Stored] = defaultdict(_Stored)
        try:
            read = await self._means.keep(lambda: (journal.releases(), journal.all_bad()))
            for release in read[0]:
                ended = stored[release.model].ended
                if len(ended) <= reports.ENDED_SHOWN:
                    ended.append(release)
            for bad in read[1]:
                stored[bad.model].bad.append(bad)
            for model, versions in (await aside(store.every, within_s=ANSWER_S)).items():
                stored[model].installed.extend(versions)
        except StorageError as error:
            return stored, error.message
        return stored, ""

    async def _trust(self) -> schemas.Trust:
        try:
            return await aside(self._admission.trust, within_s=ANSWER_S)
        except StorageError as error:
            is_managed = self._means.settings().managed
            return schemas.Trust(managed=is_managed, keys=[error.message])

    async def status_of(self, model: str) -> schemas.ModelReleases:
        """Say how one model does; with a silent disk what is known without it."""
        means = self._means
        machine = self._machines.by_model.get(model)
        try:
            stored = await self._stored_of(model)
        except StorageError as error:
            if machine is None:
                raise
            return self._told(model, _Stored(), problem=error.message)
        override = self._machines.overrides.get(model)
        if (
            not stored.ended
            and machine is None
            and override is None
            and model not in means.serving.names()
        ):
            raise ModelNotFoundError(f"no release of a model {model!r} was ever ordered here")
        return self._told(model, stored)

    async def _stored_of(self, model: str) -> "_Stored":
        journal, store = self._means.journal, self._means.store

        def read() -> _Stored:
            ended = journal.releases(model, limit=reports.ENDED_SHOWN + 1)
            return _Stored(ended, bad=journal.all_bad(model))

        stored = await self._means.keep(read)
        found = await aside(partial(store.versions, model), within_s=ANSWER_S)
        stored.installed.extend(found)
        return stored

    def _told(self, model: str, stored: "_Stored", problem: str = "") -> schemas.ModelReleases:
        machine = self._machines.by_model.get(model)
        progress = machine.progress if machine is not None else None
        if progress is not None:
            progress = replace(progress, problem=progress.problem or problem)
        return reports.model(
            self._means.serving.slots(model),
            self._means.serving.running_digest(model),
            self._machines.overrides.get(model),
            progress,
            stored.ended,
            stored.installed,
            stored.bad,
            self._means.clock.now_s(),
            self._means.serving.trouble(model),
        )

    async def history(
        self, model: str = "", *, limit: int, before: int = 0
    ) -> Sequence[schemas.Transition]:
        """Give what happened, newest first."""
        rows = await self._means.keep(partial(self._means.journal.history, model, limit, before))
        return [reports.transition(row) for row in rows]

    async def explain(self, model: str) -> Sequence[str]:
        """Say in sentences what answers for a model and why, and what comes next."""
        return explain(await self.status_of(model))
