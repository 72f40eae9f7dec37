"""What is wrong with a request is said with a clear 4xx, and the next good request is answered."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from edge_runtime.api.exchange import MESSAGE_CHARS_MAX
from tests.daemons import Daemon
from tests.models import divide, gather, identity, two_inputs
from tests.wire import Wire, infer, numbers, request

pytestmark = pytest.mark.integration

PATH = "/v2/models/m/infer"
GOOD: dict[str, Any] = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
A = {**GOOD, "name": "a"}
LENGTH_AND_CHUNKS = (
    b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
)
INT = {"name": "x", "shape": [1], "datatype": "INT64"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("models")
    models = [
        f"m={identity(folder / 'm.onnx')}",
        f"text={identity(folder / 'text.onnx', 'BYTES', ('n',))}",
        f"two={two_inputs(folder / 'two.onnx')}",
        f"divide={divide(folder / 'divide.onnx')}",
        f"gather={gather(folder / 'gather.onnx')}",
    ]
    with Daemon(models) as running:
        yield running
        assert "Traceback" not in running.log()


def check(daemon: Daemon, sent: bytes, status: int, *words: str) -> None:
    """Send something bad, then something good; on one connection if the first allows it."""
    with Wire.of(daemon) as wire:
        wire.send(sent)
        answer = wire.answer()
        assert answer.status == status, answer.body
        assert answer.headers["Content-Type"] == "application/json"
        error = answer.json()["error"]
        for word in words:
            assert word in error
        assert "Traceback" not in error
        assert "File " not in error
        if answer.headers.get("Connection") != "close":
            wire.send(infer("m", [[3, 4]]))
            assert numbers(wire.answer()) == [3, 4]
    assert daemon.infer("m", [GOOD]).status == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), 400),  # TLS
        (b"BREW /v2 HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (b"GET /v2\r\n\r\n", 505),
        (b"GET /v2 HTTP/0.9\r\nHost: x\r\n\r\n", 505),
        (b"GET /v2 HTTP/1.2\r\nHost: x\r\n\r\n", 505),
        (b"GET /v2 HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"GET /v2 HTTP/9.9\r\nHost: x\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /v2 HTTP/1.1\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nHost: x\r\nBad Name: y\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", 400),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 1e3\r\n\r\n", 400),
        (b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n", 400),
        (b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"0" * 5000 + b"\r\n\r\n", 400),
        (b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (LENGTH_AND_CHUNKS, 400),
        (b"POST /v2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST /v2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST /v2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
        (request("POST", PATH, b"{}", {"Content-Encoding": "gzip"}), 501),
        (request("POST", PATH, b"{}", {"Inference-Header-Content-Length": "x"}), 400),
        (request("POST", PATH, b"{}", {"Inference-Header-Content-Length": "-1"}), 400),
        (request("POST", PATH, b"{}", {"Inference-Header-Content-Length": "9" * 5000}), 400),
    ],
)
def test_what_is_not_http_is_refused(daemon: Daemon, sent: bytes, status: int) -> None:
    check(daemon, sent, status)


def test_a_client_that_speaks_tls_is_told_that_this_is_plain_http(daemon: Daemon) -> None:
    check(daemon, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "plain HTTP", "TLS")


def test_what_an_error_quotes_is_cut(daemon: Daemon) -> None:
    long = "x" * 100_000
    answer = daemon.infer("m", [{**GOOD, "name": long}])
    assert answer.status == 400
    assert len(answer.json()["error"]) == MESSAGE_CHARS_MAX + 1
    assert answer.json()["error"].endswith("…")


def test_a_refusal_is_said_once_whatever_follows_it(daemon: Daemon) -> None:
    with Wire.of(daemon) as wire:
        wire.send(b"GET /v2 HTTP/1.1\r\n\r\n" + b"\x00garbage" * 100)
        assert wire.answer().status == 400
        assert wire.ends()


@pytest.mark.parametrize(
    ("method", "path", "status", "word"),
    [
        ("GET", "/", 404, "/openapi.json"),
        ("GET", "/v2/models/unknown", 404, "'unknown'"),
        ("POST", "/v2/models/unknown/infer", 404, "'unknown'"),
        ("POST", "/v2/models/m/versions/7/infer", 404, "'7'"),
        ("GET", "/v2/models/m/versions/one", 404, "no version 'one'"),
        ("GET", "/v2/models/m/versions/1/../../..", 404, ".."),
        ("GET", PATH, 405, "POST"),
        ("POST", "/v2/health/live", 405, "GET, HEAD"),
        ("PATCH", "/v2/models/m", 405, "GET, HEAD"),
        ("POST", "/v2/repository/models/m/load", 403, "admin.sock"),
        ("POST", "/v2/repository/models/m/unload", 403, "admin.sock"),
        ("POST", "/v2/repository/x/index", 404, "'x'"),
    ],
)
def test_a_wrong_place_is_refused(
    daemon: Daemon, method: str, path: str, status: int, word: str
) -> None:
    body = json.dumps({"inputs": [GOOD]}).encode() if path.endswith("infer") else None
    check(daemon, request(method, path, body), status, word)


def test_a_405_says_what_is_allowed(daemon: Daemon) -> None:
    assert daemon.request("GET", PATH).headers["Allow"] == "POST"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"{}",
        b'{"inputs": {}}',
        b'{"inputs": [3]}',
        b'{"inputs": [{"name": "x"}]}',
        b'{"inputs": [], "outputs": 3}',
        b'{"inputs": [], "id": 3}',
        b'{"inputs": []} trailing',
        b'{"inputs": [{"name":"x","shape":[1,2],"datatype":"FP32","data":[NaN,1]}]}',
        b'{"inputs": [{"name":"x","shape":[1,2],"datatype":"FP32","data":[Infinity,1]}]}',
        b'{"inputs": [{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2],}]}',
    ],
)
def test_a_body_that_is_not_the_protocols_json_is_400(daemon: Daemon, body: bytes) -> None:
    check(daemon, request("POST", PATH, body), 400)


@pytest.mark.parametrize(
    ("model", "inputs", "words"),
    [
        ("m", [{**GOOD, "datatype": "INT32"}], ("FP32", "INT32")),
        ("m", [{**GOOD, "datatype": "FLOAT"}], ("FLOAT", "FP32")),
        ("m", [{**GOOD, "shape": [1, 3], "data": [1, 2, 3]}], ("x", "3")),
        ("m", [{**GOOD, "shape": [2]}], ("x",)),
        ("m", [{**GOOD, "shape": [1, 1, 2]}], ("x",)),
        ("m", [{**GOOD, "shape": [-1, 2]}], ("x", "-1")),
        ("m", [{**GOOD, "shape": [2**62, 2]}], ("x",)),
        ("m", [{**GOOD, "shape": [2**63, 2**63]}], ()),
        ("m", [{**GOOD, "shape": [0, 2**62]}], ("x",)),
        ("m", [{**GOOD, "shape": [1.5, 2]}], ()),
        ("m", [{**GOOD, "name": "z"}], ("z", "x")),
        ("m", [GOOD, GOOD], ("x", "twice")),
        ("m", [GOOD, {**GOOD, "name": "z"}], ("z",)),
        ("m", [{**GOOD, "data": [1]}], ("2", "1")),
        ("m", [{**GOOD, "data": [1, 2, 3]}], ("2", "3")),
        ("m", [{**GOOD, "data": [[1], [2]]}], ("x",)),
        ("m", [{**GOOD, "data": ["1", "2"]}], ("x",)),
        ("m", [{**GOOD, "data": [True, False]}], ("x",)),
        ("m", [{**GOOD, "data": [None, 1]}], ("x",)),
        ("m", [{**GOOD, "data": [1e39, 1]}], ("x",)),
        ("m", [{key: GOOD[key] for key in ("name", "shape", "datatype")}], ("x",)),
        ("m", [{**GOOD, "parameters": {"binary_data_size": 8}}], ("x", "both")),
        ("m", [], ("x",)),
        ("two", [A], ("b",)),
        ("two", [A, {**A, "name": "b", "shape": [2, 2], "data": [1, 2, 3, 4]}], ()),
        ("text", [{"name": "x", "shape": [1], "datatype": "BYTES", "data": [3]}], ("x",)),
        ("gather", [{**INT, "data": [2**63]}], ("x",)),
        ("gather", [{**INT, "data": [1.5]}], ("x",)),
        ("gather", [{**INT, "data": [7]}], ("refused",)),
        ("divide", [{**GOOD, "data": [0, 1]}], ("y", "NaN", "binary")),
    ],
)
def test_a_wrong_tensor_is_400(
    daemon: Daemon, model: str, inputs: list[dict[str, Any]], words: tuple[str, ...]
) -> None:
    path = f"/v2/models/{model}/infer"
    check(daemon, request("POST", path, {"inputs": inputs}), 400, *words)


@pytest.mark.parametrize(
    ("size", "sent", "word"),
    [
        (8, 7, "beyond"),
        (8, 9, "belong to no input"),
        (7, 7, "x"),
        (16, 16, "x"),
        (-8, 8, "binary_data_size"),
        ("8", 8, "binary_data_size"),
    ],
)
def test_binary_data_of_the_wrong_length_is_400(
    daemon: Daemon, size: object, sent: int, word: str
) -> None:
    tensor = {key: part for key, part in GOOD.items() if key != "data"}
    tensor["parameters"] = {"binary_data_size": size}
    head = json.dumps({"inputs": [tensor]}).encode()
    length = {"Inference-Header-Content-Length": len(head)}
    check(daemon, request("POST", PATH, head + bytes(sent), length), 400, word)


def test_json_that_is_said_to_be_longer_than_the_body_is_400(daemon: Daemon) -> None:
    check(daemon, request("POST", PATH, b"{}", {"Inference-Header-Content-Length": 99}), 400, "99")


def test_text_that_is_not_utf_8_is_refused_and_the_connection_goes_on(daemon: Daemon) -> None:
    raw = b"\x02\x00\x00\x00\xff\xfe"
    tensor = {
        "name": "x",
        "shape": [1],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(raw)},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    length = {"Inference-Header-Content-Length": len(head)}
    check(daemon, request("POST", "/v2/models/text/infer", head + raw, length), 400, "UTF-8")


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"outputs": [{"name": "z"}]}, 400),
        ({"outputs": [{"name": "y"}, {"name": "y"}]}, 400),
        ({"outputs": [{"name": "y", "parameters": {"classification": -1}}]}, 400),
        ({"outputs": [{"name": "y", "parameters": {"binary_data": "yes"}}]}, 400),
        ({"outputs": [{"name": "y", "parameters": {"shared_memory_region": "r"}}]}, 501),
        ({"parameters": {"sequence_id": 3}}, 501),
        ({"parameters": {"timeout": -1}}, 400),
        ({"parameters": {"priority": "high"}}, 400),
    ],
)
def test_wrong_wishes_are_refused(daemon: Daemon, more: dict[str, Any], status: int) -> None:
    check(daemon, request("POST", PATH, {"inputs": [GOOD], **more}), status)
