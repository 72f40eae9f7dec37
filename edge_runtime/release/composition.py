"""Builds what releases need, when the device has had one or the first one is ordered.

A device on which nothing was ever released pays nothing for it: no file, no thread, no import.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from edge_runtime import failpoints
from edge_runtime.catalog import Catalog
from edge_runtime.errors import StorageError
from edge_runtime.inference import Inference
from edge_runtime.locations import JOURNAL_NAME
from edge_runtime.release.admission import Admission
from edge_runtime.release.awake import AwakeClock, boot_id
from edge_runtime.release.disk_thread import ANSWER_S, DiskThread, aside
from edge_runtime.release.journal import Journal
from edge_runtime.release.journal_reader import JournalReader
from edge_runtime.release.machine import RETRY_MAX_S
from edge_runtime.release.machines import Machines
from edge_runtime.release.policy import Thresholds, thresholds
from edge_runtime.release.records import Previous, Release, Slots
from edge_runtime.release.releases import Releases
from edge_runtime.release.serving import Serving
from edge_runtime.release.steps import MakeTrial, Means
from edge_runtime.settings import Config, Model
from edge_runtime.store.store import Store

_log = logging.getLogger(__name__)

STORE_FOLDER: Final = "store"
"""Installed versions, in the state directory."""
STOP_S: Final = 5.0
"""For the journal's last words, in seconds."""
CLEAN_S: Final = 60.0
"""For cleaning the store up at the start, in seconds; then it goes on beside everything else."""


class _Known(NamedTuple):
    previous: Previous
    slots: list[Slots]
    releases: list[Release]


def _read(journal: JournalReader, previous: Previous | None) -> _Known:
    releases = journal.releases()
    return _Known(previous or journal.previous(), journal.all_slots(), releases)


def _read_apart(path: Path) -> _Known:
    with Journal.read(path) as journal:
        return _read(journal, None)


class Composition:
    """Everything that releases need.

    Args:
        state: The state directory.
        settings: The configuration; asked anew each time.
        catalog: The models in memory.
        inference: Where real requests come by.
        reload: Reads what is to answer for a model, and makes the catalog match.
        make_trial: Prepares to try a candidate out.

    Attributes:
        serving: What releases want to answer; the catalog's ``desired.Holdings``.
        admission: Takes bundles into the store.
        orders: Takes orders.
    """

    def __init__(  # noqa: PLR0917 - a composition root
        self,
        state: Path,
        settings: Callable[[], Config],
        catalog: Catalog,
        inference: Inference,
        reload: Callable[[str], Awaitable[None]],
        make_trial: MakeTrial,
    ) -> None:
        self._settings = settings
        self._journal_path = state / JOURNAL_NAME
        self._journal = Journal(self._journal_path)
        self._keep = DiskThread("journal")
        release = settings().release
        store = Store(
            state / STORE_FOLDER,
            reserve_bytes=release.reserve_bytes,
            bundle_bytes=release.bundle_bytes,
        )
        self._store = store
        self._inference = inference
        self._previous = Previous()
        self.serving = Serving(catalog, store, reload)
        self.admission = Admission(store, lambda: settings().release, state)
        self._means = Means(
            settings=lambda: settings().release,
            thresholds=self._thresholds,
            journal=self._journal,
            serving=self.serving,
            store=store,
            clock=AwakeClock(0.0),
            boot_id=failpoints.boot_id() or boot_id(),
            make_trial=make_trial,
            taps=inference.taps,
            keep=self._keep,
        )
        self._machines = Machines(self._means)
        self.orders = Releases(self._means, self._machines, self.admission)

    async def open(self) -> None:
        """Read the journal, and say what is active; before the models are loaded.

        Raises:
            StorageError: The journal can neither be written nor read.
        """
        means = self._means
        try:
            await self._cleaned()
            await self._keep(self._journal.open)
            known = await self._known()
        except BaseException:
            self._keep.end()
            raise
        means.clock = AwakeClock(known.previous.awake_s)
        self._previous = known.previous
        for slots in known.slots:
            self.serving.take(slots)
        for release in reversed(known.releases):
            self.serving.choose(release)
        self._inference.fallback.noted = self._machines.failed

    async def _cleaned(self) -> None:
        try:
            await aside(self._store.recover, within_s=CLEAN_S)
        except StorageError as error:
            _log.error("the store was not cleaned up: %s", error.message)

    async def _known(self) -> _Known:
        """Note that a daemon runs now, and read what the last ones did."""
        journal = self._journal
        try:
            previous = await self._keep(partial(journal.mark_started, self._means.boot_id))
            return await self._keep(partial(_read, journal, previous))
        except StorageError as error:
            _log.error("no release can go on: %s", error.message)
            self._machines.problem = error.message
        try:
            return await self._keep(partial(_read, journal, None))
        except StorageError:  # its thread waits for a disk that does not write: it may be read
            return await aside(partial(_read_apart, self._journal_path), within_s=ANSWER_S)

    async def begin(self) -> None:
        """Go on with the releases under way; the active versions are in place."""
        for name in list(self.serving.names()):
            await self.serving.stand(name)
        if self._machines.problem:
            self._machines.later(self._begin_late())
        else:
            await self._machines.begin(self._previous)

    async def _begin_late(self) -> None:
        """Go on when the disk takes something again: who dies must be known to have died."""
        while self._machines.problem:
            await asyncio.sleep(RETRY_MAX_S)
            try:
                await self._keep(partial(self._journal.mark_started, self._means.boot_id))
            except StorageError:
                continue
            self._machines.problem = ""
        await self._machines.begin(self._previous)

    async def end(self) -> None:
        """Stop in order: releases go on at the next start."""
        await self._machines.end()
        try:
            await asyncio.wait_for(self._closed(), STOP_S)
        except (StorageError, OSError, TimeoutError) as error:
            _log.error("the journal was not closed in order: %s", error)
        self._keep.end()

    async def _closed(self) -> None:
        await self._keep(partial(self._journal.mark_clean, self._means.clock.now_s()))
        await self._keep(self._journal.close)

    def _thresholds(self, release: Release) -> Thresholds:
        config = self._settings()
        manifest = self._store.bundle(release.model, release.version).manifest
        overrides = config.models.get(release.model, Model()).release
        return thresholds(manifest.acceptance.comparison, overrides, config.release)
