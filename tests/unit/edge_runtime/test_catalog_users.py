"""Several users whose models are not in memory: waiting and loading is fair between them."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from edge_runtime.errors import OverloadedError
from edge_runtime.settings import Model
from tests.fakes import WAIT_S, Gate
from tests.residency_world import WAITING_MAX, S, World

pytestmark = pytest.mark.asyncio

LOAD_S = 2
GREEDY, OTHER = 1, 2


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    async with asyncio.timeout(WAIT_S):
        await made.catalog.close()


def loads_take_time(world: World, gate: Gate | None = None) -> None:
    def load() -> None:
        if gate is not None:
            gate()
        world.clock.ns += LOAD_S * S

    world.loader.before = load


async def test_a_user_is_not_kept_from_waiting_by_another_who_has_every_place(
    world: World,
) -> None:
    await world.serve("m", 1)
    gate = world.loader.before = Gate()
    for _ in range(WAITING_MAX):
        assert world.ask(user=GREEDY)
    assert world.ask(user=OTHER)
    assert world.catalog.waiting == WAITING_MAX
    (refused,) = world.answered
    assert isinstance(refused, OverloadedError)
    assert refused.retry_after_s == 1
    with pytest.raises(OverloadedError):
        world.ask(user=GREEDY)
    gate.open()
    await world.settle()
    assert len(world.answered) == 1 + WAITING_MAX
    assert world.catalog.waiting == 0


async def test_a_question_about_a_model_takes_a_place_of_its_user_too(world: World) -> None:
    await world.serve("m", 1)
    gate = world.loader.before = Gate()
    told: list[object] = []
    for _ in range(WAITING_MAX):
        world.catalog.describe("m", "", told.append, user=GREEDY)
    assert world.ask(user=OTHER)
    assert [type(each) for each in told] == [OverloadedError]
    gate.open()
    await world.settle()
    assert len(told) == WAITING_MAX


async def test_a_user_s_model_is_loaded_before_the_many_that_another_asked_for_earlier(
    world: World,
) -> None:
    gate = Gate()
    loads_take_time(world, gate)
    for name in "abcd":
        await world.serve(name, 1)
    assert world.ask("a", user=GREEDY)
    assert await asyncio.to_thread(gate.arrived)
    assert all([world.ask("b", user=GREEDY), world.ask("c", user=GREEDY)])
    world.clock.ns += S
    assert world.ask("d", user=OTHER)
    gate.open()
    await world.settle()
    assert [each.name for each in world.loader.loaded] == ["a", "d", "b", "c"]


async def test_a_user_who_alternates_between_two_models_leaves_in_place_what_another_uses(
    world: World,
) -> None:
    world.loader.sizes = {"mine": 30, "x": 30, "y": 30}
    for name in world.loader.sizes:
        await world.serve(name, 1)
    world.budget(60)
    loads_take_time(world)
    await world.asks("mine", user=OTHER)
    for name in ("x", "y") * 4:
        await world.asks("mine", user=OTHER)
        world.clock.ns += S
        await world.asks(name, user=GREEDY)  # least recently used is what the other one uses
        assert world.in_memory() == ["mine/1", f"{name}/1"]
    assert [each.name for each in world.loader.loaded].count("mine") == 1


async def test_of_one_user_s_models_the_least_recently_used_leaves_while_time_goes_on(
    world: World,
) -> None:
    world.loader.sizes = {"x": 30, "y": 30, "z": 30}
    world.budget(60)
    for name in world.loader.sizes:  # the first two are loaded at the start
        await world.serve(name, 1, settings=Model(load="start"))
    loads_take_time(world)
    world.clock.tick_ns = S // 1000
    recent = ["x", "y"]
    for name in ("z", "y", "x", "y", "z", "z", "x"):
        world.clock.ns += S  # what was just loaded stays for a moment
        await world.asks(name, user=GREEDY)
        await world.settle()
        recent = [*[each for each in recent if each != name][-1:], name]
        assert world.in_memory() == sorted(f"{each}/1" for each in recent)


async def test_what_another_does_not_use_any_more_makes_room(world: World) -> None:
    world.loader.sizes = {"mine": 30, "x": 30, "y": 30}
    for name in world.loader.sizes:
        await world.serve(name, 1)
    world.budget(60)
    loads_take_time(world)
    await world.asks("mine", user=OTHER)
    await world.asks("x", user=GREEDY)
    world.clock.ns += 20 * S
    await world.asks("x", user=GREEDY)
    await world.asks("y", user=GREEDY)
    assert world.in_memory() == ["x/1", "y/1"]
