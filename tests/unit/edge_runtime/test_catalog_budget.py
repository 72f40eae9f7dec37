"""Models that share a memory budget: who leaves for whom, and how swaps keep it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from edge_runtime.errors import (
    ManifestError,
    ModelNotReadyError,
)
from edge_runtime.routing import LoadedVersion
from edge_runtime.settings import Model
from tests.fakes import WAIT_S, Gate
from tests.residency_world import OWN, S, World

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    async with asyncio.timeout(WAIT_S):
        await made.catalog.close()


# -- a budget ------------------------------------------------------------------------------------


async def test_three_models_take_turns_in_memory_that_holds_two(world: World) -> None:
    world.loader.sizes = {"a": 50, "b": 50, "c": 50}
    world.budget(100)
    for name in "abc":
        await world.serve(name, 1)
    for name in "abcabcab":
        world.clock.ns += S
        assert isinstance(await world.asks(name), LoadedVersion)
        assert world.loader.held_bytes() <= world.catalog.budget_bytes
    assert world.in_memory() == ["a/1", "b/1"]
    assert world.state("c")[1] == ("not in memory; loads when asked (b version 1 needs the room)")


async def test_at_the_start_what_fits_is_loaded_and_the_rest_when_asked(world: World) -> None:
    world.loader.sizes = {"a": 60, "b": 60}
    world.budget(100)
    await world.serve("a", 1, settings=Model())
    await world.serve("b", 1, settings=Model())
    assert world.in_memory() == ["a/1"]
    assert world.state("b") == (
        "READY",
        "not in memory; loads when asked (there was no room for it)",
    )
    assert isinstance(await world.asks("b"), LoadedVersion)
    assert world.in_memory() == ["b/1"]
    await world.serve("a", 1, settings=Model())
    assert world.in_memory() == ["b/1"], "reading the files again drives nobody out"


async def test_a_model_that_can_never_fit_is_refused_with_both_numbers(world: World) -> None:
    world.loader.sizes = {"m": 300 << 20}
    world.catalog.budget_bytes = 100 << 20
    await world.serve("m", 1)
    error = await world.asks()
    assert isinstance(error, ModelNotReadyError)
    assert error.retry_after_s is None
    assert "needs 300.0 MiB of memory; the budget of 100.0 MiB" in error.message
    assert world.state()[0] == "UNAVAILABLE"
    assert world.loader.loaded == []
    with pytest.raises(ModelNotReadyError):
        world.catalog.check_ready("m")
    world.catalog.budget_bytes = 400 << 20
    assert isinstance(await world.asks(), LoadedVersion)


async def test_a_model_that_turns_out_too_large_is_let_go_again_and_refused_from_then_on(
    world: World,
) -> None:
    world.loader.sizes, world.loader.expects = {"first": 300}, {"first": 10}
    world.budget(100)
    await world.serve("m", 1)
    error = await world.asks()
    assert isinstance(error, ModelNotReadyError)
    assert "loaded, it holds" in error.message
    assert world.in_memory() == []
    assert world.loader.held_bytes() == OWN
    again = await world.asks()
    assert isinstance(again, ModelNotReadyError)
    assert len(world.loader.loaded) == 1, "now its size is known"


async def test_a_model_that_turns_out_larger_makes_others_leave(world: World) -> None:
    world.loader.sizes, world.loader.expects = {"a": 50, "big": 80}, {"big": 10}
    world.budget(100)
    await world.serve("a", 1, settings=Model())
    await world.serve("m", 1, digest="big")
    assert isinstance(await world.asks(), LoadedVersion)
    assert world.in_memory() == ["m/1"]


async def test_a_request_waits_for_the_room_of_a_model_in_use_and_then_gets_it(
    world: World,
) -> None:
    world.loader.sizes = {"a": 60, "b": 60}
    world.budget(100)
    await world.serve("a", 1, settings=Model())
    await world.serve("b", 1)
    leased = world.catalog.lease("a")
    assert world.ask("b")
    await world.settle()
    assert world.in_memory() == ["a/1"]
    assert world.answered == []
    world.catalog.release(leased)
    await world.settle()
    assert world.in_memory() == ["b/1"]
    assert len(world.answered) == 1


async def test_a_request_does_not_wait_for_room_for_ever(world: World) -> None:
    world.loader.sizes = {"a": 60, "b": 60}
    world.budget(100)
    await world.serve("a", 1, settings=Model())
    await world.serve("b", 1)
    leased = world.catalog.lease("a")
    assert world.ask("b")
    await world.pass_time(9)
    assert world.answered == []
    await world.pass_time(1)
    (error,) = world.answered
    assert isinstance(error, ModelNotReadyError)
    assert error.retry_after_s == 1
    assert "in use" in error.message
    world.catalog.check_ready("b")
    world.catalog.release(leased)
    assert isinstance(await world.asks("b"), LoadedVersion)


async def test_a_model_that_always_stays_is_not_driven_out(world: World) -> None:
    world.loader.sizes = {"a": 60, "b": 60}
    world.budget(100)
    await world.serve("a", 1, settings=Model(load="always"))
    await world.serve("b", 1)
    error = await world.asks("b")
    assert isinstance(error, ModelNotReadyError)
    assert world.in_memory() == ["a/1"]


async def test_a_model_that_must_always_stay_and_does_not_fit_is_a_failure(world: World) -> None:
    world.loader.sizes = {"a": 160}
    world.budget(100)
    with pytest.raises(ModelNotReadyError, match=r"raise engine\.memory_budget_bytes"):
        await world.serve("a", 1, settings=Model(load="always"))
    assert world.state("a")[0] == "UNAVAILABLE"


async def test_an_operators_load_makes_room_or_says_why_not(world: World) -> None:
    world.loader.sizes = {"a": 60, "b": 60, "c": 160}
    world.budget(100)
    await world.serve("a", 1, settings=Model())
    await world.serve("b", 1, at_once=True)
    assert world.in_memory() == ["b/1"]
    with pytest.raises(ModelNotReadyError, match=r"raise engine\.memory_budget_bytes"):
        await world.serve("c", 1, at_once=True)
    assert world.in_memory() == ["b/1"]


async def test_a_smaller_budget_takes_effect_at_once(world: World) -> None:
    world.loader.sizes = {"a": 60, "b": 60}
    world.budget(200)
    for name in "ab":
        world.clock.ns += S
        await world.serve(name, 1, settings=Model())
    world.budget(70)
    await world.settle()
    assert world.in_memory() == ["b/1"]


# -- swaps under a budget ------------------------------------------------------------------------


async def test_a_swap_that_fits_keeps_the_old_version_until_the_new_one_is_there(
    world: World,
) -> None:
    world.loader.sizes = {"m": 50}
    world.budget(100)
    await world.serve("m", 1, settings=Model())
    gate = world.loader.before = Gate()
    task = asyncio.create_task(world.serve("m", 2, settings=Model()))
    assert await asyncio.to_thread(gate.arrived)
    assert world.catalog.peek("m").version == "1"
    assert "availability-preserving (needs" in world.state(version="2")[1]
    gate.open()
    await task
    assert world.in_memory() == ["m/2"]
    assert world.catalog.peek("m").swap.startswith("availability-preserving (needs 0.1 MiB")


@pytest.mark.parametrize("new", [1, 2])
async def test_a_swap_that_does_not_fit_lets_the_old_version_go_first_and_requests_wait(
    world: World, new: int
) -> None:
    world.loader.sizes = {"m": 60}
    world.budget(100)
    await world.serve("m", 1, settings=Model())
    gate = world.loader.before = Gate()
    task = asyncio.create_task(world.serve("m", new, digest="new", settings=Model()))
    assert await asyncio.to_thread(gate.arrived)
    assert world.in_memory() == []
    assert world.loader.held_bytes() == OWN
    state, reason = world.state(version=str(new))
    assert (state, "resource-preserving (needs" in reason) == ("LOADING", True)
    assert world.ask()
    gate.open()
    await task
    (answer,) = world.answered
    assert isinstance(answer, LoadedVersion)
    assert (answer.version, answer.digest) == (str(new), "new")
    assert answer.swap.startswith("resource-preserving (needs 0.1 MiB, has 0.1 MiB)")
    assert world.state(version=str(new)) == ("READY", "")


async def test_a_swap_that_does_not_fit_waits_for_the_last_request_of_the_old_version(
    world: World,
) -> None:
    world.loader.sizes = {"m": 60}
    world.budget(100)
    await world.serve("m", 1, settings=Model())
    leased = world.catalog.lease("m")
    task = asyncio.create_task(world.serve("m", 2, settings=Model()))
    await world.settle()
    assert len(world.loader.loaded) == 1
    assert not world.loader.session_of(leased).closed.is_set()
    world.catalog.release(leased)
    await task
    assert world.in_memory() == ["m/2"]


@pytest.mark.parametrize("new", [1, 2])
async def test_the_old_version_is_loaded_again_when_its_successor_fails(
    world: World, new: int
) -> None:
    world.loader.sizes = {"m": 60}
    world.budget(100)
    await world.serve("m", 1, settings=Model())
    world.catalog.peek("m").statistics.rows = 3
    world.loader.broken["new"] = ManifestError("bad manifest")
    with pytest.raises(ManifestError):
        await world.serve("m", new, digest="new", settings=Model())
    assert world.in_memory() == ["m/1"]
    assert world.catalog.peek("m").digest == "first"
    assert world.catalog.peek("m").statistics.rows == 3
    state, reason = world.state(version=str(new))
    assert (state, "bad manifest" in reason) == ("READY" if new == 1 else "UNAVAILABLE", True)
    assert isinstance(await world.asks(), LoadedVersion)


@pytest.mark.parametrize("new", [1, 2])
async def test_the_old_version_stays_when_its_successor_could_never_fit(
    world: World, new: int
) -> None:
    world.loader.sizes = {"m": 60, "new": 160}
    world.budget(100)
    await world.serve("m", 1, settings=Model())
    before = world.catalog.peek("m")
    with pytest.raises(ModelNotReadyError, match=r"raise engine\.memory_budget_bytes"):
        await world.serve("m", new, digest="new", settings=Model())
    assert world.catalog.peek("m") is before
    assert len(world.loader.loaded) == 1
    assert "needs 0.1 MiB" in world.state(version=str(new))[1]


async def test_files_that_did_not_change_are_not_swapped_under_a_tight_budget(
    world: World,
) -> None:
    world.loader.sizes = {"m": 60}
    world.budget(100)
    await world.serve("m", 1, settings=Model())
    before = world.catalog.peek("m")
    for settings in (Model(), Model(idle_unload_s=5.0, aliases={"good": 1})):
        await world.serve("m", 1, settings=settings)
        assert world.catalog.peek("m") is before


async def test_a_swap_without_a_budget_says_so(world: World) -> None:
    await world.serve("m", 1, settings=Model())
    await world.serve("m", 2, settings=Model())
    assert world.catalog.peek("m").swap == "availability-preserving (there is no memory budget)"


async def test_a_long_request_on_a_version_that_has_to_leave_holds_up_no_other_model(
    world: World,
) -> None:
    world.loader.sizes = {"m": 60, "other": 30}
    world.budget(100)
    await world.serve("m", 1, settings=Model())
    await world.serve("other", 1)
    leased = world.catalog.lease("m")
    task = asyncio.create_task(world.serve("m", 2, settings=Model()))
    await world.settle()
    assert world.ask("m", "2")
    assert isinstance(await world.asks("other"), LoadedVersion)
    assert len(world.answered) == 1
    world.catalog.release(leased)
    await task
    assert len(world.answered) == 2
    assert world.in_memory() == ["m/2", "other/1"]
