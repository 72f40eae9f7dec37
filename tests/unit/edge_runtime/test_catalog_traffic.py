"""Directed traffic and the memory behind it: what gets requests stays, and disabled is disabled."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from edge_runtime.errors import ModelLoadError, ModelNotReadyError, NoRoomError
from edge_runtime.routing import Traffic
from edge_runtime.settings import Model
from tests.residency_world import LAZY, World

pytestmark = pytest.mark.asyncio

SLEEPY = Model(idle_unload_s=60.0)


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.catalog.close()


async def test_versions_of_a_split_do_not_leave_for_being_idle(world: World) -> None:
    await world.serve("m", 1, 2, settings=SLEEPY)
    world.catalog.direct("m", Traffic(1, {2: 500}))
    await world.pass_time(1000)
    assert world.in_memory() == ["m/1", "m/2"]
    world.catalog.direct("m", None)
    await world.settle()
    assert world.in_memory() == []


async def test_versions_of_a_split_do_not_leave_for_others(world: World) -> None:
    world.loader.sizes = {"m": 10, "n": 10}
    world.budget(20)
    await world.serve("m", 1, 2, settings=Model())
    world.catalog.direct("m", Traffic(1, {2: 500}))
    await world.serve("n", 1, settings=LAZY)
    assert isinstance(await world.asks("n"), ModelNotReadyError)
    assert world.in_memory() == ["m/1", "m/2"]


async def test_the_version_that_others_fall_back_on_stays_too(world: World) -> None:
    await world.serve("m", 1, 2, settings=SLEEPY)
    world.catalog.direct("m", Traffic(2, fallback=1))
    await world.pass_time(1000)
    assert world.in_memory() == ["m/1", "m/2"]


async def test_only_the_default_stays_where_traffic_is_directed_and_not_split(
    world: World,
) -> None:
    await world.serve("m", 1, 2, settings=SLEEPY)
    world.catalog.direct("m", Traffic(1))
    await world.pass_time(61)
    assert world.in_memory() == ["m/1"]


async def test_a_candidate_never_pushes_the_version_out_that_it_is_to_stand_beside(
    world: World,
) -> None:
    world.loader.sizes = {"m": 10}
    world.budget(15)
    await world.serve("m", 1, settings=Model())
    world.catalog.direct("m", Traffic(1))
    with pytest.raises(NoRoomError):
        await world.serve("m", 1, 2, settings=Model(), at_once=True)
    assert world.in_memory() == ["m/1"]
    world.catalog.direct("m", None)
    await world.serve("m", 2, settings=Model(), at_once=True)
    assert world.in_memory() == ["m/2"], "stop, then start"


async def test_a_split_brings_its_versions_into_memory(world: World) -> None:
    await world.serve("m", 1, 2, settings=LAZY)
    assert world.in_memory() == []
    world.catalog.direct("m", Traffic(1, {2: 500}))
    await world.settle()
    assert world.in_memory() == ["m/1", "m/2"]


async def test_a_version_of_a_split_that_cannot_be_loaded_leaves_the_default_answering(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.serve("m", 1, 2, settings=LAZY)
    await world.asks("m", "1")
    world.loader.broken["first"] = ModelLoadError("broken")
    world.catalog.direct("m", Traffic(1, {2: 10_000}))
    await world.settle()
    assert world.in_memory() == ["m/1"]
    assert "a version that should get requests is not there" in caplog.text
    leased = world.catalog.lease("m", "", _Key())
    assert leased.version == "1"
    world.catalog.release(leased)


async def test_a_disabled_model_waits_for_its_last_request_and_answers_503_from_then_on(
    world: World,
) -> None:
    await world.serve("m", 1, settings=Model())
    leased = world.catalog.lease("m")
    async with asyncio.TaskGroup() as group:
        group.create_task(world.catalog.disable("m", "it was taken back"))
        await world.settle()
        assert not world.loader.session_of(leased).closed.is_set()
        assert world.state() == ("UNLOADING", "disabled: it was taken back")
        with pytest.raises(ModelNotReadyError) as refused:
            world.catalog.lease("m")
        world.catalog.release(leased)
    assert world.in_memory() == []
    assert refused.value.message == "model 'm' is disabled: it was taken back"
    assert refused.value.retry_after_s is None
    assert world.state() == ("UNAVAILABLE", "disabled: it was taken back")
    assert world.catalog.number("m") is None
    assert world.catalog.last_known("m") is None
    await world.serve("m", 1, settings=Model())
    with pytest.raises(ModelNotReadyError):  # only direct ends it
        world.catalog.lease("m")
    world.catalog.direct("m", None)
    assert world.catalog.peek("m").version == "1"


async def test_a_model_of_which_nothing_is_known_can_be_disabled(world: World) -> None:
    world.catalog.is_settled = False
    await world.catalog.disable("m", "why")
    with pytest.raises(ModelNotReadyError, match="model 'm' is disabled: why"):
        world.catalog.lease("m")
    world.catalog.is_settled = True
    with pytest.raises(ModelNotReadyError, match="model 'm' is disabled: why"):
        world.catalog.check_ready("m")


async def test_requests_that_wait_for_a_model_are_told_when_it_is_disabled(world: World) -> None:
    await world.serve("m", 1, settings=LAZY)
    assert world.ask("m")
    await world.catalog.disable("m", "why")
    await world.settle()
    (answer,) = world.answered
    assert isinstance(answer, ModelNotReadyError)


class _Key:
    split_key = "k"
