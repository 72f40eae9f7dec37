"""Predictions that wait for a load: they count among their user's, and the wait is queue time."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace as changed
from time import perf_counter_ns

import numpy as np
import pytest
import pytest_asyncio

from edge_runtime import absence
from edge_runtime.access import NOBODY
from edge_runtime.batching import Batch, Run
from edge_runtime.catalog import Catalog
from edge_runtime.datatypes import BY_NAME
from edge_runtime.errors import (
    DeadlineExceededError,
    EdgeRuntimeError,
    ModelLoadError,
    OverloadedError,
)
from edge_runtime.inference import Inference
from edge_runtime.prediction import reason_of
from edge_runtime.protocol.messages import InferRequest, InferResponse
from edge_runtime.settings import Model
from edge_runtime.tensors import Tensor
from tests.fakes import WAIT_S, FakeLoader, Gate, bundle

pytestmark = pytest.mark.asyncio

LIMIT = 2
WAITING_MAX = 3
MINE, THEIRS = 1, 2


class Path:
    """The request path, whose runs are executed when the test says so."""

    def __init__(self) -> None:
        self.loader = FakeLoader()
        self.gate = self.loader.before = Gate()
        self.catalog = Catalog(self.loader, waiting_max=WAITING_MAX)
        self.runs: list[Run] = []
        self.inference = Inference(self.catalog, self._execute, requests_per_user=LIMIT)
        self.inference.tells_spent = True

    def _execute(self, run: Run) -> None:
        run.queued = perf_counter_ns()  # as the scheduler does
        self.runs.append(run)

    def ask(self, user: int | None = MINE) -> tuple[InferRequest, list[object]]:
        """Ask for a prediction; gives the request and its answers."""
        tensor = Tensor(BY_NAME["FP32"], np.ones((1, 2), np.float32))
        caller = changed(NOBODY, uid=user)
        request = InferRequest("m", inputs={"a": tensor, "b": tensor}, caller=caller)
        answers: list[object] = []

        def reply(answer: InferResponse | EdgeRuntimeError) -> None:
            answers.append(answer)

        self.inference.submit(request, reply)
        return request, answers

    def run_all(self) -> None:
        """Run what is to run."""
        runs, self.runs = self.runs, []
        for run in runs:
            batch = Batch(run)
            batch.execute()
            run.started, run.ended, run.error = batch.started, batch.ended, batch.error
            run.done(run)
            batch.count()

    async def settle(self) -> None:
        """Let the load that goes on end."""
        self.gate.open()
        for _ in range(30):
            await self.catalog.off_loop(lambda: None)
            await asyncio.sleep(0)


@pytest_asyncio.fixture
async def path() -> AsyncIterator[Path]:
    made = Path()
    await made.catalog.apply("m", {1: bundle("m", 1)}, Model(load="request"))
    yield made
    made.gate.open()
    async with asyncio.timeout(WAIT_S):
        await made.catalog.close()


async def test_requests_that_wait_for_a_load_count_among_their_user_s_unanswered(
    path: Path,
) -> None:
    waiting = [path.ask()[1] for _ in range(LIMIT)]
    (refused,) = path.ask()[1]
    assert isinstance(refused, OverloadedError)
    assert refused.retry_after_s == 1
    assert "limits.requests_per_user" in refused.message
    theirs = path.ask(THEIRS)[1]
    assert theirs == [], "another user's may wait"
    await path.settle()
    assert len(path.runs) == LIMIT + 1, "none of those that waited is refused when it may run"
    (still,) = path.ask()[1]
    assert isinstance(still, OverloadedError)
    path.run_all()
    assert all(isinstance(answers[0], InferResponse) for answers in [*waiting, theirs])
    assert path.ask()[1] == [], "the places are free again"
    path.run_all()


async def test_where_no_more_may_wait_the_user_with_most_gives_way(path: Path) -> None:
    path.inference.requests_per_user = WAITING_MAX
    waiting = [path.ask()[1] for _ in range(WAITING_MAX)]
    theirs = path.ask(THEIRS)[1]
    assert [len(each) for each in waiting] == [0] * (WAITING_MAX - 1) + [1]
    assert isinstance(waiting[-1][0], OverloadedError)
    await path.settle()
    path.run_all()
    assert isinstance(theirs[0], InferResponse)


async def test_a_load_that_fails_gives_the_places_back(path: Path) -> None:
    path.loader.broken["first"] = ModelLoadError("no good")
    answers = [path.ask()[1] for _ in range(LIMIT)]
    await path.settle()
    assert all(len(each) == 1 for each in answers)
    for _ in range(2 * LIMIT):  # no try now: refused at once, and not for too many
        (error,) = path.ask()[1]
        assert not isinstance(error, OverloadedError)


async def test_the_wait_for_a_load_counts_as_queue_time_and_not_as_work_on_inputs(
    path: Path,
) -> None:
    began = perf_counter_ns()
    request, answers = path.ask()
    asked = perf_counter_ns()
    assert await asyncio.to_thread(path.gate.arrived)
    loading = perf_counter_ns()
    await path.settle()
    (ran,) = path.runs
    path.run_all()
    assert isinstance(answers[0], InferResponse)
    ended = perf_counter_ns()
    statistics = path.catalog.peek("m").statistics
    assert request.spent is not None
    received = request.spent.received
    assert began <= received <= asked
    waited_ns = ran.received - received
    assert ran.received >= loading
    assert statistics.queue.ns == request.spent.queue_ns == waited_ns + ran.started - ran.queued
    assert statistics.input_ns == ran.queued - ran.received
    assert statistics.input_ns + statistics.queue.ns <= statistics.success.ns <= ended - began
    again = perf_counter_ns()
    path.ask()
    (run,) = path.runs
    assert again <= run.received <= run.queued, "one that did not wait is not charged for it"
    path.run_all()


async def test_a_timeout_goes_on_while_a_request_waits_for_a_load(path: Path) -> None:
    tensor = Tensor(BY_NAME["FP32"], np.ones((1, 2), np.float32))
    request = InferRequest("m", inputs={"a": tensor, "b": tensor}, timeout_us=60_000_000)
    began = perf_counter_ns()
    path.inference.submit(request, lambda _: None)
    asked = perf_counter_ns()
    await path.settle()
    (run,) = path.runs
    assert began <= run.deadline_ns - 60_000_000_000 <= asked
    path.run_all()


async def test_a_timeout_that_passes_during_a_load_is_rejected_and_not_canceled(
    path: Path,
) -> None:
    tensor = Tensor(BY_NAME["FP32"], np.ones((1, 2), np.float32))
    late = InferRequest("m", inputs={"a": tensor, "b": tensor}, timeout_us=1)
    answers: list[object] = []
    path.inference.submit(late, answers.append)
    await path.settle()
    (error,) = answers
    assert isinstance(error, DeadlineExceededError)
    assert reason_of(error) == "REJECTED"
    assert path.loader.loaded == [], "nobody else wanted it"


@pytest.mark.parametrize("longest_s", [0.001, 86_400.0], ids=["in steps", "at once"])
async def test_a_timeout_that_passes_is_answered_while_the_load_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch, longest_s: float
) -> None:
    monkeypatch.setattr(absence, "_DELAY_MAX_S", longest_s)
    patient = path.ask()[1]
    assert await asyncio.to_thread(path.gate.arrived)
    tensor = Tensor(BY_NAME["FP32"], np.ones((1, 2), np.float32))
    hasty = InferRequest("m", inputs={"a": tensor, "b": tensor}, timeout_us=20_000)
    answered: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    path.inference.submit(hasty, answered.set_result)
    assert path.catalog.waiting == 2
    async with asyncio.timeout(WAIT_S):
        assert isinstance(await answered, DeadlineExceededError)
    assert path.loader.loaded == [], "the load has not ended"
    assert path.catalog.waiting == 1
    assert patient == []
    await path.settle()
    path.run_all()
    assert isinstance(patient[0], InferResponse)


async def test_the_longest_timeout_that_can_be_stated_waits_for_the_load(path: Path) -> None:
    tensor = Tensor(BY_NAME["FP32"], np.ones((1, 2), np.float32))
    answers: list[object] = []
    request = InferRequest("m", inputs={"a": tensor, "b": tensor}, timeout_us=2**64 - 1)
    path.inference.submit(request, answers.append)
    await path.settle()
    path.run_all()
    assert isinstance(answers[0], InferResponse)
