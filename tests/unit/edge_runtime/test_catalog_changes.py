"""Requests that come while a change loads wait for it, and what is gone is forgotten."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from edge_runtime import swap
from edge_runtime.errors import (
    EdgeRuntimeError,
    ModelLoadError,
    ModelNotFoundError,
    ModelNotReadyError,
)
from edge_runtime.routing import LoadedVersion, Traffic
from edge_runtime.settings import Model
from tests.fakes import WAIT_S, Gate, bundle
from tests.residency_world import LAZY, World

pytestmark = pytest.mark.asyncio

START = Model()


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    async with asyncio.timeout(WAIT_S):
        await made.catalog.close()


async def begin(world: World, *versions: int, at_once: bool = False) -> tuple[Gate, asyncio.Task]:  # type: ignore[type-arg]
    """Begin to load versions, and hold the first load."""
    gate = world.loader.before = Gate()
    wanted = {version: bundle("m", version) for version in versions}
    task = asyncio.create_task(world.catalog.apply("m", wanted, START, at_once=at_once))
    assert await asyncio.to_thread(gate.arrived)
    return gate, task


async def unloaded(world: World) -> None:
    """Serve a model, and have an operator unload it."""
    await world.serve("m", 1, settings=START)
    await world.catalog.unload("m")
    assert world.state() == ("UNAVAILABLE", "unloaded")


# -- requests that come while a change loads -----------------------------------------------------


@pytest.mark.parametrize("is_first", [True, False])
async def test_requests_that_come_while_a_model_is_loaded_wait_for_it(
    world: World, *, is_first: bool
) -> None:
    if not is_first:
        await unloaded(world)
    gate, task = await begin(world, 1, at_once=not is_first)
    assert all([world.ask(), world.ask("m", "1"), world.ask("m", "latest")])
    assert world.answered == []
    gate.open()
    await task
    assert world.answered == [world.catalog.peek("m")] * 3
    assert len(world.loader.loaded) == (1 if is_first else 2), "they load nothing themselves"


async def test_the_requests_that_waited_get_the_error_of_the_load(world: World) -> None:
    await unloaded(world)
    world.loader.broken["first"] = ModelLoadError("it is broken")
    gate, task = await begin(world, 1, at_once=True)
    assert world.ask()
    gate.open()
    with pytest.raises(ModelLoadError):
        await task
    (error,) = world.answered
    assert isinstance(error, ModelNotReadyError)
    assert "it is broken" in error.message
    assert not world.ask(), "nothing loads it now"


async def test_a_load_that_failed_lately_does_not_keep_requests_from_waiting_for_the_next(
    world: World,
) -> None:
    await world.serve("m", 1)
    world.loader.broken["first"] = ModelLoadError("it is broken")
    assert isinstance(await world.asks(), ModelNotReadyError)
    del world.loader.broken["first"]
    gate, task = await begin(world, 1, at_once=True)
    assert world.ask()
    gate.open()
    await task
    assert world.answered[1:] == [world.catalog.peek("m")]


async def test_a_version_whose_turn_to_be_loaded_has_not_come_is_waited_for_too(
    world: World,
) -> None:
    gate, task = await begin(world, 1, 2)
    assert all([world.ask("m", "2"), world.ask("m", "1")])
    gate.open()
    await task
    versions = {each.version for each in world.answered if isinstance(each, LoadedVersion)}
    assert versions == {"1", "2"}


async def test_who_waits_for_a_version_is_answered_before_the_next_one_is_loaded(
    world: World,
) -> None:
    gate, task = await begin(world, 1, 2)
    assert world.ask("m", "1")
    following = world.loader.before = Gate()
    gate.open()
    assert await asyncio.to_thread(following.arrived)
    assert world.answered == [world.catalog.peek("m", "1")]
    assert world.catalog.peek("m").version == "1", "it answers by default meanwhile"
    following.open()
    await task


async def test_a_version_is_waited_for_by_its_alias_too(world: World) -> None:
    gate = world.loader.before = Gate()
    settings = Model(aliases={"good": 1})
    task = asyncio.create_task(world.catalog.apply("m", {1: bundle("m", 1)}, settings))
    assert await asyncio.to_thread(gate.arrived)
    assert world.ask("m", "good")
    gate.open()
    await task
    assert world.answered == [world.catalog.peek("m")]


async def test_a_model_that_is_being_loaded_is_not_ready_and_says_when_to_look_again(
    world: World,
) -> None:
    gate, task = await begin(world, 1)
    with pytest.raises(ModelNotReadyError, match="is loading") as refused:
        world.catalog.check_ready("m")
    assert refused.value.retry_after_s == 1
    gate.open()
    await task
    world.catalog.check_ready("m")


async def test_describing_a_model_while_it_is_loaded_for_the_first_time_waits(
    world: World,
) -> None:
    gate, task = await begin(world, 1)
    found: list[object] = []
    world.catalog.describe("m", "", found.append)
    assert not found
    gate.open()
    await task
    assert found == [world.catalog.peek("m")]


async def test_describing_what_left_again_before_its_turn_is_answered_with_the_reason(
    world: World,
) -> None:
    await world.serve("m", 1, 2)
    found: list[object] = []

    def send_requests_elsewhere(_: LoadedVersion | EdgeRuntimeError) -> None:
        world.catalog.direct("m", Traffic(1))

    world.catalog.describe("m", "", send_requests_elsewhere)
    world.catalog.describe("m", "", found.append)
    await world.settle()
    (error,) = found
    assert isinstance(error, ModelNotReadyError)


async def test_a_version_that_is_taken_back_answers_while_others_are_loaded_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "EMPTY_S", 0.01)
    world.loader.sizes = {"m": 40, "new": 60}
    world.budget(100)
    await world.serve("m", 1, 2, settings=START)
    leased = world.catalog.lease("m", "1")
    task = asyncio.create_task(world.serve("m", 1, digest="new", settings=START))
    gate = world.loader.before = Gate()
    while world.in_memory():  # noqa: ASYNC110 - the progress of another task
        await asyncio.sleep(0)
    assert world.ask()
    assert await asyncio.to_thread(gate.arrived)
    assert world.answered == [leased]
    world.catalog.release(world.catalog.lease("m", "1"))
    assert world.in_memory() == ["m/1"]
    gate.open()
    with pytest.raises(ModelNotReadyError, match="the old one answers on"):
        await task
    world.catalog.release(leased)


async def test_counters_go_on_after_an_operator_unloaded_a_model_that_comes_when_asked(
    world: World,
) -> None:
    await world.serve("m", 1)
    await world.asks()
    world.catalog.peek("m").statistics.rows = 7
    await world.catalog.unload("m")
    await world.serve("m", 1)
    assert [each.statistics.rows for each in world.catalog.counted()] == [7]
    await world.asks()
    assert world.catalog.peek("m").statistics.rows == 7
    await world.catalog.unload("m")
    await world.serve("m", 1, digest="other")
    assert world.catalog.counted() == [], "of other files"
    await world.asks()
    assert world.catalog.peek("m").statistics.rows == 0


# -- what is not at its source any more ----------------------------------------------------------


def known(world: World) -> list[str]:
    return [number for _, number, _ in world.catalog.index()]


async def test_a_version_that_is_gone_is_forgotten_and_one_that_is_there_is_not(
    world: World,
) -> None:
    told: list[tuple[str, str]] = []
    world.catalog.gone = lambda name, version: told.append((name, version))
    await world.serve("m", 1, settings=START)
    world.catalog.note_there("m", {1, 2})
    await world.serve("m", 2, settings=START)
    assert known(world) == ["1", "2"], "it is there, and could be served"
    world.catalog.note_there("m", {2})
    assert known(world) == ["2"]
    assert told == [("m", "1")]
    assert [each.version for each in world.catalog.counted()] == ["2"]
    with pytest.raises(ModelNotFoundError, match="no version '1'"):
        world.catalog.peek("m", "1")


async def test_a_version_that_is_gone_is_known_until_its_last_request_was_answered(
    world: World,
) -> None:
    await world.serve("m", 1, settings=START)
    leased = world.catalog.lease("m")
    world.catalog.note_there("m", {2})
    task = asyncio.create_task(world.catalog.apply("m", {2: bundle("m", 2)}, START))
    await world.settle()
    assert known(world) == ["1", "2"]
    assert world.state()[0] == "UNLOADING"
    world.catalog.note_there("m", {2})
    assert known(world) == ["1", "2"]
    world.catalog.release(leased)
    await task
    assert known(world) == ["2"]


async def test_a_version_that_is_gone_and_answers_all_the_same_is_kept(world: World) -> None:
    await world.serve("m", 1, settings=START)
    world.catalog.note_there("m", {2})
    world.loader.broken["second"] = ModelLoadError("it is broken")
    with pytest.raises(ModelLoadError):
        await world.catalog.apply("m", {2: bundle("m", 2, "second")}, START)
    assert known(world) == ["1", "2"]
    assert world.catalog.peek("m").version == "1"


async def test_a_broken_version_that_was_removed_is_forgotten_with_its_model(
    world: World,
) -> None:
    world.catalog.note_there("m", {1})
    world.catalog.note_problem("m", 1, ModelLoadError("it is broken"))
    assert world.state() == ("UNAVAILABLE", "it is broken")
    world.catalog.note_there("m", ())
    assert known(world) == []
    assert world.catalog.known() == []
    with pytest.raises(ModelNotFoundError, match="no model 'm'"):
        world.catalog.peek("m")


async def test_what_an_operator_unloads_is_known_as_long_as_it_is_there(world: World) -> None:
    world.catalog.note_there("m", {1})
    await unloaded(world)
    world.catalog.note_there("m", {1})
    assert world.state() == ("UNAVAILABLE", "unloaded")
    world.catalog.note_there("m", ())
    assert known(world) == []


async def test_a_version_that_sleeps_and_is_gone_is_forgotten(world: World) -> None:
    await world.serve("m", 1, 2)
    world.catalog.note_there("m", {2})
    assert known(world) == ["1", "2"], "until it is decided that it shall not answer"
    await world.serve("m", 2)
    assert known(world) == ["2"]


async def test_nothing_is_kept_of_names_that_are_gone(world: World) -> None:
    catalog = world.catalog
    for number in range(5):
        name = f"m{number}"
        catalog.note_there(name, {1})
        await world.serve(name, 1, settings=LAZY if number % 2 else START)
        catalog.note_there(name, ())
        await catalog.apply(name, {})
    assert catalog.known() == []
    assert not catalog._there
    assert not catalog._models
    assert not catalog._registry._aliases


async def test_one_change_of_a_model_at_a_time_though_nothing_is_kept_of_its_name(
    world: World,
) -> None:
    gate, first = await begin(world, 1)
    others = [
        asyncio.create_task(world.catalog.apply("m", wanted, START))
        for wanted in ({}, {2: bundle("m", 2)})
    ]
    world.catalog.note_there("m", ())
    await asyncio.sleep(0)
    assert world.in_memory() == []
    gate.open()
    await asyncio.gather(first, *others)
    assert [each.version for each in world.loader.loaded] == ["1", "2"]
    assert world.in_memory() == ["m/2"]
