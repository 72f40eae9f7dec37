"""Builds what releases need, when the device has had one or the first one is ordered.

A device on which nothing was ever released pays nothing for it: no file, no thread, no import.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple

import msgspec

from edge_runtime import failpoints
from edge_runtime.bundle import Bundle
from edge_runtime.catalog import Catalog
from edge_runtime.errors import StorageError
from edge_runtime.hardware import cpu_facts
from edge_runtime.inference import Inference
from edge_runtime.locations import JOURNAL_NAME
from edge_runtime.manifest import Manifest
from edge_runtime.release.admission import Admission
from edge_runtime.release.awake import AwakeClock, boot_id
from edge_runtime.release.crash_loop import end_crash_loop
from edge_runtime.release.disk_thread import ANSWER_S, DiskThread, aside
from edge_runtime.release.journal import Journal
from edge_runtime.release.journal_reader import JournalReader
from edge_runtime.release.machine import RETRY_MAX_S
from edge_runtime.release.machines import Machines
from edge_runtime.release.policy import Thresholds, thresholds
from edge_runtime.release.records import Previous, Release, Slots
from edge_runtime.release.recovery import Crash, awake_at_death, crash_of
from edge_runtime.release.releases import Releases
from edge_runtime.release.run_record import RUN, Run, RunRecord
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
        digests: Names what a bundle's variants would compute with here, by variant.

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
        digests: Callable[[Manifest], Mapping[str, str]],
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
        self._run_record = RunRecord(state / RUN)
        self._crash: Crash | None = None
        self.serving = Serving(catalog, store, reload)
        self.admission = Admission(store, lambda: settings().release, state, cpu_facts())
        self._means = Means(
            settings=lambda: settings().release,
            thresholds=self._thresholds,
            journal=self._journal,
            serving=self.serving,
            store=store,
            clock=AwakeClock(0.0),
            boot_id=failpoints.boot_id() or boot_id(),
            make_trial=make_trial,
            digests=digests,
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
            await self._trusted()
            await self._keep(self._journal.open)
            known = await self._known()
        except BaseException:
            self._keep.end()
            raise
        means.clock = AwakeClock(known.previous.awake_s)
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

    async def _trusted(self) -> None:
        """Take a newer keyring that a package brought, before anything is loaded."""
        try:
            await aside(self.admission.follow_keyring, within_s=ANSWER_S)
        except StorageError as error:
            _log.error("the keyring of release.keyring was not looked at: %s", error.message)

    async def _known(self) -> _Known:
        """Note that a daemon runs now, and read what the last ones did."""
        journal, boot = self._journal, self._means.boot_id
        run, now_s = await self._last_run()
        previous = None
        try:
            previous = await self._keep(partial(journal.mark_started, boot))
            self._crash = crash_of(previous, run, boot, now_s)
            awake_s = awake_at_death(previous, run, self._crash)
            if awake_s > previous.awake_s:
                previous = msgspec.structs.replace(previous, awake_s=awake_s)
                await self._keep(partial(journal.tick, awake_s))
            await self._keep(partial(self._run_record.awake, awake_s))
            await self._end_crash_loop(awake_s)
            return await self._keep(partial(_read, journal, previous))
        except StorageError as error:
            _log.error("no release can go on: %s", error.message)
            self._machines.problem = error.message
        try:
            known = await self._keep(partial(_read, journal, previous))
        except StorageError:  # its thread waits for a disk that does not write: it may be read
            known = await aside(partial(_read_apart, self._journal_path), within_s=ANSWER_S)
        self._crash = crash_of(previous or known.previous, run, boot, now_s)
        return known

    async def _last_run(self) -> tuple[Run | None, float]:
        """Read what the last daemon has told, and when that was read, on the monotonic clock."""
        now_s = monotonic()
        begin = partial(self._run_record.begin, self._means.boot_id, now_s)
        try:
            return await aside(begin, within_s=ANSWER_S), now_s
        except StorageError as error:
            _log.error("what the last daemon had in memory is not known: %s", error.message)
            return None, now_s

    async def _end_crash_loop(self, awake_s: float) -> None:
        crash = self._crash
        if crash is None:
            return
        count = partial(
            end_crash_loop,
            self._journal,
            self._store,
            self._settings().release,
            crash,
            awake_s=awake_s,
            boot_id=self._means.boot_id,
        )
        try:
            if await self._keep(count):
                self._crash = None  # it is owed to no release under way
        except (StorageError, ValueError) as error:
            _log.error("the death of the last daemon is not counted: %s", error)

    def admit(self, bundle: Bundle) -> None:
        """Make sure that a bundle may be loaded, and note that it will be; on the loader thread.

        Raises:
            SignatureError: The device is managed, and it is not signed.
        """
        self.admission.admit(bundle)
        self._run_record.loading(bundle.manifest.name, bundle.manifest.version)

    async def begin(self) -> None:
        """Go on with the releases under way; the active versions are in place."""
        for name in list(self.serving.names()):
            await self.serving.stand(name)
        if self._machines.problem:
            self._machines.later(self._begin_late())
        else:
            await self._machines.begin(self._crash)
        await self._warned()

    async def _warned(self) -> None:
        """Say once which versions the keyring does not let in, where a package brought it."""
        warn = partial(self.admission.warn_of_orphans, self._machines.needed())
        try:
            await aside(warn, within_s=ANSWER_S)
        except StorageError as error:
            _log.error("the signatures of what is installed were not looked at: %s", error.message)

    async def _begin_late(self) -> None:
        """Go on when the disk takes something again: who dies must be known to have died."""
        while self._machines.problem:
            await asyncio.sleep(RETRY_MAX_S)
            try:
                await self._keep(partial(self._journal.mark_started, self._means.boot_id))
            except StorageError:
                continue
            self._machines.problem = ""
        await self._machines.begin(self._crash)

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
        self._run_record.end()

    def _thresholds(self, release: Release) -> Thresholds:
        config = self._settings()
        manifest = self._store.bundle(release.model, release.version).manifest
        overrides = config.models.get(release.model, Model()).release
        return thresholds(manifest.acceptance.comparison, overrides, config.release)
