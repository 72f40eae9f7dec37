"""Several clients: a greedy one neither takes the last thread nor the last place in the queue."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from edge_runtime import scheduling
from edge_runtime.batching import Run
from edge_runtime.errors import OverloadedError, UnavailableError
from tests.fakes import FakeSession, Gate, known_cost, lane
from tests.scheduler_bench import CLOSE_S, LIMIT_NS, QUEUE_DEPTH, Bench, Request

GREEDY, MODEST = 1, 2
ALWAYS_NS = 3600 * 10**9


@pytest_asyncio.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """A scheduler with two threads, which both clients have come to lately."""
    monkeypatch.setattr(scheduling, "_RECENTLY_NS", ALWAYS_NS)  # however slow this machine is
    made = Bench(threads=2, queue_depth=64)
    for count, client in enumerate((GREEDY, MODEST), start=1):
        made.submit(client=client)
        await made.until_finished(count)
    made.finished.clear()
    yield made
    await made.scheduler.close(CLOSE_S)


@pytest.fixture
def gate() -> Gate:
    return Gate()


# -- threads -------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_greedy_client_leaves_the_last_thread_to_who_came_lately(
    bench: Bench, gate: Gate
) -> None:
    held = lane(FakeSession(gate))
    for _ in range(3):
        bench.submit(held, client=GREEDY)
    assert (bench.scheduler.running, bench.scheduler.waiting) == (1, 2)
    modest = bench.submit(client=MODEST)
    assert await bench.until_finished(1) == [modest]
    gate.open()
    await bench.until_finished(4)


@pytest.mark.asyncio
async def test_client_that_is_alone_uses_every_thread(gate: Gate) -> None:
    bench = Bench(threads=3)
    held = lane(FakeSession(gate))
    for _ in range(3):
        bench.submit(held, client=GREEDY)
    assert bench.scheduler.running == 3
    gate.open()
    await bench.until_finished(3)
    await bench.scheduler.close(CLOSE_S)


@pytest.mark.asyncio
async def test_only_thread_is_given_to_whoever_asks(gate: Gate) -> None:
    bench = Bench(threads=1)
    for client in (MODEST, GREEDY):
        bench.submit(lane(FakeSession(gate)), client=client)
    assert gate.arrived()
    gate.open()
    await bench.until_finished(2)
    await bench.scheduler.close(CLOSE_S)


@pytest.mark.asyncio
async def test_thread_that_was_kept_free_is_used_once_nobody_else_came_for_long_enough(
    bench: Bench, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "_RECENTLY_NS", 20_000_000)
    held = lane(FakeSession(gate))
    bench.submit(lane(FakeSession(gate)), client=MODEST)  # it came at this moment
    bench.submit(held, client=GREEDY)
    bench.submit(held, client=GREEDY)
    assert gate.arrived()
    assert gate.arrived()
    gate.open()
    await bench.until_finished(3)
    stuck = Gate()
    bench.submit(client=MODEST)
    await bench.until_finished(4)
    first = bench.submit(lane(FakeSession(stuck)), client=GREEDY)
    second = bench.submit(client=GREEDY)
    assert await bench.until_finished(5)
    assert bench.finished[4] is second
    stuck.open()
    assert (await bench.until_finished(6))[5] is first


@pytest.mark.asyncio
async def test_nothing_is_timed_while_nobody_waits(bench: Bench) -> None:
    assert bench.scheduler._timer is None
    bench.submit(client=GREEDY)
    await bench.until_finished(1)
    assert bench.scheduler._timer is None


@pytest.mark.asyncio
async def test_close_stops_the_clock_of_a_thread_kept_free(bench: Bench, gate: Gate) -> None:
    held = lane(FakeSession(gate))
    runs = [bench.submit(held, client=GREEDY) for _ in range(2)]
    assert bench.scheduler._timer is not None
    gate.open()
    assert await bench.scheduler.close(CLOSE_S)
    assert bench.scheduler._timer.cancelled()
    assert len(await bench.until_finished(2)) == 2
    assert isinstance(runs[1].error, UnavailableError)


@pytest.mark.asyncio
async def test_clients_take_turns(gate: Gate) -> None:
    bench = Bench(queue_depth=64)
    bench.submit(lane(FakeSession(gate)))
    long = lane(cost=known_cost(100 * LIMIT_NS))
    for client in [GREEDY] * 20 + [MODEST] * 3:
        bench.submit(long, client=client)
    gate.open()
    finished = await bench.until_finished(24)
    modest = [place for place, run in enumerate(finished) if run.client == MODEST]
    assert max(modest) <= 8
    await bench.scheduler.close(CLOSE_S)


@pytest.mark.asyncio
async def test_client_owes_nothing_for_what_it_was_given_before_an_idle_time(gate: Gate) -> None:
    bench = Bench(queue_depth=64)
    day = lane(cost=known_cost(1e13))
    bench.submit(day, client=MODEST)
    await bench.until_finished(1)
    bench.submit(lane(FakeSession(gate)))
    assert gate.arrived()
    long = lane(cost=known_cost(100 * LIMIT_NS))
    for client in [GREEDY] * 20 + [MODEST]:
        bench.submit(long, client=client)
    gate.open()
    finished = await bench.until_finished(23)
    assert [run.client for run in finished].index(MODEST, 1) <= 4
    await bench.scheduler.close(CLOSE_S)


# -- the queue -----------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_full_queue_refuses_who_has_most_in_it_not_who_comes_with_little(gate: Gate) -> None:
    bench = Bench()
    bench.submit(lane(FakeSession(gate)))
    assert gate.arrived()
    greedy = [bench.submit(client=GREEDY) for _ in range(QUEUE_DEPTH)]
    modest = bench.submit(client=MODEST)
    assert bench.finished == [greedy[-1]]
    error = greedy[-1].error
    assert isinstance(error, OverloadedError)
    assert error.retry_after_s == 1
    more = [bench.submit(client=GREEDY) for _ in range(5)]
    assert all(isinstance(run.error, OverloadedError) for run in more)
    assert bench.scheduler.waiting == QUEUE_DEPTH
    gate.open()
    await bench.until_finished(QUEUE_DEPTH + 7)
    assert modest.error is None
    await bench.scheduler.close(CLOSE_S)


# -- answers that bring the next request ---------------------------------------------------------


@pytest.mark.asyncio
async def test_answers_that_bring_requests_neither_pile_up_nor_overfill(
    caplog: pytest.LogCaptureFixture,
) -> None:
    depth = 1000
    bench, gate = Bench(queue_depth=depth), Gate()
    gone = Request(cancelled=False)
    most = 0

    def again(run: Run) -> None:
        nonlocal most
        bench.done(run)
        bench.submit(request=gone)
        most = max(most, bench.scheduler.running)

    bench.submit(lane(FakeSession(gate)))
    assert gate.arrived()
    for _ in range(depth):
        bench.submit(request=gone, done=again)
    gone.cancelled = True
    gate.open()
    await bench.until_finished(2 * depth + 1)
    assert most <= 1
    assert caplog.text == ""
    await bench.scheduler.close(CLOSE_S)


@pytest.mark.asyncio
async def test_company_that_is_late_and_brings_a_request_starts_no_more_runs_than_threads() -> None:
    bench, gate = Bench(queue_depth=64), Gate()
    gone = Request()
    running: list[int] = []

    def look(run: Run) -> None:
        bench.done(run)
        running.append(bench.scheduler.running)

    def again(run: Run) -> None:
        look(run)
        bench.submit(run.lane, done=look)

    bench.submit(lane(FakeSession(gate)), done=look)
    assert gate.arrived()
    shared = lane(cost=known_cost(100 * LIMIT_NS), rows_max=9)
    bench.submit(shared)
    for _ in range(3):
        bench.submit(shared, request=gone, done=again)
    gone.cancelled = True
    gate.open()
    await bench.until_finished(8)
    assert max(running) == 1
    await bench.scheduler.close(CLOSE_S)


@pytest.mark.asyncio
async def test_refusal_that_brings_a_request_does_not_overfill_the_queue(gate: Gate) -> None:
    bench = Bench()
    bench.submit(lane(FakeSession(gate)))
    assert gate.arrived()

    def again(run: Run) -> None:
        bench.done(run)
        bench.submit(client=GREEDY)

    for _ in range(QUEUE_DEPTH):
        bench.submit(client=GREEDY, done=again)
    for client in (MODEST, MODEST + 1):
        bench.submit(client=client)
        assert bench.scheduler.waiting <= QUEUE_DEPTH
    gate.open()
    await bench.until_finished(1 + 2 * QUEUE_DEPTH + 2)
    assert all(run.error is None or run.client == GREEDY for run in bench.finished)
    await bench.scheduler.close(CLOSE_S)


@pytest.mark.asyncio
async def test_refusal_that_cannot_be_told_does_not_hurt_who_comes_next(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Run) -> None:
        raise ZeroDivisionError

    bench = Bench()
    bench.submit(lane(FakeSession(gate)))
    assert gate.arrived()
    for _ in range(QUEUE_DEPTH):
        bench.submit(client=GREEDY, done=fail)
    modest = bench.submit(client=MODEST)
    assert modest.error is None
    assert "ZeroDivisionError" in caplog.text
    gate.open()
    await bench.until_finished(2)
    await bench.scheduler.close(CLOSE_S)
