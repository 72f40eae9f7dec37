"""How long a run may become by company, in the pool."""

from collections.abc import AsyncIterator, Mapping, Sequence

import pytest
import pytest_asyncio

from edge_runtime import scheduling
from edge_runtime.batching import RowCap
from edge_runtime.run_cost import RunCost
from edge_runtime.tensors import VARIABLE, Array, Signature, TensorSpec
from tests.fakes import TWO_INPUTS, FakeSession, Gate, known_cost, lane
from tests.scheduler_bench import CLOSE_S, LIMIT_NS, Bench

GREEDY, MODEST = 1, 2
LONG_NS = 100 * LIMIT_NS
ALWAYS_NS = 3600 * 10**9


class Recorder(FakeSession):
    """Notes how many rows each run has."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def run(self, names: Sequence[str], feeds: Mapping[str, Array], /) -> list[Array]:
        """Add and subtract."""
        self.sizes.append(len(feeds["a"]))
        return super().run(names, feeds)


@pytest_asyncio.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(scheduling, "_RECENTLY_NS", ALWAYS_NS)  # however slow this machine is
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


def line(intercept_ns: float, slope_ns: float, *sizes: int) -> RunCost:
    """Give the cost of a model of which runs of several sizes were seen."""
    cost = RunCost()
    for size in (1, 1, *sizes * 20):
        cost.observe(size, intercept_ns + slope_ns * size)
    return cost


@pytest.mark.asyncio
async def test_shared_run_in_the_pool_keeps_the_objective_where_elements_count(
    bench: Bench, gate: Gate
) -> None:
    spec = TensorSpec("a", TWO_INPUTS.inputs[0].datatype, (VARIABLE, VARIABLE))
    session = Recorder()
    asked = lane(session, rows_max=256, signature=Signature([spec], [spec]))
    asked.cost = known_cost(LONG_NS, rows=4)  # two inputs of two elements each
    asked.cap = RowCap(5 * LONG_NS, 256, 256)
    for _ in range(25):
        bench.submit(asked)
    gate.open()
    await bench.until_finished(26)
    assert session.sizes[0] == 5


@pytest.mark.parametrize("clients", [(GREEDY, MODEST), (MODEST, GREEDY)], ids=["its own", "other"])
@pytest.mark.asyncio
async def test_run_does_not_get_much_longer_by_company_while_another_client_is_about(
    bench: Bench, gate: Gate, clients: tuple[int, int]
) -> None:
    session = Recorder()
    asked = lane(session, cost=known_cost(LONG_NS), rows_max=256)
    asked.cost = line(LONG_NS, LONG_NS / 20, 1, 21)  # 10 more rows make one half as long again
    first, other = clients
    bench.submit(asked, client=first)
    for _ in range(30):
        bench.submit(asked, client=other)
    gate.open()
    await bench.until_finished(32)
    assert 8 <= max(session.sizes) <= 12


@pytest.mark.asyncio
async def test_client_that_is_alone_gets_all_the_company_there_is(bench: Bench, gate: Gate) -> None:
    session = Recorder()
    asked = lane(session, cost=known_cost(LONG_NS), rows_max=256)
    asked.cost = line(LONG_NS, LONG_NS / 20, 1, 21)
    for _ in range(30):
        bench.submit(asked)
    gate.open()
    await bench.until_finished(31)
    assert session.sizes == [30]


@pytest.mark.asyncio
async def test_what_company_costs_is_found_out_in_twos_while_another_client_is_about(
    bench: Bench, gate: Gate
) -> None:
    session = Recorder()
    asked = lane(session, cost=known_cost(LONG_NS), rows_max=256)
    for client in (MODEST, *[GREEDY] * 9):
        bench.submit(asked, client=client)
    gate.open()
    await bench.until_finished(11)
    assert session.sizes[0] == 2
