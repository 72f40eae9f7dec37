"""To ask how every model does costs one look at the disk, however many models there are."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_runtime.catalog import Catalog
from edge_runtime.errors import StorageError
from edge_runtime.hardware import cpu_facts
from edge_runtime.protocol import release_schemas as schemas
from edge_runtime.release.admission import Admission
from edge_runtime.release.awake import AwakeClock
from edge_runtime.release.disk_thread import DiskThread
from edge_runtime.release.journal import Journal
from edge_runtime.release.journal_schema import DATABASE
from edge_runtime.release.machines import Machines
from edge_runtime.release.questions import Questions
from edge_runtime.release.records import BadDigest, Release
from edge_runtime.release.reports import BAD_SHOWN, ENDED_SHOWN
from edge_runtime.release.serving import Serving
from edge_runtime.release.steps import Means
from edge_runtime.settings import Release as Settings
from edge_runtime.store.store import Store
from tests.fakes import FakeLoader
from tests.release_records import NOW_S, release, transition
from tests.store_bundles import folder, install, published

MODELS = [f"m{number:02}" for number in range(10)]
RELEASES = ENDED_SHOWN + 3


class CountingStore(Store):
    """A store that counts how often it is looked through.

    Attributes:
        looks: So often.
        problem: What the disk says; ``None``: nothing is wrong.
    """

    looks = 0
    problem: StorageError | None = None

    def _installed(self) -> list[tuple[str, int]]:
        self.looks += 1
        if self.problem is not None:
            raise self.problem
        return super()._installed()


class CountingJournal(Journal):
    """A journal that counts how often its releases are listed."""

    looks = 0

    def releases(
        self, model: str = "", *, unfinished: bool = False, limit: int = 1000
    ) -> list[Release]:
        """List them."""
        self.looks += 1
        return super().releases(model, unfinished=unfinished, limit=limit)


def fill(journal: Journal) -> None:
    """Let each model have failed many releases, and one a lot of them."""
    for number in range(RELEASES):
        for model in MODELS:
            journal.insert(release(model, number + 1, state="failed"))
    for number in range(BAD_SHOWN + 5):
        begun = journal.insert(
            release("m00", number + 1, manifest_sha256=f"{number:064x}", state="self-testing")
        )
        failed = msgspec.structs.replace(
            begun, state="failed", digest="d" * 64, cause="self-test", order=number
        )
        bad = BadDigest.of(failed, NOW_S)
        journal.move(failed, transition(begun, failed, "failed"), bad=bad)


@pytest.fixture
def means(tmp_path: Path) -> Iterator[Means]:
    store = CountingStore(tmp_path / "store", reserve_bytes=0, bundle_bytes=10**6)
    install(store, folder(tmp_path / "in", published("m07", 3)))
    install(store, folder(tmp_path / "in", published("m07", 1)))
    store.looks = 0
    nothing: Any = None  # nobody may need it to answer
    with CountingJournal(tmp_path / DATABASE).open() as journal:
        fill(journal)
        yield Means(
            settings=Settings,
            thresholds=nothing,
            journal=journal,
            serving=nothing,
            store=store,
            clock=AwakeClock(0.0),
            boot_id="boot",
            make_trial=nothing,
            digests=nothing,
            taps={},
            keep=DiskThread("journal"),
        )


async def asked(means: Means) -> schemas.Releases:
    async def reload(name: str) -> None:
        raise AssertionError(name)

    means.serving = Serving(Catalog(FakeLoader()), means.store, reload)
    admission = Admission(means.store, means.settings, Path(), cpu_facts())
    assert isinstance(means.keep, DiskThread)
    try:
        return await Questions(means, Machines(means), admission).status()
    finally:
        means.keep.end()


def test_one_look_at_the_disk_tells_of_every_model(means: Means) -> None:
    found = asyncio.run(asked(means))
    assert isinstance(means.store, CountingStore)
    assert isinstance(means.journal, CountingJournal)
    assert (means.store.looks, means.journal.looks) == (1, 1)
    assert [each.model for each in found.models] == MODELS
    by_name = {each.model: each for each in found.models}
    assert by_name["m07"].installed == [1, 3]
    assert by_name["m08"].installed == []
    newest = [each.version for each in by_name["m08"].releases]
    assert newest == list(range(RELEASES, RELEASES - ENDED_SHOWN - 1, -1))


def test_what_is_remembered_as_bad_is_told_newest_first_and_bounded(means: Means) -> None:
    found = asyncio.run(asked(means))
    by_name = {each.model: each for each in found.models}
    bad = by_name["m00"].bad
    assert len(bad) == BAD_SHOWN
    assert [each.version for each in bad[:2]] == [BAD_SHOWN + 5, BAD_SHOWN + 4]
    assert (bad[0].digest, bad[0].cause) == ("d" * 64, "self-test")
    assert by_name["m01"].bad == []


def test_a_store_that_cannot_be_read_is_told_and_the_rest_as_well(means: Means) -> None:
    assert isinstance(means.store, CountingStore)
    means.store.problem = StorageError("the disk fails")
    found = asyncio.run(asked(means))
    assert found.problem == "the disk fails"
    assert [each.model for each in found.models] == MODELS
