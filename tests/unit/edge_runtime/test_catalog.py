"""The loaded models: leases, swaps that drop nothing, and what the index says."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from edge_runtime.catalog import Catalog
from edge_runtime.errors import (
    ArtifactError,
    ManifestError,
    ModelLoadError,
    ModelNotFoundError,
    ModelNotReadyError,
)
from edge_runtime.routing import LoadedVersion
from tests.fakes import WAIT_S, FakeLoader, Gate, bundle

pytestmark = pytest.mark.asyncio


@pytest.fixture
def loader() -> FakeLoader:
    return FakeLoader()


@pytest_asyncio.fixture
async def catalog(loader: FakeLoader) -> AsyncIterator[Catalog]:
    made = Catalog(loader)
    yield made
    async with asyncio.timeout(WAIT_S):
        await made.close()


async def serve(catalog: Catalog, *versions: int, digest: str = "first") -> None:
    await catalog.apply("m", {version: bundle("m", version, digest) for version in versions})


def states(catalog: Catalog, name: str = "m") -> dict[str, str]:
    return {version: state.state for model, version, state in catalog.index() if model == name}


def reason(catalog: Catalog, wanted: str = "1") -> str:
    return next(state.reason for _, version, state in catalog.index() if version == wanted)


def is_closed(loader: FakeLoader, version: LoadedVersion) -> bool:
    return loader.session_of(version).closed.is_set()


async def settle(catalog: Catalog) -> None:
    """Let the loop and the loader thread do all they can do now."""
    for _ in range(4):
        await catalog.off_loop(lambda: None)
        await asyncio.sleep(0)


# -- who answers --------------------------------------------------------------------------------


async def test_highest_version_answers_unless_another_is_named(catalog: Catalog) -> None:
    await serve(catalog, 9, 10, 2)
    assert catalog.lease("m").version == "10"
    assert catalog.lease("m", "2").version == "2"
    assert [each.version for each in catalog.loaded()] == ["2", "9", "10"]
    for version in catalog.loaded():
        version.leases = 0


async def test_models_do_not_know_of_each_other(catalog: Catalog) -> None:
    await serve(catalog, 1)
    await catalog.apply("other", {7: bundle("other", 7)})
    await catalog.unload("other")
    assert catalog.peek("m").version == "1"
    assert states(catalog) == {"1": "READY"}
    assert states(catalog, "other") == {"7": "UNAVAILABLE"}


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("nobody", "", "there is no model 'nobody'; POST /v2/repository/index"),
        ("m", "3", "model 'm' has no version '3'; it has 1, 2"),
        ("m", "01", "model 'm' has no version '01'"),
    ],
)
async def test_unknown_model_or_version_is_not_found(
    catalog: Catalog, name: str, version: str, message: str
) -> None:
    await serve(catalog, 1, 2)
    for ask in (catalog.lease, catalog.peek):
        with pytest.raises(ModelNotFoundError, match=message):
            ask(name, version)
    assert all(each.leases == 0 for each in catalog.loaded())


async def test_known_version_that_is_not_loaded_is_not_ready(catalog: Catalog) -> None:
    await serve(catalog, 1)
    await catalog.unload("m")
    for version in ("", "1"):
        with pytest.raises(ModelNotReadyError, match=r"is unavailable \(unloaded\)"):
            catalog.lease("m", version)


async def test_unloading_what_nobody_knows_is_not_found(catalog: Catalog) -> None:
    with pytest.raises(ModelNotFoundError, match="there is no model 'm'"):
        await catalog.unload("m")


# -- loading ------------------------------------------------------------------------------------


async def test_loading_is_off_the_path_of_requests(catalog: Catalog, loader: FakeLoader) -> None:
    await serve(catalog, 1)
    gate = loader.before = Gate()
    task = asyncio.create_task(serve(catalog, 2))
    await asyncio.sleep(0)
    assert await asyncio.to_thread(gate.arrived)  # the loader thread is busy; the loop is not
    assert states(catalog) == {"1": "READY", "2": "LOADING"}
    leased = catalog.lease("m")
    assert leased.version == "1"
    catalog.release(leased)
    with pytest.raises(ModelNotReadyError, match="version 2 is loading"):
        catalog.lease("m", "2")
    gate.open()
    await task
    assert catalog.peek("m").version == "2"


async def test_loads_happen_on_one_thread_that_is_not_the_loops(
    catalog: Catalog, loader: FakeLoader
) -> None:
    threads: set[threading.Thread] = set()
    loader.before = lambda: threads.add(threading.current_thread())
    await asyncio.gather(serve(catalog, 1, 2), catalog.apply("o", {1: bundle("o", 1)}))
    assert len(threads) == 1
    assert threading.current_thread() not in threads


async def test_files_that_did_not_change_are_not_swapped(
    catalog: Catalog, loader: FakeLoader
) -> None:
    await serve(catalog, 1)
    before = catalog.peek("m")
    await serve(catalog, 1)
    assert catalog.peek("m") is before
    assert len(loader.loaded) == 1
    assert not is_closed(loader, before)


async def test_failed_load_is_told_and_kept_in_the_index(
    catalog: Catalog, loader: FakeLoader
) -> None:
    loader.broken["first"] = ManifestError("bad manifest")
    with pytest.raises(ManifestError, match="bad manifest"):
        await serve(catalog, 1)
    assert states(catalog) == {"1": "UNAVAILABLE"}
    assert reason(catalog) == "bad manifest"
    with pytest.raises(ModelNotReadyError, match=r"unavailable \(bad manifest\)"):
        catalog.lease("m")


async def test_failed_load_of_new_files_keeps_the_old_ones(
    catalog: Catalog, loader: FakeLoader
) -> None:
    await serve(catalog, 1)
    before = catalog.peek("m")
    loader.broken["second"] = ManifestError("bad manifest")
    with pytest.raises(ManifestError):
        await serve(catalog, 1, digest="second")
    assert catalog.peek("m") is before
    assert not is_closed(loader, before)
    assert states(catalog) == {"1": "READY"}
    assert reason(catalog) == "still the earlier files; the new ones failed: bad manifest"


@pytest.mark.parametrize("digest", ["first", "third"])
async def test_reason_of_a_failure_goes_with_the_next_good_load(
    catalog: Catalog, loader: FakeLoader, digest: str
) -> None:
    await serve(catalog, 1)
    loader.broken["second"] = ManifestError("bad manifest")
    with pytest.raises(ManifestError):
        await serve(catalog, 1, digest="second")
    await serve(catalog, 1, digest=digest)
    assert reason(catalog) == ""


async def test_failed_load_beside_a_good_one_keeps_the_old_files_of_its_own_version(
    catalog: Catalog, loader: FakeLoader
) -> None:
    await serve(catalog, 1)
    before = catalog.peek("m")
    loader.broken["second"] = ManifestError("bad manifest")
    with pytest.raises(ManifestError):
        await catalog.apply("m", {1: bundle("m", 1, "second"), 2: bundle("m", 2)})
    assert catalog.peek("m", "1") is before
    assert catalog.peek("m").version == "2"
    assert states(catalog) == {"1": "READY", "2": "READY"}


async def test_failed_load_of_a_newer_version_keeps_the_older_one(
    catalog: Catalog, loader: FakeLoader
) -> None:
    await serve(catalog, 1)
    loader.broken["second"] = ArtifactError("broken")
    with pytest.raises(ArtifactError):
        await serve(catalog, 2, digest="second")
    assert catalog.peek("m").version == "1"
    assert states(catalog) == {"1": "READY", "2": "UNAVAILABLE"}


async def test_failure_that_nobody_foresaw_is_a_failed_load_and_nothing_more(
    catalog: Catalog, loader: FakeLoader
) -> None:
    loader.broken["first"] = MemoryError()
    with pytest.raises(ModelLoadError, match="the daemon failed to load these files"):
        await serve(catalog, 1)
    assert states(catalog) == {"1": "UNAVAILABLE"}
    await serve(catalog, 1, digest="second")
    assert states(catalog) == {"1": "READY"}


# -- swaps, leases, unloading -------------------------------------------------------------------


async def test_swap_leaves_no_moment_without_an_answer(
    catalog: Catalog, loader: FakeLoader
) -> None:
    await serve(catalog, 1)
    gate = loader.before = Gate()
    task = asyncio.create_task(serve(catalog, 1, digest="second"))
    gate.open()
    answers = set()
    while not task.done():
        leased = catalog.lease("m")
        assert not is_closed(loader, leased)
        answers.add(leased.digest)
        await asyncio.sleep(0)
        assert not is_closed(loader, leased)
        catalog.release(leased)
    await task
    assert catalog.peek("m").digest == "second"
    assert "first" in answers


async def test_version_lives_until_its_last_lease_ends(
    catalog: Catalog, loader: FakeLoader
) -> None:
    await serve(catalog, 1)
    old = catalog.lease("m")
    assert catalog.lease("m") is old
    task = asyncio.create_task(catalog.unload("m"))
    await settle(catalog)
    assert states(catalog) == {"1": "UNLOADING"}
    with pytest.raises(ModelNotReadyError, match="is unloading"):
        catalog.lease("m")
    catalog.release(old)
    await settle(catalog)
    assert not is_closed(loader, old)
    assert not task.done()
    catalog.release(old)
    async with asyncio.timeout(WAIT_S):
        await task
    assert is_closed(loader, old)
    assert states(catalog) == {"1": "UNAVAILABLE"}
    assert reason(catalog) == "unloaded"


async def test_long_request_on_one_version_does_not_hold_the_memory_of_another(
    catalog: Catalog, loader: FakeLoader
) -> None:
    await serve(catalog, 1, 2)
    first, second = catalog.lease("m", "1"), catalog.peek("m", "2")
    task = asyncio.create_task(catalog.unload("m"))
    await settle(catalog)
    assert is_closed(loader, second)
    assert not is_closed(loader, first)
    assert set(states(catalog).values()) <= {"UNLOADING", "UNAVAILABLE"}
    catalog.release(first)
    await task


async def test_long_request_does_not_hold_up_other_loads(catalog: Catalog) -> None:
    await serve(catalog, 1)
    held = catalog.lease("m")
    task = asyncio.create_task(serve(catalog, 1, digest="second"))
    async with asyncio.timeout(WAIT_S):
        await catalog.apply("other", {1: bundle("other", 1)})
        await serve(catalog, 1, digest="third")
    assert catalog.peek("m").digest == "third"
    assert not task.done()
    catalog.release(held)
    await task


@pytest.mark.parametrize("works", [True, False])
async def test_version_that_came_back_is_not_called_unloaded(
    catalog: Catalog, loader: FakeLoader, *, works: bool
) -> None:
    await serve(catalog, 1)
    held = catalog.lease("m")
    unloading = asyncio.create_task(catalog.unload("m"))
    await settle(catalog)
    if works:
        await serve(catalog, 1)
    else:
        loader.broken["first"] = ManifestError("bad manifest")
        with pytest.raises(ManifestError):
            await serve(catalog, 1)
    catalog.release(held)
    await unloading
    assert states(catalog) == {"1": "READY" if works else "UNAVAILABLE"}
    assert reason(catalog) == ("" if works else "bad manifest")
    assert is_closed(loader, held)


async def test_dropped_version_is_unloaded_and_kept_one_stays(
    catalog: Catalog, loader: FakeLoader
) -> None:
    await serve(catalog, 1, 2)
    one, two = catalog.peek("m", "1"), catalog.peek("m", "2")
    await serve(catalog, 2, 3)
    assert is_closed(loader, one)
    assert catalog.peek("m", "2") is two
    assert states(catalog) == {"1": "UNAVAILABLE", "2": "READY", "3": "READY"}


async def test_problem_of_a_version_that_could_not_be_tried_is_in_the_index(
    catalog: Catalog,
) -> None:
    missing = ArtifactError("there is no file /srv/models/m.onnx; put one there")
    catalog.note_problem("m", 1, missing)
    assert states(catalog) == {"1": "UNAVAILABLE"}
    await serve(catalog, 1)
    for version in (1, None):
        catalog.note_problem("m", version, missing)
        ((_, number, state),) = catalog.index()
        assert (number, state.state) == ("1", "READY")
        assert state.reason.endswith("the new ones failed: there is no file m.onnx; put one there")


async def test_problem_of_a_whole_model_invents_no_version(catalog: Catalog) -> None:
    catalog.note_problem("m", None, ArtifactError("no version folder"))
    assert [(name, number) for name, number, _ in catalog.index()] == [("m", "")]
    for version in ("", "7"):
        with pytest.raises(ModelNotReadyError, match="no version folder"):
            catalog.lease("m", version)
    await serve(catalog, 2)
    assert states(catalog) == {"2": "READY"}


async def test_an_unknown_model_may_yet_come_while_the_daemon_starts(catalog: Catalog) -> None:
    catalog.is_settled = False
    with pytest.raises(ModelNotReadyError, match="starting") as caught:
        catalog.lease("m")
    assert caught.value.retry_after_s == 1
    catalog.is_settled = True
    with pytest.raises(ModelNotFoundError):
        catalog.lease("m")


async def test_close_frees_everything(loader: FakeLoader) -> None:
    catalog = Catalog(loader)
    await serve(catalog, 1, 2)
    await catalog.apply("other", {1: bundle("other", 1)})
    await catalog.close()
    assert all(is_closed(loader, version) for version in loader.loaded)
    assert catalog.loaded() == []
