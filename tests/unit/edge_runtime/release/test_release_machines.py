"""Releases that meet orders and one another, in one process."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from edge_runtime.errors import ConflictError, InvalidRequestError
from edge_runtime.release import machines
from edge_runtime.release.records import Slots
from edge_runtime.routing import PERMYRIAD
from tests.fakes import Gate
from tests.release_world import MODEL, World, becomes

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path, shadow_s=0.0, canary_s=60.0, probation_s=60.0, weights=(50,))
    await made.reload(MODEL)
    yield made
    await made.close()


async def test_a_promote_that_comes_too_late_says_that_nothing_was_done(
    world: World, tmp_path: Path
) -> None:
    machine = world.machines.machine(world.installed(2, state="staged", weights=(50,)))
    blocked = sqlite3.connect(tmp_path / "runtime.db", isolation_level=None)
    blocked.execute("BEGIN IMMEDIATE")  # the step has ended, and that cannot be stored yet
    world.machines.run(machine)
    await becomes(lambda: bool(machine.progress.problem), "the end of a step that waits")
    promote = asyncio.ensure_future(world.releases.promote(MODEL))
    await becomes(lambda: machine._order is not None, "the order")
    blocked.execute("COMMIT")
    blocked.close()
    with pytest.raises(ConflictError, match=r"went on by itself meanwhile and is [a-z]+ now"):
        await promote
    await becomes(lambda: machine.release.state == "canary", "the next step, by itself")


async def test_a_promote_that_comes_in_time_is_done(world: World) -> None:
    machine = world.machines.machine(world.installed(2, state="canary", weights=(50,)))
    world.machines.run(machine)
    await becomes(lambda: "2" in world.loaded(), "the canary")
    assert (await world.releases.promote(MODEL)).state == "probation"
    await becomes(lambda: world.answering() == {"2"}, "its answers")
    assert (await world.releases.promote(MODEL, reason="now")).state == "committed"


async def test_the_second_of_two_that_end_a_release_is_told_so(world: World) -> None:
    machine = world.machines.machine(world.installed(2, state="canary", weights=(50,)))
    world.machines.run(machine)
    await becomes(lambda: "2" in world.loaded(), "the canary")
    first = asyncio.ensure_future(world.releases.abort(MODEL))
    await asyncio.sleep(0)
    for order in (world.releases.abort, world.releases.rollback, world.releases.promote):
        with pytest.raises(InvalidRequestError, match="is being rolled back"):
            await order(MODEL)
    assert (await first).state == "rolled-back"


async def test_a_release_that_is_given_up_leaves_no_candidate_beside_the_active_version(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = world.machines.machine(world.installed(2, state="canary", weights=(50,)))
    world.machines.run(machine)
    await becomes(lambda: world.answering() == {"1", "2"}, "the canary's answers")
    monkeypatch.setattr(machines, "STUCK_S", 0.05)
    gate = Gate()
    held = world.keep.patiently(gate)
    assert gate.arrived(), "the journal does not answer"
    superseded = asyncio.ensure_future(world.machines.supersede(MODEL))
    await becomes(lambda: world.answering() == {"1"}, "the way back, stored or not")
    await becomes(lambda: not world.machines._tasks, "its being given up")
    gate.open()
    await held
    await superseded
    await becomes(lambda: world.loaded() == {"1"}, "its leaving")
    assert not world.serving._beside


async def test_an_order_to_go_back_from_where_nobody_gets_requests_leaves_a_split(
    world: World,
) -> None:
    slots = Slots(model=MODEL, active=1, active_source="seed", traffic={"1": 50, "2": 50})
    world.installed(2, state="committed")
    world.serving.take(slots)
    await world.serving.settle(MODEL)
    assert world.answering() == {"1", "2"}
    world.serving.divert(MODEL)
    assert world.answering() == {"1", "2"}
    world.installed(3)
    await world.serving.add(MODEL, 3, PERMYRIAD)
    world.serving.divert(MODEL)
    assert world.answering() == {"1"}, "a candidate is out at once"
