"""The key that a split goes by, through every door: parameter, header, connection."""

import asyncio
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.access import NOBODY
from edge_runtime.api.exchange import Exchange
from edge_runtime.api.handlers import Handlers
from edge_runtime.api.http import Budget, Reception
from edge_runtime.api.routes import Router
from edge_runtime.api.tables import data_routes
from edge_runtime.api.timeouts import Timeouts
from edge_runtime.catalog import Catalog
from edge_runtime.datatypes import BY_NAME
from edge_runtime.errors import InvalidRequestError, ModelFailedError
from edge_runtime.inference import Inference
from edge_runtime.metrics import ServerStatistics
from edge_runtime.protocol import codec
from edge_runtime.protocol.messages import ROUTING_KEY_BYTES_MAX, InferRequest
from edge_runtime.routing import PERMYRIAD, Traffic, bucket
from edge_runtime.settings import Limits
from edge_runtime.tensors import VARIABLE, Signature, Tensor, TensorSpec
from tests.fakes import TWO_INPUTS, FakeLoader, bundle

if TYPE_CHECKING:
    from edge_runtime.prediction_run import PredictionRun

X = np.ones((1, 2), np.float32)
ROW = {"instances": [{"a": [5, 6], "b": [1, 2]}]}
KEYS = [f"camera-{number}" for number in range(40)]
HALF = Traffic(1, {2: PERMYRIAD // 2})


def body(**parameters: object) -> tuple[bytes, int]:
    """Make a binary request with parameters: what it is and how long its JSON."""
    inputs = [
        {"name": name, "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
        for name in ("a", "b")
    ]
    text = json.dumps({"inputs": inputs, "parameters": parameters}).encode()
    return text + X.tobytes() * 2, len(text)


# -- the parameter -------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "key"), [("cam", "cam"), (7, "7"), (-1, "-1"), ("", "")])
def test_the_parameter_is_a_text_or_a_whole_number(given: object, key: str) -> None:
    for _ in range(2):  # decoded, and remembered
        assert codec.decode_request(*body(routing_key=given)).routing_key == key


@pytest.mark.parametrize("given", [True, 1.5, "x" * (ROUTING_KEY_BYTES_MAX + 1), "ü" * 129])
def test_anything_else_is_refused(given: object) -> None:
    with pytest.raises(InvalidRequestError, match="routing_key"):
        codec.decode_request(*body(routing_key=given))


@given(st.lists(st.text(max_size=10), min_size=1, max_size=5))
def test_what_is_remembered_of_one_request_never_becomes_the_key_of_another(
    keys: list[str],
) -> None:
    for key in keys * 2:
        assert codec.decode_request(*body(routing_key=key)).routing_key == key
        assert codec.decode_request(*body()).routing_key == ""


def test_a_client_can_send_it() -> None:
    tensor = Tensor(BY_NAME["FP32"], X)
    asked = InferRequest("m", inputs={"x": tensor}, routing_key="cam")
    for binary in (True, False):
        parts, json_length = codec.encode_request(asked, binary=binary)
        assert codec.decode_request(b"".join(parts), json_length).routing_key == "cam"


# -- the header ----------------------------------------------------------------------------------


class Recorder(Reception):
    """A receiving half that notes the keys that it received."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(Limits(), Timeouts(loop), Budget())
        self.keys: list[str] = []
        self.refused: list[tuple[int, str]] = []

    def read(self, data: bytes) -> None:
        """Receive these bytes in one read."""
        self.get_buffer(-1)[: len(data)] = data
        self.buffer_updated(len(data))

    def _received(self, exchange: Exchange) -> None:
        self.keys.append(exchange.routing_key)

    def _refuse(self, status: int, message: str) -> None:
        self._abandon()
        self.refused.append((status, message))


def _head(*lines: bytes) -> bytes:
    return b"\r\n".join((b"POST / HTTP/1.1", b"Host: x", *lines, b"Content-Length: 0", b"", b""))


@pytest.mark.asyncio
async def test_the_header_is_read_each_time_and_no_request_inherits_it() -> None:
    recorder = Recorder()
    one, two = _head(b"Edge-Routing-Key: one"), _head(b"edge-routing-key:  gr\xc3\xbcn")
    for each in (one, one, _head(), one, two, two, _head(), _head(), one):
        recorder.read(each)
    assert recorder.keys == ["one", "one", "", "one", "grün", "grün", "", "", "one"]


@pytest.mark.asyncio
async def test_a_header_that_is_too_long_is_refused_and_any_other_is_a_key() -> None:
    recorder = Recorder()
    recorder.read(_head(b"Edge-Routing-Key: " + b"x" * ROUTING_KEY_BYTES_MAX))
    recorder.read(_head(b"Edge-Routing-Key: \xff\xfe"))
    assert recorder.keys == ["x" * ROUTING_KEY_BYTES_MAX, "\ufffd\ufffd"]
    recorder.read(_head(b"Edge-Routing-Key: " + b"x" * (ROUTING_KEY_BYTES_MAX + 1)))
    ((status, message),) = recorder.refused
    assert status == 400
    assert "Edge-Routing-Key" in message


# -- every door ----------------------------------------------------------------------------------


class Client:
    """A connection whose requests are held before they run."""

    peer = NOBODY
    is_draining = False

    def __init__(self, signature: Signature = TWO_INPUTS) -> None:
        self.catalog = Catalog(FakeLoader(signature))
        self.runs: list[PredictionRun] = []
        inference = Inference(self.catalog, self._execute)
        self.handlers = Handlers(
            self.catalog, inference, ServerStatistics(0.0), self._reload, Limits()
        )
        self._router = Router(data_routes(self.handlers))

    async def serve(self, traffic: Traffic) -> None:
        """Load two versions, and share their requests out."""
        await self.catalog.apply("m", {1: bundle("m", 1), 2: bundle("m", 2)})
        self.catalog.direct("m", traffic)

    async def _reload(self, name: str) -> None:
        raise AssertionError(name)

    def _execute(self, run: Any) -> None:  # noqa: ANN401
        self.runs.append(run)

    def answered(self, exchange: Exchange) -> None:
        """Take an answer: the exchange has it."""

    def send(
        self, target: str, content: object = None, key: str = "", json_length: int | None = None
    ) -> Exchange:
        """Send a request."""
        exchange = Exchange(self, method=b"GET" if content is None else b"POST")
        exchange.target, exchange.routing_key = target.encode(), key
        exchange.json_length = json_length
        if content is not None:
            exchange.body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self._router.dispatch(exchange)
        return exchange

    def end(self, *, fails: bool = False) -> str:
        """End the only run; give its version."""
        (run,) = self.runs
        self.runs.clear()
        if fails:
            run.error = ModelFailedError("the model failed")
        elif len(run.names) == 1:
            run.outputs = [X]
        else:
            run.outputs = run.lane.session.run(run.names, run.feeds)
        run.done(run)
        return run.version.version


def told(exchange: Exchange) -> Any:  # noqa: ANN401 - whatever was said
    assert isinstance(exchange.answer, bytes)
    return json.loads(exchange.answer.partition(b"\r\n\r\n")[2])


def wanted(key: str) -> str:
    """Say which version a key has to lead to."""
    return "2" if bucket("m", key) < PERMYRIAD // 2 else "1"


DOORS = {
    "v2": ("/v2/models/m/infer", body()[0], body()[1]),
    "tensorflow": ("/v1/models/m:predict", ROW, None),
    "plain": ("/predict", {"features": [5, 6], "model": "m"}, None),
}
_X, _Y = (TensorSpec(name, BY_NAME["FP32"], (VARIABLE, 2), ("batch", None)) for name in "xy")
SIGNATURES = {"plain": Signature([_X], [_Y])}


@pytest.mark.asyncio
@pytest.mark.parametrize("door", DOORS)
async def test_every_door_follows_the_header(door: str) -> None:
    client = Client(SIGNATURES.get(door, TWO_INPUTS))
    await client.serve(HALF)
    target, content, json_length = DOORS[door]
    for key in KEYS:
        exchange = client.send(target, content, key, json_length)
        assert client.end() == wanted(key)
        assert exchange.status == 200
    assert {wanted(key) for key in KEYS} == {"1", "2"}


@pytest.mark.asyncio
@pytest.mark.parametrize("door", ["tensorflow", "plain"])
async def test_the_other_doors_take_the_key_in_the_body_too(door: str) -> None:
    client = Client(SIGNATURES.get(door, TWO_INPUTS))
    await client.serve(HALF)
    target, content, _ = DOORS[door]
    assert isinstance(content, dict)
    for key, other in zip([*KEYS, 7, 0], [*reversed(KEYS), "7", "1"], strict=True):
        exchange = client.send(target, {**content, "routing_key": key}, other)
        assert client.end() == wanted(str(key))
        assert exchange.status == 200
        client.send(target, {**content, "routing_key": ""}, other)
        assert client.end() == wanted(other)


@pytest.mark.asyncio
@pytest.mark.parametrize("door", ["tensorflow", "plain"])
@pytest.mark.parametrize("key", [True, 1.5, None, ["x"], "ü" * 129])
async def test_the_other_doors_refuse_what_is_no_key(door: str, key: object) -> None:
    client = Client(SIGNATURES.get(door, TWO_INPUTS))
    await client.serve(HALF)
    target, content, _ = DOORS[door]
    assert isinstance(content, dict)
    exchange = client.send(target, {**content, "routing_key": key})
    assert exchange.status == 400
    assert "routing_key" in told(exchange)["error"]
    assert client.runs == []


@pytest.mark.asyncio
async def test_the_parameter_wins_over_the_header() -> None:
    client = Client()
    await client.serve(HALF)
    for key, other in zip(KEYS, reversed(KEYS), strict=True):
        content, json_length = body(routing_key=key)
        client.send("/v2/models/m/infer", content, other, json_length)
        assert client.end() == wanted(key)


@pytest.mark.asyncio
@pytest.mark.parametrize("door", DOORS)
async def test_every_door_answers_from_the_proven_version_where_the_other_fails(door: str) -> None:
    client = Client(SIGNATURES.get(door, TWO_INPUTS))
    await client.serve(Traffic(1, {2: PERMYRIAD}))
    target, content, json_length = DOORS[door]
    exchange = client.send(target, content, "", json_length)
    assert client.end(fails=True) == "2"
    assert client.end() == "1"
    assert exchange.status == 200


@pytest.mark.asyncio
async def test_a_version_in_the_path_gets_that_version_and_its_failure() -> None:
    client = Client()
    await client.serve(Traffic(1, {2: PERMYRIAD}))
    for target, version in (
        ("/v1/models/m/versions/2:predict", "2"),
        ("/v1/models/m/labels/stable:predict", "1"),
        ("/v1/models/m/versions/1:predict", "1"),
    ):
        exchange = client.send(target, ROW)
        assert client.end(fails=True) == version
        assert exchange.status == 500


@pytest.mark.asyncio
async def test_who_describes_a_model_sees_its_default_and_how_traffic_is_split() -> None:
    client = Client()
    await client.serve(Traffic(1, {2: 250}))
    properties = told(client.send("/v2/models/m"))["properties"]
    assert properties["version"] == "1"
    assert properties["traffic"] == "1=97.5%, 2=2.5%"
    described = told(client.send("/v1/models/m/metadata"))
    assert described["model_spec"]["version"] == "1"
    client.catalog.direct("m", None)
    assert "traffic" not in told(client.send("/v2/models/m"))["properties"]


@pytest.mark.asyncio
async def test_the_statistics_are_those_of_each_version() -> None:
    client = Client()
    await client.serve(Traffic(1, {2: PERMYRIAD}))
    client.send("/v1/models/m:predict", ROW)
    client.end(fails=True)
    client.end()
    client.send("/v1/models/m:predict", ROW)
    client.end()
    found = {
        each["version"]: (
            each["inference_stats"]["success"]["count"],
            each["inference_stats"]["fail"]["count"],
        )
        for each in told(client.send("/v2/models/m/stats"))["model_stats"]
    }
    assert found == {"1": (1, 0), "2": (1, 1)}
    (one, two) = client.handlers.sources.versions()
    assert (one.share, two.share) == (0.0, 1.0)
    assert two.statistics is not None
    assert two.statistics.fallbacks == 1
