"""Models that come when asked and leave when idle, and the other names of versions."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from edge_runtime.errors import (
    ManifestError,
    ModelLoadError,
    ModelNotFoundError,
    ModelNotReadyError,
    OverloadedError,
    UnavailableError,
)
from edge_runtime.routing import LoadedVersion
from edge_runtime.settings import Model
from tests.fakes import WAIT_S, Gate, bundle
from tests.residency_world import LAZY, WAITING_MAX, S, World

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    async with asyncio.timeout(WAIT_S):
        await made.catalog.close()


# -- loaded when asked ---------------------------------------------------------------------------


async def test_a_lazy_model_is_loaded_by_its_first_request_and_answers_it(world: World) -> None:
    await world.serve("m", 1)
    assert world.in_memory() == []
    assert world.state() == ("READY", "not in memory; loads when asked")
    answer = await world.asks()
    assert isinstance(answer, LoadedVersion)
    assert world.in_memory() == ["m/1"]
    assert world.state() == ("READY", "")


async def test_a_lazy_model_is_ready_without_being_loaded_for_the_question(world: World) -> None:
    await world.serve("m", 1)
    world.catalog.check_ready("m")
    world.catalog.check_ready("m", "1")
    await world.settle()
    assert world.in_memory() == []
    with pytest.raises(ModelNotFoundError, match="no version '2'"):
        world.catalog.check_ready("m", "2")
    with pytest.raises(ModelNotFoundError, match="no model 'x'"):
        world.catalog.check_ready("x")


async def test_requests_that_come_during_a_load_share_it_and_are_answered_in_order(
    world: World,
) -> None:
    await world.serve("m", 1)
    gate = world.loader.before = Gate()
    assert world.ask()
    assert await asyncio.to_thread(gate.arrived)
    assert all([world.ask(), world.ask("m", "1"), world.ask("m", "latest")])
    assert world.state() == ("LOADING", "")
    world.catalog.check_ready("m")
    gate.open()
    await world.settle()
    assert len(world.answered) == 4
    assert len(world.loader.loaded) == 1


async def test_describing_a_model_that_was_never_loaded_loads_it_once(world: World) -> None:
    await world.serve("m", 1)
    found: list[object] = []
    world.catalog.describe("m", "", found.append)
    await world.settle()
    world.catalog.describe("m", "", found.append)
    assert found == [world.catalog.peek("m")] * 2
    await world.catalog.unload("m")
    with pytest.raises(ModelNotReadyError, match="unloaded"):
        world.catalog.describe("m", "", found.append)


async def test_what_is_known_of_a_model_outlives_its_stay_in_memory(world: World) -> None:
    await world.serve("m", 1, settings=Model(load="request", idle_unload_s=5.0))
    assert world.catalog.last_known("m") is None
    await world.asks()
    loaded = world.catalog.peek("m")
    await world.pass_time(6)
    assert world.in_memory() == []
    for version in ("", "1", "latest"):
        assert world.catalog.last_known("m", version) is loaded
    found: list[object] = []
    world.catalog.describe("m", "", found.append)
    assert found == [loaded]
    assert world.in_memory() == []
    await world.catalog.unload("m")
    assert world.catalog.last_known("m") is loaded
    assert world.catalog.last_known("m", "7") is None
    assert world.catalog.last_known("x") is None


async def test_too_many_requests_that_wait_are_refused_and_told_when_to_come_back(
    world: World,
) -> None:
    await world.serve("m", 1)
    gate = world.loader.before = Gate()
    for _ in range(WAITING_MAX):
        assert world.ask()
    with pytest.raises(OverloadedError) as caught:
        world.ask()
    assert caught.value.retry_after_s == 1
    gate.open()
    await world.settle()
    assert len(world.answered) == WAITING_MAX


async def test_requests_whose_client_left_make_nothing_load_and_take_no_place(
    world: World,
) -> None:
    await world.serve("m", 1)
    for _ in range(WAITING_MAX):
        assert world.ask(is_gone=True)
    assert world.ask("m", "1", is_gone=True)  # there is a place: the others are gone
    await world.settle()
    assert len(world.answered) == WAITING_MAX + 1
    assert all(isinstance(each, UnavailableError) for each in world.answered)
    assert world.in_memory() == []


async def test_a_failed_load_answers_every_request_and_is_not_tried_again_at_once(
    world: World,
) -> None:
    world.loader.broken["first"] = ManifestError("bad manifest")
    await world.serve("m", 1)
    assert world.ask()
    assert world.ask()
    await world.settle()
    assert len(world.answered) == 2
    for error in world.answered:
        assert isinstance(error, ModelNotReadyError)
        assert "bad manifest" in error.message
        assert error.retry_after_s == 10
    assert not world.ask()
    assert world.state() == ("UNAVAILABLE", "bad manifest")
    with pytest.raises(ModelNotReadyError):
        world.catalog.check_ready("m")
    del world.loader.broken["first"]
    world.clock.ns += 11 * S
    assert isinstance(await world.asks(), LoadedVersion)
    assert world.state() == ("READY", "")


async def test_an_older_version_takes_the_place_of_one_that_cannot_be_loaded_when_asked(
    world: World,
) -> None:
    world.loader.broken["new"] = ManifestError("bad manifest")
    world.spares = {1: bundle("m", 1)}
    await world.serve("m", 2, digest="new")
    answer = await world.asks()
    assert isinstance(answer, LoadedVersion)
    assert answer.version == "1"
    assert world.state(version="2") == ("UNAVAILABLE", "bad manifest")


@pytest.mark.parametrize("version", ["", "2"])
async def test_what_is_in_memory_answers_by_default_once_a_newer_version_cannot_be_loaded(
    world: World, version: str
) -> None:
    world.loader.broken["new"] = ModelLoadError("no good")
    await world.catalog.apply("m", {1: bundle("m", 1), 2: bundle("m", 2, "new")}, LAZY)
    older = await world.asks("m", "1")
    await world.asks("m", version)
    assert world.state(version="2") == ("UNAVAILABLE", "no good")
    for _ in range(2):
        assert await world.asks() is older


@pytest.mark.parametrize("at_once", [True, False])
async def test_an_older_version_takes_the_place_of_a_broken_one_whenever_nothing_answers(
    world: World, *, at_once: bool
) -> None:
    await world.serve("m", 1, settings=Model())
    await world.catalog.unload("m")
    world.loader.broken["new"] = ManifestError("bad manifest")
    world.spares = {1: bundle("m", 1)}
    with pytest.raises(ManifestError):
        await world.serve("m", 2, digest="new", settings=Model(), at_once=at_once)
    assert world.in_memory() == ["m/1"]


async def test_an_operators_load_brings_a_lazy_model_into_memory(world: World) -> None:
    await world.serve("m", 1, at_once=True)
    assert world.in_memory() == ["m/1"]


async def test_an_operators_unload_holds_until_the_next_load(world: World) -> None:
    await world.serve("m", 1)
    await world.asks()
    await world.catalog.unload("m")
    assert not world.ask()
    assert world.state() == ("UNAVAILABLE", "unloaded")
    await world.serve("m", 1, at_once=True)
    assert isinstance(await world.asks(), LoadedVersion)


async def test_an_unload_answers_the_requests_that_wait(world: World) -> None:
    await world.serve("m", 1)
    await world.serve("other", 1)
    gate = world.loader.before = Gate()
    world.ask("other")
    world.ask("m")
    task = asyncio.create_task(world.catalog.unload("m"))
    gate.open()
    await task
    await world.settle()
    assert len(world.answered) == 2


async def test_new_files_of_a_model_that_is_not_in_memory_are_taken_when_asked(
    world: World,
) -> None:
    await world.serve("m", 1)
    await world.serve("m", 2, digest="new")
    assert world.in_memory() == []
    answer = await world.asks()
    assert isinstance(answer, LoadedVersion)
    assert (answer.version, answer.digest) == ("2", "new")
    assert world.state() == ("UNAVAILABLE", "unloaded")


async def test_new_files_of_a_lazy_model_in_memory_take_over_without_a_gap(world: World) -> None:
    await world.serve("m", 1)
    await world.asks()
    await world.serve("m", 2, digest="new")
    assert world.in_memory() == ["m/2"]
    await world.serve("m", 3, digest="newer")
    assert world.in_memory() == ["m/3"]


async def test_the_end_of_the_daemon_answers_the_requests_that_wait() -> None:
    world = World()
    await world.serve("m", 1)
    gate = world.loader.before = Gate()
    world.ask()
    assert await asyncio.to_thread(gate.arrived)
    closing = asyncio.create_task(world.catalog.close())
    await asyncio.sleep(0)
    assert not world.ask(), "nobody begins to wait any more"
    gate.open()
    assert await closing
    (error,) = world.answered
    assert isinstance(error, UnavailableError)
    assert all(world.loader.session_of(each).closed.is_set() for each in world.loader.loaded)


async def test_a_model_that_shall_load_at_the_start_from_now_on_is_loaded(world: World) -> None:
    await world.serve("m", 1)
    await world.serve("m", 1, settings=Model(idle_unload_s=5.0))
    assert world.in_memory() == ["m/1"]
    await world.pass_time(6)
    await world.serve("m", 1, settings=Model(idle_unload_s=5.0))
    assert world.in_memory() == [], "reading the files again wakes nobody"
    await world.serve("m", 1, settings=Model(load="always"))
    assert world.in_memory() == ["m/1"]


# -- idle ----------------------------------------------------------------------------------------


async def test_an_idle_model_leaves_memory_and_comes_back_when_asked(world: World) -> None:
    await world.serve("m", 1, settings=Model(idle_unload_s=60.0))
    assert world.in_memory() == ["m/1"]
    await world.pass_time(59)
    assert world.in_memory() == ["m/1"]
    await world.pass_time(1)
    assert world.in_memory() == []
    assert world.state() == ("READY", "not in memory; loads when asked (not asked for 60 s)")
    assert world.loader.session_of(world.loader.loaded[0]).closed.is_set()
    assert isinstance(await world.asks(), LoadedVersion)


async def test_a_model_that_is_asked_in_time_stays(world: World) -> None:
    await world.serve("m", 1, settings=Model(idle_unload_s=60.0))
    for _ in range(5):
        await world.pass_time(50)
        await world.asks()
    assert world.in_memory() == ["m/1"]


async def test_a_model_in_use_is_not_idle(world: World) -> None:
    await world.serve("m", 1, settings=Model(idle_unload_s=60.0))
    leased = world.catalog.lease("m")
    await world.pass_time(1000)
    assert world.in_memory() == ["m/1"]
    world.catalog.release(leased)
    await world.pass_time(59)
    assert world.in_memory() == ["m/1"]
    await world.pass_time(1)
    assert world.in_memory() == []


async def test_counters_go_on_after_a_model_was_away(world: World) -> None:
    await world.serve("m", 1, settings=Model(idle_unload_s=5.0))
    world.catalog.peek("m").statistics.rows = 7
    await world.pass_time(6)
    assert [each.statistics.rows for each in world.catalog.counted()] == [7]
    await world.asks()
    assert world.catalog.peek("m").statistics.rows == 7
    await world.serve("m", 1, digest="other", at_once=True)
    assert world.catalog.peek("m").statistics.rows == 0


async def test_no_timer_runs_while_nothing_can_become_idle(world: World) -> None:
    await world.serve("m", 1, settings=Model())
    assert not world.has_timer()
    await world.serve("n", 1, settings=Model(idle_unload_s=5.0))
    assert world.has_timer()
    await world.pass_time(6)
    assert not world.has_timer()


# -- other names ---------------------------------------------------------------------------------


async def test_aliases_lead_to_versions_and_answers_carry_the_number(world: World) -> None:
    aliases = {"good": 2, "old": 1}
    await world.serve("m", 1, 2, 3, settings=Model(aliases=aliases))
    for alias, version in {"good": "2", "old": "1", "latest": "3", "stable": "3"}.items():
        assert world.catalog.peek("m", alias).version == version
    await world.serve("m", 1, 2, 3, settings=Model(aliases={"stable": 1}))
    assert world.catalog.peek("m", "stable").version == "1"
    assert world.catalog.peek("m", "latest").version == "3"


async def test_an_alias_of_a_missing_version_is_told_in_the_index_and_to_callers(
    world: World,
) -> None:
    await world.serve("m", 1, 2, settings=Model(aliases={"good": 7}))
    assert world.state(version="2") == (
        "READY",
        "alias 'good' leads to version 7, which is not served",
    )
    with pytest.raises(
        ModelNotFoundError,
        match=r"no version 7, to which the alias 'good' leads \(models\.m\.aliases\); served: 1, 2",
    ):
        world.catalog.lease("m", "good")
    with pytest.raises(
        ModelNotFoundError, match="no version 'bad'; it has 1, 2, also as good, latest, stable"
    ):
        world.catalog.lease("m", "bad")


async def test_an_alias_of_a_broken_version_is_not_ready(world: World) -> None:
    world.loader.broken["bad"] = ModelLoadError("no model")
    wanted = {1: bundle("m", 1), 2: bundle("m", 2, "bad")}
    with pytest.raises(ModelLoadError):
        await world.catalog.apply("m", wanted, Model(aliases={"good": 2}))
    with pytest.raises(ModelNotReadyError, match=r"version good \(2\) is unavailable \(no model\)"):
        world.catalog.lease("m", "good")
    assert world.catalog.peek("m", "latest").version == "1"


async def test_an_alias_of_a_lazy_version_loads_that_version(world: World) -> None:
    settings = Model(load="request", aliases={"good": 1})
    await world.serve("m", 1, 2, settings=settings)
    answer = await world.asks("m", "good")
    assert isinstance(answer, LoadedVersion)
    assert answer.version == "1"
    assert world.in_memory() == ["m/1"]
    with pytest.raises(ModelNotReadyError):
        world.catalog.lease("m")
