"""Releases in one process: a real journal, store and catalog, and sessions that are fakes."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from edge_runtime.bundle import Bundle
from edge_runtime.catalog import Catalog
from edge_runtime.hardware import cpu_facts
from edge_runtime.release.admission import Admission
from edge_runtime.release.awake import AwakeClock
from edge_runtime.release.disk_thread import DiskThread
from edge_runtime.release.journal import Journal
from edge_runtime.release.machines import Machines
from edge_runtime.release.policy import Thresholds
from edge_runtime.release.records import Release
from edge_runtime.release.releases import Releases
from edge_runtime.release.serving import Serving
from edge_runtime.release.steps import Means
from edge_runtime.release.trial import Trial
from edge_runtime.routing import LoadedVersion, route
from edge_runtime.settings import Release as Settings
from edge_runtime.store.store import Store
from tests import release_device
from tests.fakes import WAIT_S, FakeLoader, bundle
from tests.release_records import release
from tests.store_bundles import install

MODEL = release_device.MODEL
POLL_S: Final = 0.01


class Asking(NamedTuple):
    """Who asks: what a split goes by."""

    split_key: str


class NoTrial:
    """A trial of which nothing is asked but its end."""

    async def close(self) -> None:
        """End it."""


class World:
    """A device whose configuration serves version 1 of a model; made on the loop's thread.

    Args:
        folder: For its files.
        settings: Changes of ``[release]``.

    Attributes:
        loader: Loads the fakes.
        catalog: The models in memory.
        journal: The journal, which is open.
        keep: Its thread.
        serving: What answers.
        machines: The releases under way.
        releases: What takes orders.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:  # noqa: ANN401 - of ``Settings``
        self.folder = folder
        self.loader = FakeLoader()
        self.catalog = Catalog(self.loader)
        self.journal = Journal(folder / "runtime.db").open()
        self._store = Store(folder / "store", reserve_bytes=0, bundle_bytes=2**20)
        self.serving = Serving(self.catalog, self._store, self.reload)
        self.keep = DiskThread("journal")
        wanted = Settings(block_s=0.01, **settings)
        self._means = Means(
            settings=lambda: wanted,
            thresholds=lambda _: Thresholds(),
            journal=self.journal,
            serving=self.serving,
            store=self._store,
            clock=AwakeClock(0.0),
            boot_id="boot",
            make_trial=self._make_trial,
            digests=lambda _: {},
            taps={},
            keep=self.keep,
        )
        self.machines = Machines(self._means)
        admission = Admission(self._store, lambda: wanted, folder, cpu_facts())
        self.releases = Releases(self._means, self.machines, admission)

    @staticmethod
    def _make_trial(_candidate: Bundle, _active: LoadedVersion | None, _variant: str = "") -> Trial:
        return cast("Trial", NoTrial())

    async def reload(self, name: str) -> None:
        """Make the catalog match."""
        await self.catalog.apply(name, self.serving.amend(name, {1: bundle(name, 1, "seed")}))

    def installed(self, version: int, **more: Any) -> Release:  # noqa: ANN401 - of ``Release``
        """Install a version, and store a release of it; its step has time and does not run yet."""
        path = release_device.bundle(self.folder / f"bundle-{version}", version)
        found = install(self._store, path)
        begun = release(
            MODEL, version, manifest_sha256=found.manifest_sha256, awake_deadline_s=1e9, **more
        )
        return self.journal.insert(begun)

    def loaded(self) -> set[str]:
        """List the versions in memory."""
        return {each.version for each in self.catalog.loaded()}

    def answering(self) -> set[str]:
        """List the versions that get requests which name none."""
        table = self.catalog.table
        asked = (route(table, MODEL, "", Asking(str(number))) for number in range(200))
        return {each.version for each in asked if each is not None}

    async def close(self) -> None:
        """End everything."""
        await self.machines.end()
        await self.catalog.close()
        self.keep.end()
        self.journal.close()


async def becomes(condition: Callable[[], bool], what: str) -> None:
    """Wait for something while the loop goes on."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - whatever it is, it has no event
            await asyncio.sleep(POLL_S)
    assert condition(), what
