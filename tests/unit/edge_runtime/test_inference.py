"""The request path: every way out answers once, counts once and gives the lease back."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
import pytest_asyncio
from msgspec.structs import replace

from edge_runtime.access import Peer
from edge_runtime.batching import Lane
from edge_runtime.callers import Callers
from edge_runtime.catalog import Catalog
from edge_runtime.datatypes import BY_NAME, BYTES, Datatype
from edge_runtime.errors import (
    DeadlineExceededError,
    EdgeRuntimeError,
    InvalidRequestError,
    InvalidTensorError,
    ModelFailedError,
    ModelNotFoundError,
    OverloadedError,
    UnavailableError,
)
from edge_runtime.inference import Inference
from edge_runtime.protocol.messages import InferRequest, InferResponse, RequestedOutput
from edge_runtime.tensors import VARIABLE, Array, Signature, Tensor, TensorSpec
from tests.fakes import TWO_INPUTS, FakeLoader, FakeSession, bundle

if TYPE_CHECKING:
    from edge_runtime.batching import Run

pytestmark = pytest.mark.asyncio

FP32 = BY_NAME["FP32"]
Answer = InferResponse | EdgeRuntimeError


class Path:
    """The request path in front of something that holds the runs."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.runs: list[Run] = []
        self.answers: list[Answer] = []
        self.unspeakable: EdgeRuntimeError | None = None
        self.inference = Inference(catalog, self.runs.append)

    def submit(self, request: InferRequest) -> None:
        """Submit a request."""
        self.inference.submit(request, self._reply)

    def _reply(self, answer: Answer) -> EdgeRuntimeError | None:
        self.answers.append(answer)
        return self.unspeakable

    def refused(self, request: InferRequest) -> EdgeRuntimeError:
        """Submit a request that must be refused before it runs."""
        self.submit(request)
        (answer,) = self.answers
        assert self.runs == []
        assert isinstance(answer, EdgeRuntimeError)
        return answer

    def finish(self, *outputs: Array, error: EdgeRuntimeError | None = None) -> Answer:
        """End the only run."""
        (run,) = self.runs
        run.outputs = [*outputs] or run.lane.session.run(run.names, run.feeds)
        run.error = error
        run.done(run)
        (answer,) = self.answers
        return answer

    def counts(self) -> tuple[int, int, int]:
        """Give successes, failures and leases; each request is one of the first two."""
        version = self.catalog.peek("m")
        return version.statistics.success.count, version.statistics.fail.count, version.leases


async def serving(signature: Signature = TWO_INPUTS) -> Path:
    catalog = Catalog(FakeLoader(signature))
    await catalog.apply("m", {4: bundle("m", 4)})
    return Path(catalog)


@pytest_asyncio.fixture
async def path() -> AsyncIterator[Path]:
    made = await serving()
    yield made
    assert made.counts()[2] == 0, "a lease was kept"
    await made.catalog.close()


def tensor(rows: int = 1, datatype: Datatype = FP32) -> Tensor:
    return Tensor(datatype, np.ones((rows, 2), datatype.numpy))


def request(rows: int = 1) -> InferRequest:
    return InferRequest("m", inputs={"a": tensor(rows), "b": tensor(rows)})


async def test_answer_names_what_answered_and_gives_the_id_back(path: Path) -> None:
    path.submit(replace(request(), id="mine"))
    assert path.counts() == (0, 0, 1)
    answer = path.finish()
    assert isinstance(answer, InferResponse)
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "4", "mine")
    assert [output.name for output in answer.outputs] == ["sum", "difference"]
    assert not any(output.binary for output in answer.outputs)
    assert path.counts() == (1, 0, 0)


async def test_outputs_are_those_asked_for_in_that_order(path: Path) -> None:
    outputs = (RequestedOutput("difference", binary=True), RequestedOutput("sum"))
    path.submit(replace(request(), outputs=outputs))
    answer = path.finish()
    assert isinstance(answer, InferResponse)
    assert [(output.name, output.binary) for output in answer.outputs] == [
        ("difference", True),
        ("sum", False),
    ]
    assert path.runs[0].names == ("difference", "sum")


async def test_all_outputs_are_binary_if_the_request_says_so(path: Path) -> None:
    path.submit(replace(request(), binary_outputs=True))
    answer = path.finish()
    assert isinstance(answer, InferResponse)
    assert all(output.binary for output in answer.outputs)


async def test_run_carries_rows_priority_and_deadline(path: Path) -> None:
    path.submit(replace(request(rows=3), priority=2, timeout_us=5))
    (run,) = path.runs
    assert (run.rows, run.size, run.priority) == (3, 3, 2)
    assert run.deadline_ns == run.received + 5000
    assert run.lane is path.catalog.peek("m").lane
    path.finish()


async def test_without_a_timeout_there_is_no_deadline(path: Path) -> None:
    path.submit(request())
    assert path.runs[0].deadline_ns == 0
    path.finish()


async def test_run_belongs_to_the_user_who_asks(path: Path) -> None:
    path.submit(replace(request(), caller=Peer(1001, 100, 7, "unix")))
    assert path.runs[0].client == 1001
    path.finish()


async def test_user_with_too_many_unanswered_requests_is_refused_and_nobody_else(
    path: Path,
) -> None:
    path.inference.requests_per_user = 2
    for uid in (1, 1, 1, 2):
        path.submit(replace(request(), caller=Peer(uid, uid, 7, "unix")))
    assert [run.client for run in path.runs] == [1, 1, 2]
    (refused,) = path.answers
    assert isinstance(refused, OverloadedError)
    assert refused.retry_after_s == 1
    assert path.counts() == (0, 1, 3)
    for run in path.runs:
        run.error = ModelFailedError("why")
        run.done(run)
    path.submit(replace(request(), caller=Peer(1, 1, 7, "unix")))
    assert len(path.runs) == 4
    path.runs[3].error = ModelFailedError("why")
    path.runs[3].done(path.runs[3])


class Full:
    """A backlog that has no room for anybody."""

    is_full = True

    def refusal(self, lane: Lane, client: int | None) -> EdgeRuntimeError | None:
        """Refuse."""
        del lane, client
        return OverloadedError("full")


async def test_request_that_a_full_queue_would_refuse_is_refused_and_counted_undecoded(
    path: Path,
) -> None:
    inference = path.inference
    assert inference.refusal("m", "", Peer(1, 1, 1, "")) is None, "there is room"
    path.submit(request())
    path.finish()
    inference.backlog = Full()
    for version in ("", "4"):
        assert isinstance(inference.refusal("m", version, Peer(1, 1, 1, "")), OverloadedError)
    assert path.counts() == (1, 2, 0)
    assert path.catalog.peek("m").statistics.failures == {"REJECTED": 2}


async def test_only_who_would_come_to_the_full_queue_is_refused_by_it(path: Path) -> None:
    inference, peer = path.inference, Peer(1, 1, 1, "")
    inference.backlog = Full()
    assert inference.refusal("m", "", peer) is None, "there may be a cached answer"
    path.submit(request())
    path.finish()
    assert inference.refusal("other", "", peer) is None
    assert inference.refusal("m", "5", peer) is None
    inference.callers = {"m": Callers(frozenset({2}), frozenset())}
    assert inference.refusal("m", "", peer) is None
    assert path.counts() == (1, 0, 0)


async def test_client_that_leaves_cancels_its_run(path: Path) -> None:
    leaving = request()
    path.submit(leaving)
    leaving.cancelled = True
    assert path.runs[0].request.cancelled
    path.finish(error=UnavailableError("the client is gone"))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"inputs": {}}, InvalidTensorError, "missing 'a', 'b'"),
        ({"inputs": {"a": tensor(1), "b": tensor(2)}}, InvalidTensorError, "must agree on axis"),
        ({"outputs": (RequestedOutput("z"),)}, InvalidRequestError, r"no output 'z'.*\['sum', 'd"),
        ({"raw_input": bytes(8)}, InvalidTensorError, "one input, this one has 2"),
    ],
)
async def test_request_that_does_not_fit_is_refused_and_counted(
    path: Path, change: dict[str, object], error: type[EdgeRuntimeError], message: str
) -> None:
    with pytest.raises(error, match=message):
        raise path.refused(replace(request(), **change))
    assert path.counts() == (0, 1, 0)
    assert path.catalog.peek("m").statistics.failures == {"OTHER": 1}


async def test_unknown_model_is_refused(path: Path) -> None:
    assert isinstance(path.refused(InferRequest("nobody")), ModelNotFoundError)
    assert path.counts() == (0, 0, 0)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OverloadedError("why"), "REJECTED"),
        (DeadlineExceededError("why"), "REJECTED"),
        (UnavailableError("why"), "CANCELED"),
        (InvalidTensorError("why"), "OTHER"),
        (ModelFailedError("why"), "BACKEND"),
    ],
)
async def test_failure_is_counted_under_tritons_word(
    path: Path, error: EdgeRuntimeError, reason: str
) -> None:
    path.submit(request())
    assert path.finish(error=error) is error
    assert path.catalog.peek("m").statistics.failures == {reason: 1}
    assert path.counts() == (0, 1, 0)


async def test_answer_that_cannot_be_said_is_counted_as_a_failure(path: Path) -> None:
    path.unspeakable = InvalidRequestError("NaN")
    path.submit(request())
    path.finish()
    assert path.counts() == (0, 1, 0)


async def test_defect_of_ours_is_answered_too(path: Path) -> None:
    path.submit(replace(request(), outputs=(RequestedOutput("sum", classes=1),)))
    answer = path.finish(np.array([[b"no number"]], object))
    assert isinstance(answer, ModelFailedError)
    assert path.counts() == (0, 1, 0)


# -- classification and raw binary --------------------------------------------------------------


def one(datatype: Datatype, shape: tuple[int, ...], labels: tuple[str, ...] = ()) -> Signature:
    specs = [TensorSpec(name, datatype, shape, labels=labels) for name in ("x", "y")]
    return Signature(specs[:1], specs[1:])


async def test_classes_are_text_with_the_labels_of_the_output() -> None:
    path = await serving(one(FP32, (VARIABLE, 2), ("no", "yes")))
    outputs = (RequestedOutput("y", classes=1),)
    path.submit(InferRequest("m", inputs={"x": tensor()}, outputs=outputs))
    answer = path.finish(np.array([[0.25, 0.75]], "<f4"))
    assert isinstance(answer, InferResponse)
    assert answer.outputs[0].datatype is BYTES
    assert answer.outputs[0].array.tolist() == [["0.750000:1:yes"]]
    await path.catalog.close()


@pytest.mark.parametrize("name", ["BYTES", "BF16", "BOOL"])
async def test_classification_of_what_has_no_order_is_refused(name: str) -> None:
    datatype = BY_NAME[name]
    path = await serving(one(datatype, (VARIABLE, 2)))
    outputs = (RequestedOutput("y", classes=1),)
    asked = InferRequest("m", inputs={"x": tensor(datatype=datatype)}, outputs=outputs)
    error = path.refused(asked)
    assert error.message == f"output 'y' is {name}: classification needs numbers that can be ranked"
    await path.catalog.close()


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "result"),
    [
        ("FP32", (VARIABLE, 2), bytes(16), (2, 2)),
        ("FP32", (VARIABLE, 2), b"", (0, 2)),
        ("INT8", (2, VARIABLE), bytes(6), (2, 3)),
        ("INT8", (2, 2), bytes(4), (2, 2)),
        ("BF16", (VARIABLE,), bytes(4), (2,)),
        ("BYTES", (1,), b"a\0b", (1,)),
        ("BYTES", (VARIABLE, 1), b"", (1, 1)),
    ],
)
async def test_raw_body_is_shaped_by_the_only_input(
    datatype: str, shape: tuple[int, ...], data: bytes, result: tuple[int, ...]
) -> None:
    path = await serving(one(BY_NAME[datatype], shape))
    path.submit(InferRequest("m", raw_input=data))
    (run,) = path.runs
    array = run.feeds["x"]
    assert array.shape == result
    if datatype == "BYTES":
        assert array.reshape(-1).tolist() == [data.decode()]
    else:
        assert array.tobytes() == data
    path.finish(array)
    await path.catalog.close()


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "message"),
    [
        ("FP32", (VARIABLE, 2), bytes(12), r"needs 8 bytes, the request has 12"),
        ("FP32", (2, 2), bytes(4), r"needs 16 bytes, the request has 4"),
        ("FP32", (VARIABLE, VARIABLE), bytes(8), "at most one varying axis"),
        ("FP32", (VARIABLE, 0), bytes(8), "needs 0 bytes, the request has 8"),
        ("BYTES", (2,), b"a", r"one BYTES element, 'x' has shape \[2\]"),
        ("BYTES", (1,), b"\xff", "is not UTF-8"),
        ("BOOL", (VARIABLE,), b"\2", "one byte, 0 or 1"),
    ],
)
async def test_raw_body_of_another_size_is_refused(
    datatype: str, shape: tuple[int, ...], data: bytes, message: str
) -> None:
    path = await serving(one(BY_NAME[datatype], shape))
    with pytest.raises(InvalidTensorError, match=message):
        raise path.refused(InferRequest("m", raw_input=data))
    await path.catalog.close()


async def test_run_uses_the_session_of_the_version_that_was_leased(path: Path) -> None:
    path.submit(request())
    assert isinstance(path.runs[0].lane.session, FakeSession)
    assert path.runs[0].lane.session is path.catalog.peek("m").session
    path.finish()
