"""Runs that are shared: what joins, how much, and what happens when it fails."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from time import perf_counter_ns

import numpy as np
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime import scheduling
from edge_runtime.batching import Lane, Run
from edge_runtime.errors import DeadlineExceededError, InvalidTensorError, UnavailableError
from edge_runtime.run_cost import RunCost
from edge_runtime.tensors import VARIABLE, Array, Signature, TensorSpec
from tests.fakes import TWO_INPUTS, FakeSession, Gate, known_cost, lane
from tests.scheduler_bench import CLOSE_S, LIMIT_NS, Bench, Request, feeds

BAD = -1.0
LONG_NS = 100 * LIMIT_NS
ONE_TURN_NS = 3600 * 10**9


class Recorder(FakeSession):
    """Notes how many rows each run has, and refuses a certain value.

    Attributes:
        sizes: Rows of each run that was tried, in order.
    """

    def __init__(self, before: Callable[[], None] | None = None) -> None:
        super().__init__(before)
        self.sizes: list[int] = []

    def run(self, names: Sequence[str], feeds: Mapping[str, Array], /) -> list[Array]:
        """Add and subtract."""
        self.sizes.append(len(feeds["a"]))
        outputs = super().run(names, feeds)
        if (feeds["a"] == BAD).any():
            raise InvalidTensorError("bad luck")
        return outputs


def shared(session: FakeSession, ns: float = LONG_NS, rows_max: int = 256) -> Lane:
    """Give a version whose requests share runs, in the pool if not told else."""
    return lane(session, cost=known_cost(ns), rows_max=rows_max)


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench(queue_depth=64)
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


# -- who is joined -------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_what_arrived_while_the_thread_was_busy_shares_one_run(
    bench: Bench, gate: Gate
) -> None:
    session = Recorder()
    asked = shared(session)
    runs = [bench.submit(asked, rows=rows, feeds=feeds(rows, rows)) for rows in (1, 3, 2)]
    gate.open()
    await bench.until_finished(4)
    assert session.sizes == [6]
    assert [run.outputs[0].tolist() for run in runs] == [[[2.0 * n] * 2] * n for n in (1, 3, 2)]
    assert asked.statistics.rows == 6
    assert (asked.statistics.compute.count, asked.statistics.joined) == (1, 3)


@pytest.mark.asyncio
async def test_what_arrived_in_one_turn_of_the_loop_shares_one_run(bench: Bench) -> None:
    session = Recorder()
    asked = shared(session, LIMIT_NS / 1000)
    runs = [bench.submit(asked, feeds=feeds(1, value)) for value in range(20)]
    await bench.until_finished(20)
    assert session.sizes == [20]
    assert [run.outputs[0][0, 0] for run in runs] == [2.0 * value for value in range(20)]


@pytest.mark.asyncio
async def test_nothing_waits_for_company() -> None:
    bench, gate = Bench(threads=2), Gate()
    session = Recorder(gate)
    asked = shared(session)
    for running in (1, 2):
        bench.submit(asked)
        assert (bench.scheduler.running, bench.scheduler.waiting) == (running, 0)
    assert gate.arrived()
    assert gate.arrived()
    gate.open()
    await bench.until_finished(2)
    assert session.sizes == [1, 1]
    await bench.scheduler.close(CLOSE_S)


@pytest.mark.parametrize("ns", [LONG_NS, LIMIT_NS / 1000], ids=["pool", "loop"])
@pytest.mark.asyncio
async def test_runs_of_a_version_that_joins_nothing_stay_single(
    bench: Bench, gate: Gate, ns: float
) -> None:
    session = Recorder()
    asked = lane(session, cost=known_cost(ns))
    for _ in range(3):
        bench.submit(asked)
    gate.open()
    await bench.until_finished(4)
    assert session.sizes == [1, 1, 1]
    assert asked.statistics.joined == 0


@pytest.mark.parametrize("ns", [LONG_NS, LIMIT_NS / 1000], ids=["pool", "loop"])
@pytest.mark.asyncio
async def test_requests_for_other_outputs_or_without_rows_do_not_join(
    bench: Bench, gate: Gate, ns: float
) -> None:
    session = Recorder()
    asked = shared(session, ns)
    empty = bench.submit(asked, rows=0)
    for names in (["sum"], ["difference"], ["sum"]):
        bench.submit(asked, names=names)
    gate.open()
    await bench.until_finished(5)
    assert sum(session.sizes) == 3
    assert len(session.sizes) in {3, 4}
    assert empty.outputs[0].shape == (0, 2)


@pytest.mark.asyncio
async def test_every_version_gets_its_turn_on_the_loop(bench: Bench) -> None:
    def spin() -> None:
        until = perf_counter_ns() + 2 * LIMIT_NS
        while perf_counter_ns() < until:
            pass

    flood = lane(FakeSession(spin), cost=known_cost(1000))
    for _ in range(20):
        bench.submit(flood)
    modest = bench.submit(lane(cost=known_cost(1000)))
    await bench.until_finished(21)
    assert bench.finished.index(modest) <= 2


# -- how much ------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=30),
    st.integers(1, 12),
    st.sampled_from([LONG_NS, LIMIT_NS / 1000]),
)
def test_rows_are_counted_and_no_shared_run_exceeds_the_cap(
    counts: list[int], rows_max: int, ns: float
) -> None:
    session, holding = Recorder(), Gate()

    async def main() -> list[Run]:
        bench = Bench(queue_depth=64)
        bench.submit(lane(FakeSession(holding)))
        assert holding.arrived()
        asked = shared(session, ns, rows_max)
        runs = [
            bench.submit(asked, rows=rows, feeds=feeds(rows, place))
            for place, rows in enumerate(counts)
        ]
        holding.open()
        await bench.until_finished(len(counts) + 1)
        assert await bench.scheduler.close(CLOSE_S)
        assert asked.statistics.rows == sum(counts)
        assert asked.statistics.compute.count == len(session.sizes)
        return runs

    for place, run in enumerate(asyncio.run(main())):
        assert np.array_equal(run.outputs[0], np.full((counts[place], 2), 2.0 * place))
    assert sum(session.sizes) == sum(counts)
    assert all(size <= rows_max or size in counts for size in session.sizes)


@pytest.mark.asyncio
async def test_shared_run_on_the_loop_is_expected_to_stay_below_the_limit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is expected follows from what was: nothing is learned before all of these have run.
    monkeypatch.setattr(scheduling, "_TURN_NS", ONE_TURN_NS)
    session = Recorder()
    asked = shared(session, LIMIT_NS / 10)
    for _ in range(25):
        bench.submit(asked)
    await bench.until_finished(25)
    assert max(session.sizes) <= 10
    assert session.sizes[0] >= 9


@pytest.mark.asyncio
async def test_shared_run_on_the_loop_stays_below_the_limit_where_elements_count(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "_TURN_NS", ONE_TURN_NS)
    spec = TensorSpec("a", TWO_INPUTS.inputs[0].datatype, (VARIABLE, VARIABLE))
    session = Recorder()
    asked = lane(session, rows_max=256, signature=Signature([spec], [spec]))
    asked.cost = known_cost(LIMIT_NS / 10, rows=4)  # two inputs of two elements each
    assert not asked.uniform
    for _ in range(25):
        bench.submit(asked)
    await bench.until_finished(25)
    assert 1 < max(session.sizes) <= 10


# -- what is not wanted any more -----------------------------------------------------------------


@pytest.mark.parametrize("ns", [LONG_NS, LIMIT_NS / 1000], ids=["pool", "loop"])
@pytest.mark.asyncio
async def test_late_and_unwanted_requests_do_not_join_and_are_not_counted(
    bench: Bench, gate: Gate, ns: float
) -> None:
    session, gone = Recorder(), Request()
    asked = shared(session, ns)
    first = bench.submit(asked)
    late = bench.submit(asked, deadline_ns=perf_counter_ns())
    unwanted = bench.submit(asked, request=gone)
    last = bench.submit(asked)
    gone.cancelled = True
    gate.open()
    await bench.until_finished(5)
    assert isinstance(late.error, DeadlineExceededError)
    assert isinstance(unwanted.error, UnavailableError)
    assert first.error is last.error is None
    assert session.sizes == [2]
    assert asked.statistics.rows == 2


# -- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ns", [LONG_NS, LIMIT_NS / 1000], ids=["pool", "loop"])
@pytest.mark.asyncio
async def test_bad_request_does_not_fail_its_neighbours(
    bench: Bench, gate: Gate, ns: float
) -> None:
    session = Recorder()
    asked = shared(session, ns)
    values = [1.0, BAD, 2.0]
    runs = [bench.submit(asked, feeds=feeds(1, value)) for value in values]
    gate.open()
    await bench.until_finished(4)
    assert session.sizes == [3, 1, 1, 1]
    assert [run.error is None for run in runs] == [True, False, True]
    assert isinstance(runs[1].error, InvalidTensorError)
    assert [run.outputs[0][0, 0] for run in (runs[0], runs[2])] == [2.0, 4.0]
    assert (asked.statistics.compute.count, asked.statistics.rows) == (2, 2)
    assert bench.scheduler.running == 0


@pytest.mark.asyncio
async def test_run_taken_out_of_a_failed_one_keeps_its_place_in_a_full_queue() -> None:
    bench, holding, failing = Bench(queue_depth=3), Gate(), Gate()
    bench.submit(lane(FakeSession(holding)))
    assert holding.arrived()
    asked = shared(Recorder(failing))
    runs = [bench.submit(asked, feeds=feeds(1, value)) for value in (1.0, BAD, 2.0)]
    holding.open()
    await asyncio.to_thread(failing.arrived)
    others = [bench.submit() for _ in range(3)]
    failing.open()
    await bench.until_finished(7)
    assert [run.error is None for run in runs] == [True, False, True]
    assert all(run.error is None for run in others)
    await bench.scheduler.close(CLOSE_S)


@pytest.mark.asyncio
async def test_run_taken_out_of_a_failed_one_is_dropped_if_its_client_left_meanwhile(
    bench: Bench, gate: Gate
) -> None:
    leaving = Request()

    def leave() -> None:
        leaving.cancelled = True

    session = Recorder(leave)
    asked = shared(session)
    bad = bench.submit(asked, feeds=feeds(1, BAD))
    gone = bench.submit(asked, request=leaving)
    gate.open()
    await bench.until_finished(3)
    assert isinstance(bad.error, InvalidTensorError)
    assert isinstance(gone.error, UnavailableError)
    assert session.sizes == [2, 1]


@pytest.mark.asyncio
async def test_model_that_fails_joined_teaches_nothing(bench: Bench, gate: Gate) -> None:
    asked = lane(Recorder(), cost=RunCost(), rows_max=9)
    for _ in range(2):
        bench.submit(asked, feeds=feeds(1, BAD))
    gate.open()
    await bench.until_finished(3)
    assert asked.cost.seen == 0
    assert asked.cap.rows == 9


@pytest.mark.asyncio
async def test_shared_run_that_fails_while_closing_does_not_hang_it() -> None:
    bench, holding, failing = Bench(), Gate(), Gate()
    bench.submit(lane(FakeSession(holding)))
    assert holding.arrived()
    session = Recorder(failing)
    asked = shared(session)
    runs = [bench.submit(asked, feeds=feeds(1, value)) for value in (BAD, 1.0)]
    holding.open()
    await asyncio.to_thread(failing.arrived)
    closing = asyncio.create_task(bench.scheduler.close(CLOSE_S))
    await asyncio.sleep(0)
    failing.open()
    assert await closing
    assert len(bench.finished) == 3
    assert all(run.error is not None for run in runs)
    assert session.sizes == [2]


@pytest.mark.asyncio
async def test_close_answers_for_everything_whose_thread_it_could_not_wait_for() -> None:
    bench, failing = Bench(), Gate()
    asked = shared(Recorder(failing))
    bench.submit(asked, feeds=feeds(1, BAD))
    assert failing.arrived()
    bench.submit(asked)
    assert not await bench.scheduler.close(within_s=0.0)
    failing.open()
    assert len(await bench.until_finished(2)) == 2
