"""When and where a run happens, on a real loop with fake sessions."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from time import perf_counter_ns

import pytest
import pytest_asyncio

from edge_runtime import batching, scheduling
from edge_runtime.batching import Run
from edge_runtime.errors import (
    DeadlineExceededError,
    InvalidTensorError,
    ModelFailedError,
    OverloadedError,
    UnavailableError,
)
from edge_runtime.run_cost import RunCost
from tests.fakes import FakeSession, Gate, known_cost, lane
from tests.scheduler_bench import CLOSE_S, LIMIT_NS, QUEUE_DEPTH, Bench, Request


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.scheduler.close(CLOSE_S)


@pytest_asyncio.fixture
async def gate(bench: Bench) -> AsyncIterator[Gate]:
    """The only thread of the pool, held by a run that is under way."""
    holding = Gate()
    bench.submit(lane(FakeSession(holding)))
    assert holding.arrived()
    yield holding
    holding.open()


# -- where --------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_model_that_nobody_knows_runs_in_the_pool(bench: Bench) -> None:
    session = FakeSession()
    run = bench.submit(lane(session))
    assert bench.finished == []
    await bench.until_finished(1)
    assert session.runs[0].name.startswith("run")
    assert run.outputs[0].tolist() == [[2.0, 2.0]]


@pytest.mark.asyncio
async def test_short_model_runs_on_the_thread_of_the_loop(bench: Bench) -> None:
    session = FakeSession()
    run = bench.submit(lane(session, cost=known_cost(LIMIT_NS / 10)))
    assert await bench.until_finished(1) == [run]
    assert session.runs == [threading.current_thread()]


@pytest.mark.asyncio
async def test_model_whose_time_nobody_can_foresee_never_runs_on_the_thread_of_the_loop(
    bench: Bench,
) -> None:
    session = FakeSession()
    made = lane(session, cost=known_cost(LIMIT_NS / 10))
    made.inline = False
    bench.submit(made)
    await bench.until_finished(1)
    assert threading.current_thread() not in session.runs


@pytest.mark.asyncio
async def test_long_model_never_runs_on_the_thread_of_the_loop(bench: Bench) -> None:
    session = FakeSession()
    bench.submit(lane(session, cost=known_cost(LIMIT_NS * 2)))
    await bench.until_finished(1)
    assert threading.current_thread() not in session.runs


@pytest.mark.asyncio
async def test_short_model_comes_to_the_loop_after_a_few_runs(bench: Bench) -> None:
    session, cost = FakeSession(), RunCost()
    for count in range(1, 200):
        bench.submit(lane(session, cost=cost))
        await bench.until_finished(count)
        if session.runs[-1] is threading.current_thread():
            break
    assert session.runs[-1] is threading.current_thread()
    assert threading.current_thread() not in session.runs[:3]


@pytest.mark.asyncio
async def test_many_rows_go_to_the_pool_where_few_do_not(bench: Bench) -> None:
    cost = known_cost(LIMIT_NS / 10)
    session = FakeSession()
    bench.submit(lane(session, cost=cost))
    bench.submit(lane(session, cost=cost), rows=100)
    await bench.until_finished(2)
    own = [thread is threading.current_thread() for thread in session.runs]
    assert sorted(own) == [False, True]


@pytest.mark.usefixtures("gate")
@pytest.mark.asyncio
async def test_short_model_does_not_wait_behind_long_ones(bench: Bench) -> None:
    bench.submit()
    short = bench.submit(lane(cost=known_cost(1000)))
    assert await bench.until_finished(1) == [short]
    assert (bench.scheduler.running, bench.scheduler.waiting) == (1, 1)


# -- when ---------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_stated_priority_comes_before_the_default(bench: Bench, gate: Gate) -> None:
    default = bench.submit()
    low = bench.submit(priority=7)
    high = bench.submit(priority=1)
    gate.open()
    finished = await bench.until_finished(4)
    assert finished[1:] == [high, low, default]


@pytest.mark.asyncio
async def test_runs_of_one_priority_keep_their_order(bench: Bench, gate: Gate) -> None:
    runs = [bench.submit(priority=2) for _ in range(QUEUE_DEPTH)]
    gate.open()
    assert (await bench.until_finished(4))[1:] == runs


@pytest.mark.asyncio
async def test_queue_is_bounded_and_says_when_to_come_back(bench: Bench, gate: Gate) -> None:
    waiting = [bench.submit() for _ in range(QUEUE_DEPTH)]
    refused = bench.submit(priority=1)
    assert bench.finished == [refused]
    assert isinstance(refused.error, OverloadedError)
    assert refused.error.retry_after_s == 1
    gate.open()
    finished = await bench.until_finished(2 + QUEUE_DEPTH)
    assert finished[2:] == waiting
    assert all(run.error is None for run in waiting)


@pytest.mark.asyncio
async def test_run_past_its_deadline_is_dropped_before_it_costs_a_run(
    bench: Bench, gate: Gate
) -> None:
    session = FakeSession()
    late = bench.submit(lane(session), deadline_ns=perf_counter_ns())
    in_time = bench.submit(lane(session), deadline_ns=perf_counter_ns() + 10**11)
    gate.open()
    await bench.until_finished(3)
    assert isinstance(late.error, DeadlineExceededError)
    assert in_time.error is None
    assert len(session.runs) == 1


@pytest.mark.asyncio
async def test_run_of_a_client_that_left_is_dropped_before_it_costs_a_run(
    bench: Bench, gate: Gate
) -> None:
    session, request = FakeSession(), Request()
    gone = bench.submit(lane(session), request=request)
    stays = bench.submit(lane(session))
    request.cancelled = True
    gate.open()
    await bench.until_finished(3)
    assert isinstance(gone.error, UnavailableError)
    assert stays.error is None
    assert len(session.runs) == 1


@pytest.mark.asyncio
async def test_short_run_that_is_too_late_or_unwanted_is_dropped(bench: Bench) -> None:
    session, gone = FakeSession(), Request()
    late = bench.submit(lane(session, cost=known_cost(1000)), deadline_ns=perf_counter_ns())
    unwanted = bench.submit(lane(session, cost=known_cost(1000)), request=gone)
    gone.cancelled = True
    wanted = bench.submit(lane(session, cost=known_cost(1000)))
    await bench.until_finished(3)
    assert isinstance(late.error, DeadlineExceededError)
    assert isinstance(unwanted.error, UnavailableError)
    assert wanted.error is None
    assert len(session.runs) == 1


@pytest.mark.parametrize("stalls", [1, 2])
@pytest.mark.asyncio
async def test_model_that_held_everybody_up_twice_stays_off_the_loop(
    bench: Bench,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    stalls: int,
) -> None:
    now_ns = perf_counter_ns()  # moved by hand: a busy machine holds quick runs up, too

    def stall() -> None:
        nonlocal now_ns
        now_ns += 60_000_000 if len(session.runs) <= stalls else 0

    for module in (batching, scheduling):
        monkeypatch.setattr(module, "perf_counter_ns", lambda: now_ns)
    session = FakeSession(stall)
    asked = lane(session, cost=known_cost(1000))
    for count in range(1, stalls + 2):
        bench.submit(asked)
        await bench.until_finished(count)
    loop_s = threading.current_thread()
    assert session.runs[:stalls] == [loop_s] * stalls
    assert (session.runs[stalls] is loop_s) == (stalls == 1)
    assert asked.stalls == stalls
    assert caplog.text.count("held every request up") == stalls


@pytest.mark.asyncio
async def test_many_short_runs_let_the_loop_do_other_things_in_between(bench: Bench) -> None:
    def spin() -> None:
        until = perf_counter_ns() + 2 * LIMIT_NS
        while perf_counter_ns() < until:
            pass

    count = 20
    runs = [bench.submit(lane(FakeSession(spin), cost=known_cost(1000))) for _ in range(count)]
    seen: list[int] = []
    while not seen or seen[-1] < count:
        await asyncio.sleep(0)
        seen.append(len(bench.finished))
    assert len(set(seen)) > 3
    assert bench.finished == runs


@pytest.mark.asyncio
async def test_times_of_a_run_are_in_order(bench: Bench, gate: Gate) -> None:
    run = bench.submit()
    gate.open()
    await bench.until_finished(2)
    assert run.received <= run.queued <= run.started <= run.ended


# -- failures -----------------------------------------------------------------------------------


def failing(error: Exception) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize("cost", [RunCost, lambda: known_cost(1000)], ids=["pool", "loop"])
@pytest.mark.parametrize(
    ("raised", "answered"),
    [(InvalidTensorError("why"), InvalidTensorError), (MemoryError(), ModelFailedError)],
)
@pytest.mark.asyncio
async def test_failed_run_is_told_and_the_next_one_is_run(
    bench: Bench,
    cost: Callable[[], RunCost],
    raised: Exception,
    answered: type[Exception],
) -> None:
    failed = bench.submit(lane(FakeSession(failing(raised)), cost=cost()))
    await bench.until_finished(1)
    assert type(failed.error) is answered
    good = bench.submit(lane(cost=cost()))
    await bench.until_finished(2)
    assert good.error is None
    assert bench.scheduler.running == 0


@pytest.mark.asyncio
async def test_failed_run_teaches_nothing(bench: Bench) -> None:
    cost = RunCost()
    bench.submit(lane(FakeSession(failing(InvalidTensorError("why"))), cost=cost))
    await bench.until_finished(1)
    assert cost.seen == 0


@pytest.mark.asyncio
async def test_close_fails_what_waits_and_finishes_what_runs(bench: Bench, gate: Gate) -> None:
    waiting = [
        bench.submit(lane(cost=cost)) for cost in (known_cost(1000), known_cost(LIMIT_NS * 2))
    ]
    gate.open()
    assert await bench.scheduler.close(CLOSE_S)
    assert [type(run.error) for run in waiting] == [UnavailableError] * 2
    finished = await bench.until_finished(3)
    assert finished[2].error is None


@pytest.mark.asyncio
async def test_close_does_not_wait_for_ever(bench: Bench, gate: Gate) -> None:
    assert not await bench.scheduler.close(within_s=0.0)
    gate.open()


@pytest.mark.asyncio
async def test_clients_that_left_make_room_in_a_full_queue(bench: Bench, gate: Gate) -> None:
    waiting = [bench.submit() for _ in range(QUEUE_DEPTH)]
    waiting[0].request.cancelled = True
    assert bench.submit().error is None
    assert isinstance(waiting[0].error, UnavailableError)
    assert isinstance(bench.submit().error, OverloadedError)
    gate.open()
    await bench.until_finished(QUEUE_DEPTH + 3)


@pytest.mark.asyncio
async def test_nothing_hangs_that_is_submitted_after_the_end(bench: Bench) -> None:
    assert await bench.scheduler.close(CLOSE_S)
    late = [bench.submit(), bench.submit(lane(cost=known_cost(1000)))]
    await bench.until_finished(2)
    assert isinstance(late[0].error, UnavailableError)


@pytest.mark.asyncio
async def test_an_answer_that_fails_does_not_hurt_the_runs_behind_it(bench: Bench) -> None:
    first = bench.submit(lane(cost=known_cost(1000)))

    def fail(_: Run) -> None:
        raise ZeroDivisionError

    first.done = fail
    second = bench.submit(lane(cost=known_cost(1000)))
    assert await bench.until_finished(1) == [second]
