"""The doors in front of the engine, ``api/compat``'s too: who asks, who waits, who gave up."""

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from edge_runtime.access import NOBODY
from edge_runtime.api import answers
from edge_runtime.api.exchange import Exchange
from edge_runtime.api.handlers import Handlers
from edge_runtime.api.routes import Router
from edge_runtime.api.tables import data_routes
from edge_runtime.catalog import Catalog
from edge_runtime.errors import EdgeRuntimeError, ModelLoadError, OverloadedError
from edge_runtime.inference import Inference
from edge_runtime.metrics import ServerStatistics
from edge_runtime.settings import Limits, Model
from tests.fakes import WAIT_S, FakeLoader, Gate, bundle

if TYPE_CHECKING:
    from edge_runtime.protocol.messages import InferRequest

pytestmark = pytest.mark.asyncio

PEER = replace(NOBODY, uid=8)
WHEN_ASKED = Model(load="request")
ROW = {"instances": [{"a": [5, 6], "b": [1, 2]}]}


class Client:
    """A connection whose requests are held before they run."""

    peer = PEER
    is_draining = False

    def __init__(self, *, is_settled: bool = True) -> None:
        self.loader = FakeLoader()
        self.catalog = Catalog(self.loader)
        self.catalog.is_settled = is_settled
        self.runs: list[Any] = []
        self.answers: list[Exchange] = []
        self.moved = asyncio.Event()
        inference = Inference(self.catalog, self._execute)
        statistics = ServerStatistics(0.0)
        self.handlers = Handlers(self.catalog, inference, statistics, self._reload, Limits())
        self._router = Router(data_routes(self.handlers))

    async def _reload(self, name: str) -> None:
        raise AssertionError(name)

    def _execute(self, run: Any) -> None:  # noqa: ANN401
        self.runs.append(run)
        self.moved.set()

    def answered(self, exchange: Exchange) -> None:
        """Take an answer."""
        self.answers.append(exchange)
        self.moved.set()

    async def something(self) -> None:
        """Wait until a request is to run or is answered."""
        async with asyncio.timeout(WAIT_S):
            await self.moved.wait()

    def send(self, method: str, target: str, body: object = None) -> Exchange:
        """Send a request."""
        exchange = Exchange(self)
        exchange.method, exchange.target = method.encode(), target.encode()
        exchange.body = b"" if body is None else json.dumps(body).encode()
        self._router.dispatch(exchange)
        return exchange


def told(exchange: Exchange) -> Any:  # noqa: ANN401 - whatever was said
    assert isinstance(exchange.answer, bytes)
    return json.loads(exchange.answer.partition(b"\r\n\r\n")[2])


async def test_the_engine_is_told_who_asks_and_which_version_the_tensors_were_made_for() -> None:
    client = Client()
    await client.catalog.apply("m", {4: bundle("m", 4)})
    client.send("POST", "/v1/models/m:predict", ROW)
    (run,) = client.runs
    request: InferRequest = run.request
    assert request.caller == PEER
    assert (request.model_name, request.model_version) == ("m", "4")


async def test_a_client_that_left_is_not_computed() -> None:
    client = Client()
    await client.catalog.apply("m", {4: bundle("m", 4)})
    exchange = client.send("POST", "/v1/models/m:predict", ROW)
    exchange.cancel()
    assert client.runs[0].request.cancelled


async def test_a_request_that_is_refused_never_reaches_the_engine() -> None:
    client = Client()
    await client.catalog.apply("m", {4: bundle("m", 4)})
    bodies: list[object] = [{}, {"instances": []}, {"instances": [{"a": [1, 2]}]}]
    for body in bodies:
        assert client.send("POST", "/v1/models/m:predict", body).status == 400
    assert client.send("POST", "/predict", {"features": [1, 2]}).status == 400
    assert client.runs == []
    assert client.catalog.peek("m").leases == 0


async def test_health_is_503_until_models_are_in_place_and_again_at_the_end() -> None:
    client = Client()
    assert client.send("GET", "/health").status == 503
    client.handlers.is_ready = True
    assert client.send("GET", "/health").status == 200
    client.handlers.is_ready = False
    exchange = client.send("GET", "/health")
    assert exchange.status == 503
    assert told(exchange)["status"] == "unavailable"


async def test_while_models_are_looked_for_a_request_without_a_name_is_told_to_come_back() -> None:
    client = Client(is_settled=False)
    await client.catalog.apply("m", {1: bundle("m", 1)})
    for exchange in (
        client.send("POST", "/predict", {"features": [1]}),
        client.send("GET", "/model-info"),
    ):
        assert exchange.status == 503
        assert isinstance(exchange.answer, bytes)
        assert b"\r\nRetry-After: 1\r\n" in exchange.answer


async def test_where_nothing_is_served_nothing_is_found() -> None:
    exchange = Client().send("GET", "/model-info")
    assert exchange.status == 404
    assert told(exchange) == {"error": "no model is served yet"}


async def test_a_default_that_is_not_served_is_not_found() -> None:
    client = Client()
    await client.catalog.apply("m", {1: bundle("m", 1)})
    client.handlers.default_model = "other"
    exchange = client.send("GET", "/model-info")
    assert exchange.status == 404
    assert "'other'" in told(exchange)["error"]
    assert client.send("GET", "/model-info?model=m").status == 200


# -- models that are loaded when asked ----------------------------------------------------------


async def test_a_model_that_was_never_loaded_is_loaded_for_the_first_request() -> None:
    client = Client()
    await client.catalog.apply("m", {4: bundle("m", 4)}, WHEN_ASKED)
    exchange = client.send("POST", "/v1/models/m:predict", ROW)
    assert client.loader.loaded == []
    await client.something()
    assert exchange.answer is None
    (run,) = client.runs
    assert run.request.model_version == "4"
    assert run.request is exchange.infer


async def test_what_is_wrong_with_a_request_is_told_after_the_load_as_well() -> None:
    client = Client()
    await client.catalog.apply("m", {4: bundle("m", 4)}, WHEN_ASKED)
    exchange = client.send("POST", "/v1/models/m:predict", {"instances": [1]})
    await client.something()
    assert exchange.status == 400
    assert client.runs == []


async def test_a_load_that_fails_is_answered() -> None:
    client = Client()
    client.loader.broken["first"] = ModelLoadError("the file is torn")
    await client.catalog.apply("m", {4: bundle("m", 4)}, WHEN_ASKED)
    exchange = client.send("POST", "/predict", {"features": [1]})
    await client.something()
    assert exchange.status in {400, 503}
    assert "torn" in told(exchange)["error"]


async def test_a_client_that_left_while_a_model_was_loaded_is_not_computed() -> None:
    client = Client()
    gate = client.loader.before = Gate()
    await client.catalog.apply("m", {4: bundle("m", 4)}, WHEN_ASKED)
    exchange = client.send("POST", "/v1/models/m:predict", ROW)
    assert await asyncio.to_thread(gate.arrived)
    exchange.cancel()
    gate.open()
    await client.something()
    assert exchange.status == 503
    assert client.runs == []


async def test_a_state_is_told_without_loading_anything() -> None:
    client = Client()
    await client.catalog.apply("m", {4: bundle("m", 4)}, WHEN_ASKED)
    exchange = client.send("GET", "/v1/models/m")
    (only,) = told(exchange)["model_version_status"]
    assert only["state"] == "AVAILABLE"
    assert only["status"] == {"error_code": "OK", "error_message": ""}
    assert client.loader.loaded == []


@pytest.mark.parametrize("target", ["/v2/models/m", "/v2/models/m/versions/4/config"])
async def test_a_description_that_nobody_waits_for_loads_nothing(target: str) -> None:
    client = Client()
    gate = client.loader.before = Gate()
    for name in ("busy", "m"):
        await client.catalog.apply(name, {4: bundle(name, 4)}, WHEN_ASKED)
    first = client.send("GET", "/v2/models/busy")
    assert await asyncio.to_thread(gate.arrived)
    left, stays = (client.send("GET", each) for each in (target, "/v2/models/busy/config"))
    left.cancel()
    gate.open()
    async with asyncio.timeout(WAIT_S):
        while len(client.answers) < 3:
            client.moved.clear()
            await client.moved.wait()
    assert [each.status for each in (first, left, stays)] == [200, 503, 200]
    assert [each.name for each in client.loader.loaded] == ["busy"]


async def test_a_description_that_fails_after_the_load_is_answered_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(answers, "model_config", fail)
    client = Client()
    await client.catalog.apply("m", {4: bundle("m", 4)}, WHEN_ASKED)
    exchange = client.send("GET", "/v2/models/m/config")
    await client.something()
    assert exchange.status == 500
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("POST", "/v2/models/m/versions/4/infer", 400),
        ("POST", "/v1/models/m/versions/4:predict", 400),
        ("GET", "/v2/models/m/versions/4/ready", 503),
        ("GET", "/v2/models/m/versions/4", 503),
    ],
)
async def test_what_is_refused_before_it_is_decoded_tells_the_log_which_model_was_asked(
    method: str, target: str, status: int
) -> None:
    client = Client()
    await client.catalog.apply("m", {4: bundle("m", 4)})
    if method == "GET":
        await client.catalog.unload("m")
    exchange = client.send(method, target, 5)
    assert exchange.status == status
    assert exchange.infer is not None
    assert (exchange.infer.model_name, exchange.infer.model_version) == ("m", "4")


class Full:
    """A queue that takes nothing more."""

    is_full = True

    def refusal(self, *_: object) -> EdgeRuntimeError:
        """Say so."""
        return OverloadedError("full", retry_after_s=1)


async def test_what_a_full_queue_refuses_tells_the_log_which_model_was_asked() -> None:
    client = Client()
    await client.catalog.apply("m", {4: bundle("m", 4)})
    client.catalog.peek("m").cache = None  # it has not opted in
    client.handlers.inference.backlog = Full()
    exchange = client.send("POST", "/v2/models/m/infer", 5)
    assert exchange.status == 503
    assert exchange.infer is not None
    assert exchange.infer.model_name == "m"
