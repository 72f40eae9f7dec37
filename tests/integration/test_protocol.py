"""The protocol as a real daemon speaks it: every datatype, both encodings, and every refusal."""

import itertools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.datatypes import ALL, BY_NAME, BYTES, Datatype
from edge_runtime.tensors import Array, from_buffer, to_buffer
from tests.daemons import Answer, Daemon, daemon
from tests.models import identity
from tests.protocol_models import GOOD, PAIR, write_repository

pytestmark = pytest.mark.integration

LENGTH = "Inference-Header-Content-Length"
JSON_TYPES = [each for each in ALL if each.json != "none"]


def by_name(datatype: Datatype) -> str:
    return datatype.name


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root = tmp_path_factory.mktemp("repository")
    write_repository(root)
    with daemon(str(root)) as running:
        yield running


def example(datatype: Datatype, shape: tuple[int, ...]) -> Array:
    count = int(np.prod(shape, dtype=int))
    if datatype is BYTES:
        texts = ["a\0b", "", "😀", '"\\\n', "null", "é"]
        array: Array = np.empty(count, object)
        array[:] = list(itertools.islice(itertools.cycle(texts), count))
        return array.reshape(shape)
    data = os.urandom(count * datatype.size_bytes)
    if datatype.name == "BOOL":
        data = bytes(byte & 1 for byte in data)
    return np.frombuffer(data, datatype.numpy).reshape(shape)


def body(message: dict[str, Any], *binary: bytes) -> tuple[bytes, dict[str, str]]:
    text = json.dumps(message).encode()
    return text + b"".join(binary), {LENGTH: str(len(text))}


def binary_infer(
    served: Daemon,
    model: str,
    datatype: Datatype,
    array: Array,
    **more: Any,  # noqa: ANN401 - whatever a request has
) -> Answer:
    data = bytes(to_buffer(datatype, array))
    entry = {
        "name": "x",
        "shape": array.shape,
        "datatype": datatype.name,
        "parameters": {"binary_data_size": len(data)},
    }
    payload, headers = body({"inputs": [entry], **more}, data)
    return served.request("POST", f"/v2/models/{model}/infer", payload, headers)


def error(answer: Answer) -> str:
    assert answer.headers["Content-Type"] == "application/json"
    text = answer.json()["error"]
    assert isinstance(text, str)
    return text


def split(answer: Answer) -> tuple[dict[str, Any], bytes]:
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == "application/octet-stream"
    length = int(answer.headers[LENGTH])
    return json.loads(answer.body[:length]), answer.body[length:]


# -- every datatype -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0, 2), (1, 2), (3, 2), (5000, 2), ()])
@pytest.mark.parametrize("datatype", ALL, ids=by_name)
def test_binary_both_ways_is_exact(
    served: Daemon, datatype: Datatype, shape: tuple[int, ...]
) -> None:
    array = example(datatype, shape)
    model = datatype.name if shape else f"{datatype.name}-scalar"
    answer = binary_infer(
        served, model, datatype, array, parameters={"binary_data_output": True}, id="7"
    )
    message, data = split(answer)
    assert data == bytes(to_buffer(datatype, array))
    (output,) = message.pop("outputs")
    assert message == {"model_name": model, "model_version": "1", "id": "7"}
    assert output == {
        "name": "y",
        "datatype": datatype.name,
        "shape": list(shape),
        "parameters": {"binary_data_size": len(data)},
    }


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("shape", [(0, 2), (3, 2)])
@pytest.mark.parametrize("datatype", JSON_TYPES, ids=by_name)
def test_json_both_ways_is_exact(
    served: Daemon, datatype: Datatype, shape: tuple[int, ...], *, nested: bool
) -> None:
    array = example(datatype, shape)
    if datatype.json == "float":
        array = np.nan_to_num(array)
    data = array.tolist() if nested else array.reshape(-1).tolist()
    entry = {"name": "x", "shape": shape, "datatype": datatype.name, "data": data}
    answer = served.infer(datatype.name, [entry])
    assert answer.status == 200, answer.body
    assert LENGTH not in answer.headers
    (output,) = answer.json()["outputs"]
    assert output == {
        "name": "y",
        "datatype": datatype.name,
        "shape": list(shape),
        "data": array.reshape(-1).tolist(),
    }


@pytest.mark.parametrize("name", ["FP16", "BF16"])
def test_half_precision_is_binary_only(served: Daemon, name: str) -> None:
    entry = {"name": "x", "shape": [1, 2], "datatype": name, "data": [1, 2]}
    answer = served.infer(name, [entry])
    assert (answer.status, error(answer)) == (
        400,
        f"input 'x' is {name}, which JSON cannot carry: use the binary extension",
    )
    datatype = BY_NAME[name]
    answer = binary_infer(served, name, datatype, example(datatype, (1, 2)))
    assert answer.status == 400
    assert re.search(f"output 'y' is {name}.*ask for binary", error(answer))


def test_non_finite_answer_is_refused_in_json_and_exact_in_binary(served: Daemon) -> None:
    answer = served.infer("divide", [{**GOOD, "data": [0, -1]}])
    assert answer.status == 400
    assert re.search("output 'y' holds NaN or infinity.*ask for binary", error(answer))
    answer = served.infer(
        "divide", [{**GOOD, "data": [1, -1]}], parameters={"binary_data_output": True}
    )
    assert np.frombuffer(split(answer)[1], "<f4").tolist() == [np.inf, -np.inf]


@pytest.mark.parametrize("offset", range(1, 5))
def test_misaligned_binary_input_is_computed_correctly(served: Daemon, offset: int) -> None:
    array = example(BY_NAME["FP64"], (4, 2))
    answer = binary_infer(
        served, "FP64", BY_NAME["FP64"], array, id="i" * offset, outputs=binary_output("y")
    )
    assert split(answer)[1] == array.tobytes()


def binary_output(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "parameters": {"binary_data": True}} for name in names]


@pytest.mark.parametrize("datatype", [each for each in ALL if each is not BYTES], ids=by_name)
def test_raw_request_is_the_tensor_alone(served: Daemon, datatype: Datatype) -> None:
    data = bytes(to_buffer(datatype, example(datatype, (3, 2))))
    answer = served.request("POST", f"/v2/models/{datatype.name}/infer", data, {LENGTH: "0"})
    message, back = split(answer)
    assert back == data
    assert message["outputs"][0]["shape"] == [3, 2]


def test_raw_request_of_text_is_one_element(served: Daemon) -> None:
    answer = served.request("POST", "/v2/models/text/infer", "é".encode(), {LENGTH: "0"})
    message, back = split(answer)
    assert message["outputs"][0]["shape"] == [1]
    assert from_buffer("y", BYTES, [1], back).tolist() == ["é"]


# -- the rest of a request ----------------------------------------------------------------------


def test_outputs_are_all_unless_some_are_asked_for(served: Daemon) -> None:
    every = served.infer("two", PAIR).json()["outputs"]
    assert [(output["name"], output["data"]) for output in every] == [
        ("sum", [6, 8]),
        ("difference", [4, 4]),
    ]
    answer = served.infer("two", PAIR, outputs=[{"name": "difference"}]).json()["outputs"]
    assert [output["name"] for output in answer] == ["difference"]


def test_binary_and_json_outputs_go_together(served: Daemon) -> None:
    outputs = [{"name": "difference"}, *binary_output("sum")]
    message, data = split(served.infer("two", PAIR, outputs=outputs))
    assert message["outputs"][0]["data"] == [4, 4]
    assert "data" not in message["outputs"][1]
    assert np.frombuffer(data, "<f4").tolist() == [6, 8]


@pytest.mark.parametrize(
    "parameters",
    [{"priority": 1}, {"timeout": 10**7}, {"priority": 0, "timeout": 0}, {"mine": "x"}],
)
def test_parameters_of_a_request_are_taken(served: Daemon, parameters: dict[str, Any]) -> None:
    answer = served.infer("FP32", [GOOD], parameters=parameters, id="é")
    assert (answer.status, answer.json()["id"]) == (200, "é")


def test_classification_gives_labels(served: Daemon) -> None:
    outputs = [{"name": "y", "parameters": {"classification": 9}}]
    entry = {**GOOD, "shape": [2, 2], "data": [0.25, 0.5, 2, 1]}
    (output,) = served.infer("labelled", [entry], outputs=outputs).json()["outputs"]
    assert output == {
        "name": "y",
        "datatype": "BYTES",
        "shape": [2, 2],
        "data": ["0.500000:1:yes", "0.250000:0:no", "2.000000:0:no", "1.000000:1:yes"],
    }


def test_classification_of_no_rows_has_no_rows(served: Daemon) -> None:
    outputs = [{"name": "y", "parameters": {"classification": 1}}]
    entry = {**GOOD, "shape": [0, 2], "data": []}
    (output,) = served.infer("labelled", [entry], outputs=outputs).json()["outputs"]
    assert (output["shape"], output["data"]) == ([0, 1], [])


# -- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "inputs", "status", "message"),
    [
        ("nobody", [GOOD], 404, "there is no model 'nobody'"),
        ("FP32/versions/2", [GOOD], 404, "model 'FP32' has no version '2'; it has 1"),
        ("FP32", [], 400, "missing 'x'"),
        ("FP32", [{**GOOD, "name": "X"}], 400, "missing 'x'; unknown 'X'"),
        ("FP32", [GOOD, GOOD], 400, "input 'x' is given twice"),
        ("FP32", [{**GOOD, "datatype": "INT32"}], 400, "'x' is INT32; the model takes FP32"),
        ("FP32", [{**GOOD, "datatype": "fp32"}], 400, "unknown datatype 'fp32'"),
        ("FP32", [{**GOOD, "shape": [2]}], 400, r"has shape \[2\]; the model takes \[-1, 2\]"),
        ("FP32", [{**GOOD, "shape": [2, 1]}], 400, r"has shape \[2, 1\]; the model takes"),
        ("FP32", [{**GOOD, "shape": [1, 3]}], 400, "needs 3 elements, data has 2"),
        ("FP32", [{**GOOD, "shape": [2**62, 2**62]}], 400, "larger than any request"),
        ("FP32", [{**GOOD, "shape": [0, 2**70], "data": []}], 400, "larger than any request"),
        ("FP32", [{**GOOD, "shape": [1] * 99}], 400, "has 99 axes; at most 64"),
        ("BYTES", [{**GOOD, "shape": [2**40], "datatype": "BYTES"}], 400, "data has 2|Expected"),
        ("FP32", [{**GOOD, "data": [1, 1e39]}], 400, "does not fit FP32"),
        ("FP32", [{**GOOD, "data": [float("nan"), 1]}], 400, "malformed"),
        ("FP32", [{**GOOD, "data": [None, 1]}], 400, "Expected `float`, got `null`"),
        ("FP32", [{**GOOD, "data": [True, 1]}], 400, "Expected `float`, got `bool`"),
        ("INT8", [{**GOOD, "datatype": "INT8", "data": [128, 0]}], 400, "does not fit INT8"),
        ("gather", [{**GOOD, "shape": [2], "datatype": "INT64", "data": [0, 9]}], 400, "refused"),
        ("two", PAIR[:1], 400, "missing 'b'"),
        (
            "two",
            [PAIR[0], {**PAIR[1], "shape": [2, 2], "data": [1, 2, 3, 4]}],
            400,
            "must agree on axis 'batch'",
        ),
    ],
)
def test_wrong_request_is_refused_and_the_next_good_one_answered(
    served: Daemon, model: str, inputs: list[dict[str, Any]], status: int, message: str
) -> None:
    answer = served.infer(model, inputs)
    assert answer.status == status, answer.body
    assert re.search(message, error(answer))
    assert served.infer("FP32", [GOOD]).status == 200


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        ({"outputs": [{"name": "z"}]}, 400, "there is no output 'z'"),
        ({"outputs": [{"name": "y"}] * 2}, 400, "asked for twice"),
        ({"parameters": {"priority": -1}}, 400, "'priority' must be an integer"),
        ({"parameters": {"sequence_id": 1}}, 501, "sequences are not served here"),
        ({"id": 7}, 400, r"Expected `str"),
    ],
)
def test_wrong_field_is_refused(
    served: Daemon, more: dict[str, Any], status: int, message: str
) -> None:
    answer = served.infer("FP32", [GOOD], **more)
    assert answer.status == status
    assert re.search(message, error(answer))


@pytest.mark.parametrize(
    ("payload", "length", "message"),
    [
        (b"", None, "the request is not what the protocol says"),
        (b"{", None, "the request is not what the protocol says"),
        (b"\xff", None, "the request is not what the protocol says"),
        (b"[" * 10_000, None, "the request is not what the protocol says"),
        (b'{"inputs":[]}', "14", f"{LENGTH} is 14, but the body has 13 bytes"),
        (b'{"inputs":[]}x', "13", "1 bytes after the last binary tensor"),
        (bytes(7), "0", "needs 0 bytes, the request has 7"),
    ],
)
def test_broken_body_is_refused(
    served: Daemon, payload: bytes, length: str | None, message: str
) -> None:
    headers = {} if length is None else {LENGTH: length}
    answer = served.request("POST", "/v2/models/FP32/infer", payload, headers)
    assert answer.status == 400
    assert message in error(answer)
    assert served.infer("FP32", [GOOD]).status == 200


@pytest.mark.parametrize("change", ["load", "unload"])
def test_data_socket_changes_nothing(served: Daemon, change: str) -> None:
    answer = served.request("POST", f"/v2/repository/models/FP32/{change}", b"{}")
    assert answer.status == 403
    assert "admin.sock" in error(answer)


def test_json_beyond_its_limit_is_refused_and_binary_of_that_size_is_not(tmp_path: Path) -> None:
    model = identity(tmp_path / "m.onnx")
    environment = {"EDGE_RUNTIME__LIMITS__JSON_BYTES": "2048"}
    tensor = {"name": "x", "shape": [1000, 2], "datatype": "FP32"}
    with daemon(f"m={model}", environment=environment) as running:
        answer = running.infer("m", [{**tensor, "data": [0.5] * 2000}])
        assert answer.status == 413
        assert "binary" in answer.json()["error"]
        head = json.dumps(
            {"inputs": [{**tensor, "parameters": {"binary_data_size": 8000}}]}
        ).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        path = "/v2/models/m/infer"
        assert running.request("POST", path, head + bytes(8000), headers).status == 200
