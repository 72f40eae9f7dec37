"""The request path of a model in two versions whose traffic is split; tests end its runs."""

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from edge_runtime.catalog import Catalog
from edge_runtime.datatypes import BY_NAME
from edge_runtime.errors import EdgeRuntimeError, InvalidRequestError, ModelFailedError
from edge_runtime.inference import Inference
from edge_runtime.prediction_run import PredictionRun
from edge_runtime.protocol.messages import InferRequest, InferResponse
from edge_runtime.routing import PERMYRIAD, LoadedVersion, Traffic
from edge_runtime.tensors import Tensor
from tests.fakes import FakeLoader, bundle

if TYPE_CHECKING:
    from edge_runtime.batching import Run
    from edge_runtime.cache.predictions import PredictionCache

FP32 = BY_NAME["FP32"]
FAILED = ModelFailedError("the model failed")
ALL = Traffic(1, {2: PERMYRIAD})
Answer = InferResponse | EdgeRuntimeError


class Split:
    """A request path whose runs the test ends; a model in versions 1 and 2.

    Attributes:
        runs: Runs that were asked for and have not ended.
        answers: What the requests got.
        noted: Versions on trial that failed, and how.
    """

    def __init__(self, cache: "PredictionCache | None" = None) -> None:
        self.loader = FakeLoader()
        self.catalog = Catalog(self.loader)
        self.runs: list[PredictionRun] = []
        self.answers: list[Answer] = []
        self.noted: list[tuple[str, EdgeRuntimeError]] = []
        self.inference = Inference(self.catalog, self._execute, cache=cache)
        self.inference.fallback.noted = self._note

    def _execute(self, run: "Run") -> None:
        assert isinstance(run, PredictionRun)
        self.runs.append(run)

    def _note(self, loaded: LoadedVersion, error: EdgeRuntimeError) -> None:
        self.noted.append((loaded.version, error))

    async def serve(self, traffic: Traffic | None = ALL) -> None:
        """Load both versions, and share their requests out."""
        await self.catalog.apply("m", {1: bundle("m", 1, "one"), 2: bundle("m", 2, "two")})
        self.catalog.direct("m", traffic)

    def submit(self, asked: InferRequest | None = None) -> None:
        """Ask."""
        self.inference.submit(asked or request(), self._reply)

    def _reply(self, answer: Answer) -> EdgeRuntimeError | None:
        if isinstance(answer, InferResponse) and any(
            not output.binary and not np.isfinite(output.array).all() for output in answer.outputs
        ):
            error = InvalidRequestError("NaN")
            self.answers.append(error)
            return error
        self.answers.append(answer)
        return None

    def end(self, version: str, error: EdgeRuntimeError | None = None, value: float = 0.0) -> None:
        """End the only run, which must be of this version."""
        (run,) = self.runs
        self.runs.clear()
        assert run.version.version == version
        run.queued = run.started = run.ended = run.received
        if error is None:
            run.outputs = [array + value for array in run.lane.session.run(run.names, run.feeds)]
        run.error = error
        run.done(run)

    def answer(self) -> Answer:
        """Give the only answer."""
        (answer,) = self.answers
        return answer

    def answered_by(self) -> str:
        """Give the version of the only answer."""
        answer = self.answer()
        assert isinstance(answer, InferResponse)
        return answer.model_version

    def counts(self, version: int) -> tuple[int, Mapping[str, int], int]:
        """Give a version's successes, failures by reason, and fallbacks."""
        statistics = self.catalog.peek("m", str(version)).statistics
        return statistics.success.count, statistics.failures, statistics.fallbacks

    def is_at_rest(self) -> bool:
        """Tell whether every run has ended and every lease was given back."""
        return not self.runs and not any(each.leases for each in self.catalog.loaded())


def request(rows: int = 1) -> InferRequest:
    """Ask for the sum and the difference of ones."""
    tensor = Tensor(FP32, np.ones((rows, 2), np.float32))
    return InferRequest("m", inputs={"a": tensor, "b": tensor})


async def split_at_rest() -> AsyncIterator[Split]:
    """Give a path, and check at the end that it holds nothing: for `pytest_asyncio.fixture`."""
    made = Split()
    yield made
    assert made.is_at_rest()
    await made.catalog.close()
