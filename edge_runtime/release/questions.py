"""What releases tell people and programs, of what is stored and what is under way."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from edge_runtime.errors import ModelNotFoundError, StorageError
from edge_runtime.protocol import release_schemas as schemas
from edge_runtime.release import reports
from edge_runtime.release.admission import Admission
from edge_runtime.release.disk_thread import ANSWER_S, aside
from edge_runtime.release.explanation import explain
from edge_runtime.release.machines import Machines
from edge_runtime.release.steps import Means

if TYPE_CHECKING:
    from edge_runtime.release.records import Release


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
        """Say how every model does that releases know."""
        journal = self._means.journal
        known = {
            *self._means.serving.names(),
            *self._machines.by_model,
            *self._machines.overrides,
        }
        silence = ""
        try:
            known |= {each.model for each in await self._means.keep(journal.releases)}
        except StorageError as error:
            silence = error.message
        models = [await self._told(model, is_silent=bool(silence)) for model in sorted(known)]
        problems = [self._machines.problem, journal.problem, journal.damage, silence]
        return schemas.Releases(
            trust=await self._trust(),
            problem="; ".join(dict.fromkeys(filter(None, problems))),
            models=models,
        )

    async def _trust(self) -> schemas.Trust:
        try:
            return await aside(self._admission.trust, within_s=ANSWER_S)
        except StorageError as error:
            is_managed = self._means.settings().managed
            return schemas.Trust(managed=is_managed, keys=[error.message])

    async def status_of(self, model: str) -> schemas.ModelReleases:
        """Say how one model does."""
        return await self._told(model)

    async def _told(self, model: str, *, is_silent: bool = False) -> schemas.ModelReleases:
        """Say how one model does; with a silent disk what is known without it."""
        means = self._means
        ended: Sequence[Release] = ()
        installed: Sequence[int] = ()
        problem = ""
        try:
            if not is_silent:
                question = partial(means.journal.releases, model, limit=reports.ENDED_SHOWN + 1)
                ended = await means.keep(question)
                installed = await aside(partial(means.store.versions, model), within_s=ANSWER_S)
        except StorageError as error:
            problem = error.message
        machine = self._machines.by_model.get(model)
        progress = machine.progress if machine is not None else None
        if problem and progress is None:
            raise StorageError(problem)
        if progress is not None:
            progress = replace(progress, problem=progress.problem or problem)
        override = self._machines.overrides.get(model)
        if (
            not ended
            and machine is None
            and override is None
            and model not in means.serving.names()
        ):
            raise ModelNotFoundError(f"no release of a model {model!r} was ever ordered here")
        return reports.model(
            means.serving.slots(model),
            means.serving.running_digest(model),
            override,
            progress,
            ended,
            installed,
            means.clock.now_s(),
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
