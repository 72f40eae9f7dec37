"""A full queue: what it tells, to whom, and what finding that out costs."""

import asyncio
from collections.abc import Sequence
from time import perf_counter_ns

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import OverloadedError, UnavailableError
from tests.fakes import FakeSession, Gate, known_cost, lane
from tests.scheduler_bench import CLOSE_S, LIMIT_NS, QUEUE_DEPTH, Bench, Request

GREEDY, MODEST, NEW = 1, 2, 3
DEPTH = 8
LONG = 100 * LIMIT_NS


async def held(gate: Gate, clients: Sequence[int], depth: int) -> Bench:
    """Give a scheduler whose only thread is held, and where these clients wait."""
    bench = Bench(queue_depth=depth)
    bench.submit(lane(FakeSession(gate)), client=clients[0] if clients else GREEDY)
    assert gate.arrived()
    for client in clients:
        bench.submit(client=client)
    bench.finished.clear()
    return bench


async def end(bench: Bench, gate: Gate) -> None:
    gate.open()
    assert await bench.scheduler.close(CLOSE_S)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from((GREEDY, MODEST)), max_size=DEPTH + 2), st.integers(1, 3))
def test_refusal_foretold_is_the_refusal_that_would_come(clients: list[int], asks: int) -> None:
    async def ask() -> None:
        gate = Gate()
        bench = await held(gate, clients, DEPTH)
        scheduler = bench.scheduler
        foretold = scheduler.is_full and scheduler.refusal(lane(), asks) is not None
        run = bench.submit(client=asks)
        assert isinstance(run.error, OverloadedError) == foretold
        await end(bench, gate)

    asyncio.run(ask())


@pytest.mark.asyncio
async def test_refusal_says_when_to_come_back_and_takes_nobodys_place() -> None:
    gate = Gate()
    bench = await held(gate, [GREEDY] * QUEUE_DEPTH, QUEUE_DEPTH)
    error = bench.scheduler.refusal(lane(), GREEDY)
    assert isinstance(error, OverloadedError)
    assert error.retry_after_s == 1
    assert bench.scheduler.refusal(lane(), MODEST) is None
    assert bench.scheduler.waiting == QUEUE_DEPTH
    assert bench.finished == []
    await end(bench, gate)


@pytest.mark.asyncio
async def test_model_that_needs_no_place_is_not_refused_one() -> None:
    gate = Gate()
    bench = await held(gate, [GREEDY] * QUEUE_DEPTH, QUEUE_DEPTH)
    assert bench.scheduler.refusal(lane(cost=known_cost(LIMIT_NS / 10)), GREEDY) is None
    assert bench.scheduler.refusal(lane(cost=known_cost(LONG)), GREEDY) is not None
    await end(bench, gate)


@pytest.mark.asyncio
async def test_queue_that_has_room_again_says_so() -> None:
    gate = Gate()
    bench = await held(gate, [GREEDY] * QUEUE_DEPTH, QUEUE_DEPTH)
    said = [bench.scheduler.is_full]
    gate.open()
    await bench.until_finished(QUEUE_DEPTH + 1)
    assert bench.scheduler.refusal(lane(), GREEDY) is None
    said.append(bench.scheduler.is_full)
    assert said == [True, False]
    await end(bench, gate)


@pytest.mark.asyncio
async def test_client_that_left_makes_room_for_who_asks() -> None:
    gate, gone = Gate(), Request()
    bench = await held(gate, [GREEDY] * (QUEUE_DEPTH - 1), QUEUE_DEPTH)
    unwanted = bench.submit(client=GREEDY, request=gone)
    assert bench.scheduler.is_full
    gone.cancelled = True
    assert bench.scheduler.refusal(lane(), GREEDY) is None
    assert bench.finished == [unwanted]
    assert isinstance(unwanted.error, UnavailableError)
    await end(bench, gate)


class Watched(Request):
    """Counts how often somebody looks at it."""

    looks = 0

    @property
    def cancelled(self) -> bool:
        """Nobody leaves."""
        Watched.looks += 1
        return False

    @cancelled.setter
    def cancelled(self, _: bool) -> None: ...


@pytest.mark.asyncio
async def test_full_queue_is_not_looked_through_for_every_refusal() -> None:
    gate, depth, asked = Gate(), 256, 1000
    bench = await held(gate, [], depth)
    for _ in range(depth):
        bench.submit(client=GREEDY, request=Watched())
    Watched.looks = 0
    began = perf_counter_ns()
    for _ in range(asked):
        assert bench.scheduler.refusal(lane(), GREEDY) is not None
        bench.submit(client=GREEDY)
    sweeps = 1 + (perf_counter_ns() - began) // 5_000_000  # once in 5 ms
    assert Watched.looks <= depth * sweeps
    await end(bench, gate)


@pytest.mark.asyncio
async def test_full_queue_that_closes_does_not_ask_to_come_back() -> None:
    gate = Gate()
    bench = await held(gate, [GREEDY] * QUEUE_DEPTH, QUEUE_DEPTH)
    await end(bench, gate)
    error = bench.scheduler.refusal(lane(), GREEDY)
    assert isinstance(error, UnavailableError)
    assert error.retry_after_s is None
