"""Rows split into requests in any way: a real model gives each what it gives it alone."""

import asyncio
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.batching import Run
from edge_runtime.session import Session, SessionSettings
from tests.conftest import DIGITS
from tests.fakes import known_cost, lane
from tests.scheduler_bench import CLOSE_S, LIMIT_NS, Bench

LONG_NS = 100 * LIMIT_NS


@pytest.fixture(scope="module")
def digits() -> Session:
    """The example's quantized model."""
    return Session.load(DIGITS / "digits-int8.onnx", SessionSettings())


@dataclass
class Arrival:
    """A request of a split, and what happens until the next one comes.

    Attributes:
        rows: How many it has.
        client: Who asks.
        priority: As in a request.
        turns: Of the loop that go by then.
    """

    rows: int
    client: int
    priority: int
    turns: int


ARRIVALS = st.builds(
    Arrival, st.integers(1, 6), st.integers(1, 3), st.integers(0, 2), st.integers(0, 2)
)


@settings(max_examples=40, deadline=None)
@given(
    arrivals=st.lists(ARRIVALS, min_size=1, max_size=20),
    rows_max=st.integers(1, 12),
    threads=st.integers(1, 2),
    ns=st.sampled_from([LONG_NS, LIMIT_NS / 1000]),
    seed=st.integers(0, 2**32 - 1),
)
def test_however_rows_are_split_and_arrive_a_real_model_gives_what_it_gives_alone(
    digits: Session, *, arrivals: list[Arrival], rows_max: int, threads: int, ns: float, seed: int
) -> None:
    (spec,) = digits.signature.inputs
    names = list(digits.signature.outputs)
    pixels = np.random.default_rng(seed).random(
        (sum(each.rows for each in arrivals), *spec.shape[1:]), "<f4"
    )
    ends = np.cumsum([each.rows for each in arrivals])[:-1]
    parts = [{spec.name: part} for part in np.split(pixels * 16, ends)]

    async def main() -> list[Run]:
        bench, runs = Bench(threads, queue_depth=64), []
        asked = lane(digits, signature=digits.signature, cost=known_cost(ns), rows_max=rows_max)
        for each, part in zip(arrivals, parts, strict=True):
            fields = {"client": each.client, "priority": each.priority, "names": names}
            runs.append(bench.submit(asked, rows=each.rows, feeds=part, **fields))
            for _ in range(each.turns):
                await asyncio.sleep(0)
        await bench.until_finished(len(runs))
        assert await bench.scheduler.close(CLOSE_S)
        return runs

    for run, part in zip(asyncio.run(main()), parts, strict=True):
        assert run.error is None
        for got, expected in zip(run.outputs, digits.run(names, part), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
