"""The request path with a cache before the model: measuring, joining, timeouts."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import pytest_asyncio

from edge_runtime.api.answers import model_statistics
from edge_runtime.cache.predictions import PredictionCache
from edge_runtime.cache.worth import RUN_EVERY_AT_FIRST
from edge_runtime.catalog import Catalog
from edge_runtime.datatypes import BY_NAME
from edge_runtime.errors import DeadlineExceededError, EdgeRuntimeError, ModelFailedError
from edge_runtime.inference import Inference
from edge_runtime.protocol.messages import InferRequest, InferResponse
from edge_runtime.settings import Model
from edge_runtime.tensors import Tensor
from tests.caching import CPU, RAM_ONLY
from tests.fakes import WAIT_S, FakeLoader, bundle

if TYPE_CHECKING:
    from edge_runtime.batching import Run

pytestmark = pytest.mark.asyncio

MODEL = Model(cache_ttl_s=60)
MS = 1_000_000


class Cached:
    """A request path whose runs a test ends.

    Attributes:
        runs: Runs that were asked for.
        answers: What the requests got, in the order of the answers.
    """

    def __init__(self, folder: Path) -> None:
        self.catalog = Catalog(FakeLoader())
        loop = asyncio.get_running_loop()
        cache = PredictionCache(loop, RAM_ONLY, folder, runtime_version="1", cpu=CPU)
        self.runs: list[Run] = []
        self.answers: list[InferResponse | EdgeRuntimeError] = []
        self.inference = Inference(self.catalog, self.runs.append, cache=cache)
        self.inference.take_cache_settings({"m": MODEL})

    def submit(self, timeout_us: int = 0, *, value: float = 1) -> None:
        """Ask always the same, unless told otherwise."""
        tensor = Tensor(BY_NAME["FP32"], np.full((1, 2), value, np.float32))
        request = InferRequest("m", inputs={"a": tensor, "b": tensor}, timeout_us=timeout_us)
        self.inference.submit(request, self.answers.append)

    def end(self, ns: int = MS, error: EdgeRuntimeError | None = None) -> None:
        """End the run that was asked for first."""
        run = self.runs.pop(0)
        run.queued = run.started = 0
        run.ended = ns
        if error is None:
            run.outputs = run.lane.session.run(run.names, run.feeds)
        run.error = error
        run.done(run)


@pytest_asyncio.fixture
async def cached(tmp_path: Path) -> AsyncIterator[Cached]:
    made = Cached(tmp_path)
    await made.catalog.apply("m", {1: bundle("m", 1)}, MODEL)
    yield made
    assert not made.runs
    assert made.catalog.peek("m").leases == 0, "a lease was kept"
    await made.catalog.close()


def until_one_runs(cached: Cached) -> int:
    """Ask until a request runs although there is a kept answer; how many were asked."""
    for number in range(1, RUN_EVERY_AT_FIRST + 2):
        cached.submit()
        if cached.runs:
            return number
    raise AssertionError("none ran")


async def test_a_hit_runs_now_and_then_so_that_the_time_of_a_run_stays_true(
    cached: Cached,
) -> None:
    cached.submit()
    cached.end(900 * MS)
    worth = cached.catalog.peek("m").cache.worth  # type: ignore[union-attr]
    assert worth.run_ns == 900 * MS
    assert until_one_runs(cached) == RUN_EVERY_AT_FIRST + 1
    cached.end(7 * MS)
    assert worth.run_ns == 7 * MS
    assert all(isinstance(answer, InferResponse) for answer in cached.answers)


async def test_a_run_that_only_measures_and_fails_harms_nobody(cached: Cached) -> None:
    cached.submit()
    cached.end()
    until_one_runs(cached)
    cached.end(error=ModelFailedError("it failed"))
    last = cached.answers[-1]
    assert isinstance(last, InferResponse)
    assert [each.array.tolist() for each in last.outputs] == [[[2, 2]], [[0, 0]]]
    assert last.parameters == {}
    assert cached.catalog.peek("m").statistics.fail.count == 0


async def test_who_waits_for_the_run_of_another_waits_no_longer_than_its_own_timeout(
    cached: Cached,
) -> None:
    cached.submit()
    cached.submit(timeout_us=1)
    cached.submit(timeout_us=10**9)
    assert len(cached.runs) == 1
    async with asyncio.timeout(WAIT_S):
        while not cached.answers:  # noqa: ASYNC110 - a callback, no event
            await asyncio.sleep(0)
    (answer,) = cached.answers
    assert isinstance(answer, DeadlineExceededError)
    assert cached.catalog.peek("m").statistics.failures == {"REJECTED": 1}
    cached.end()
    assert [type(each) for each in cached.answers[1:]] == [InferResponse] * 2


async def test_who_is_answered_by_the_run_of_another_counts_as_a_hit(cached: Cached) -> None:
    for _ in range(3):
        cached.submit()
    cached.end()
    loaded = cached.catalog.peek("m")
    counters = loaded.cache.counters  # type: ignore[union-attr]
    assert (counters.hits, counters.joined, counters.misses) == (0, 2, 1)
    told = model_statistics(loaded, counters).inference_stats
    assert (told.cache_hit.count, told.cache_miss.count) == (2, 1)
    assert told.cache_hit.ns > 0


async def test_a_request_that_waits_for_its_model_counts_once(cached: Cached) -> None:
    lazy = Model(cache_ttl_s=60, load="request", idle_unload_s=0.001)
    await cached.catalog.unload("m")
    await cached.catalog.apply("m", {1: bundle("m", 1)}, lazy)
    cached.submit()
    await _until(lambda: bool(cached.runs))
    cached.end()
    await _until(lambda: not cached.catalog.loaded())
    await cached.catalog.apply("m", {1: bundle("m", 1)}, Model(cache_ttl_s=60, load="request"))
    cached.submit()
    assert len(cached.answers) == 2, "what is kept needs no model"
    cached.submit(value=2)
    await _until(lambda: bool(cached.runs))
    cached.end()
    counters = cached.catalog.peek("m").cache.counters  # type: ignore[union-attr]
    assert (counters.hits, counters.misses, counters.bypassed) == (1, 2, 0)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - many conditions, no event
            await asyncio.sleep(0)
