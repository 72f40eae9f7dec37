"""Arrays become tensors of the protocol or clear errors, and answers become arrays or errors."""

import sys
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings

from edge_runtime import errors
from edge_runtime.client import calls
from edge_runtime.client.arrays import to_array, to_tensor
from edge_runtime.client.wire import Answer
from edge_runtime.datatypes import BF16, BY_NAME, BYTES
from edge_runtime.protocol.codec import decode_request, encode_response
from edge_runtime.protocol.messages import InferRequest, InferResponse, OutputTensor
from edge_runtime.tensors import Array, Tensor
from tests.strategies import same, tensors


def _sent(call: calls.Call[Any]) -> InferRequest:
    """Decode a call as the daemon would."""
    return decode_request(b"".join(call.parts), call.json_length)


def _answer(tensor: Tensor) -> Answer:
    output = OutputTensor("y", tensor.datatype, tensor.array, binary=True)
    parts, json_length = encode_response(InferResponse("m", "1", "", [output]))
    return Answer(200, b"".join(parts), json_length)


def _json_answer(**output: Any) -> bytes:  # noqa: ANN401 - the fields of an output
    return msgspec.json.encode({"model_name": "m", "model_version": "1", "outputs": [output]})


@settings(deadline=None)
@given(tensors)
def test_every_tensor_arrives_as_it_was(tensor: Tensor) -> None:
    request = _sent(calls.infer("m", {"x": tensor}))
    assert same(request.inputs["x"], tensor)


@settings(deadline=None)
@given(tensors)
def test_every_output_comes_back_as_it_was_and_may_be_written_to(tensor: Tensor) -> None:
    array = calls.prediction(_answer(tensor)).outputs["y"]
    assert array.flags.writeable
    raw = array.view(np.uint16) if tensor.datatype is BF16 else array
    assert same(Tensor(tensor.datatype, raw), tensor)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=">f4").reshape(3, 4),
        np.arange(24, dtype="<f4").reshape(6, 4)[::2],
        np.asfortranarray(np.arange(12, dtype="<f4").reshape(3, 4)),
        np.broadcast_to(np.float32(1), (3, 4)),
    ],
)
def test_any_layout_and_byte_order_is_sent_row_by_row(array: Array) -> None:
    received = _sent(calls.infer("m", {"x": array})).inputs["x"]
    assert received.datatype.name == "FP32"
    assert np.array_equal(received.array, array)


@pytest.mark.parametrize(
    "array",
    [
        np.array(["a", "ü"]),
        np.array([b"a", "ü".encode()]),
        np.array(["a", "ü".encode()], object),
        np.array(["a", "ü"], np.dtypes.StringDType()),
    ],
)
@pytest.mark.parametrize("binary", [True, False])
def test_text_of_every_kind_arrives_as_text(array: Array, binary: bool) -> None:  # noqa: FBT001
    received = _sent(calls.infer("m", {"x": array}, binary=binary)).inputs["x"]
    assert received.datatype is BYTES
    assert received.array.tolist() == ["a", "ü"]


def test_bfloat16_is_sent_as_its_bits_and_given_back_as_bfloat16() -> None:
    array = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    tensor = to_tensor("x", array)
    assert tensor.datatype is BF16
    assert tensor.array.tolist() == [0x3FC0, 0xC000]
    assert to_array(tensor).dtype == ml_dtypes.bfloat16


def test_bfloat16_is_given_back_as_its_bits_without_ml_dtypes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    array = to_array(Tensor(BF16, np.array([0x3FC0], np.uint16)))
    assert array.dtype == np.uint16


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.zeros(2, np.complex64), "complex64"),
        (np.array(["2026-01-01"], "M8[D]"), "datetime64"),
        (np.array([None]), "NoneType"),
        (np.array([b"\xff"]), "UTF-8"),
        ([[1], [2, 3]], "not an array"),
    ],
)
def test_what_the_protocol_cannot_carry_is_refused_by_name(value: Any, said: str) -> None:  # noqa: ANN401
    with pytest.raises(errors.InvalidTensorError, match=said) as raised:
        calls.infer("m", {"image": value})
    assert "image" in raised.value.message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_json_refuses_what_it_would_turn_into_null(value: float) -> None:
    with pytest.raises(errors.InvalidTensorError, match="binary"):
        calls.infer("m", {"x": np.array([value])}, binary=False)


def test_json_refuses_half_floats() -> None:
    with pytest.raises(errors.InvalidRequestError, match="binary"):
        calls.infer("m", {"x": np.zeros(1, np.float16)}, binary=False)


def test_every_parameter_of_a_prediction_reaches_the_daemon() -> None:
    call = calls.infer(
        "a b/c",
        {"x": np.zeros(1)},
        version="7",
        outputs=["y"],
        classes=3,
        request_id="r1",
        priority=2,
        server_timeout_s=0.25,
        routing_key="camera-1",
    )
    request = _sent(call)
    assert request.routing_key == "camera-1"
    assert _sent(calls.infer("m", {"x": np.zeros(1)}, routing_key=0)).routing_key == "0"
    assert not _sent(calls.infer("m", {"x": np.zeros(1)})).routing_key

    assert call.target == "/v2/models/a%20b%2Fc/versions/7/infer"
    assert (request.id, request.priority, request.timeout_us) == ("r1", 2, 250_000)
    assert request.outputs is not None
    assert [tuple(output) for output in request.outputs] == [("y", True, 3)]


def test_the_shortest_server_timeout_is_still_one() -> None:
    request = _sent(calls.infer("m", {"x": np.zeros(1)}, server_timeout_s=1e-9))
    assert request.timeout_us == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"model": ""},
        {"version": "latest"},
        {"version": "²"},
        {"model": "\ud800"},
        {"classes": 3},
        {"outputs": "scores"},
        {"server_timeout_s": 0.0},
        {"server_timeout_s": float("inf")},
        {"routing_key": "x" * 257},
        {"routing_key": "\ud800"},
        {"routing_key": True},
        {"routing_key": 1.5},
    ],
)
def test_a_senseless_argument_is_refused_before_anything_is_sent(
    arguments: dict[str, Any],
) -> None:
    with pytest.raises(errors.InvalidRequestError):
        calls.infer(**{"model": "m", "inputs": {}, **arguments})


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, errors.InvalidRequestError),
        (403, errors.ForbiddenError),
        (404, errors.ModelNotFoundError),
        (413, errors.RequestTooLargeError),
        (500, errors.ModelFailedError),
        (501, errors.UnsupportedError),
        (503, errors.UnavailableError),
    ],
)
def test_an_error_of_the_daemon_is_the_same_error_here(
    status: int, error: type[errors.EdgeRuntimeError]
) -> None:
    call = calls.metadata()
    with pytest.raises(error, match=r"^what and why$"):
        call.decode(Answer(status, b'{"error":"what and why"}'))


def test_retry_after_is_passed_on() -> None:
    with pytest.raises(errors.UnavailableError) as raised:
        calls.metadata().decode(Answer(503, b'{"error":"full"}', retry_after_s=3))
    assert raised.value.retry_after_s == 3


@pytest.mark.parametrize("status", [301, 404, 502])
def test_another_server_s_error_page_is_quoted(status: int) -> None:
    with pytest.raises(errors.ProtocolError, match=f"{status}.*html"):
        calls.metadata().decode(Answer(status, b"<html>" + b"x" * 10_000))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        _json_answer(name="y", datatype="FP99", shape=[1], data=[1]),
        _json_answer(name="y", datatype="FP32", shape=[2], data=[1]),
        _json_answer(name="y", datatype="FP32", shape=[1]),
        _json_answer(name="y", datatype="FP32", shape=[1] * 65, data=[1]),
    ],
)
def test_an_answer_that_is_none_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(errors.ProtocolError):
        calls.prediction(Answer(200, body))


def test_a_binary_answer_shorter_than_it_says_is_a_protocol_error() -> None:
    answer = _answer(Tensor(BY_NAME["FP32"], np.zeros(4, np.float32)))
    with pytest.raises(errors.ProtocolError):
        calls.prediction(answer._replace(body=answer.body[:-1]))


def test_health_is_a_yes_or_a_no() -> None:
    assert calls.ready().decode(Answer(200, b""))
    assert not calls.ready().decode(Answer(400, b'{"ready":false}'))
    assert not calls.model_ready("m").decode(Answer(503, b'{"error":"loading"}'))
    with pytest.raises(errors.ModelNotFoundError):
        calls.model_ready("m").decode(Answer(404, b'{"error":"no"}'))


@pytest.mark.parametrize(("version", "path"), [("", ""), ("3", "/versions/3"), (4, "/versions/4")])
def test_a_version_is_text_or_a_number(version: str | int, path: str) -> None:
    call = calls.infer("m", {"x": np.zeros(1, "<f4")}, version=version)
    assert call.target == f"/v2/models/m{path}/infer"


@pytest.mark.parametrize("version", [-1, True, "new", None, 1.0])
def test_a_version_that_is_no_number_is_refused(version: Any) -> None:  # noqa: ANN401 - wrong ones
    with pytest.raises(errors.InvalidRequestError, match="version"):
        calls.model_metadata("m", version)


@pytest.mark.parametrize("name", [3, None, b"m"])
def test_a_model_s_name_that_is_no_text_is_refused(name: Any) -> None:  # noqa: ANN401 - wrong ones
    with pytest.raises(errors.InvalidRequestError, match="name is text"):
        calls.infer(name, {})


@pytest.mark.parametrize("binary", [True, False])
def test_half_a_surrogate_pair_is_no_text(binary: bool) -> None:  # noqa: FBT001
    with pytest.raises(errors.InvalidTensorError, match="UTF-8"):
        calls.infer("m", {"x": np.array(["a", "\ud800"])}, binary=binary)


@pytest.mark.parametrize(
    ("wanted", "cure"),
    [("FP32", "array.astype('float32')"), ("INT64", "array.astype('int64')"), ("BYTES", "")],
)
def test_another_datatype_is_told_with_its_conversion(wanted: str, cure: str) -> None:
    said = f"input 'x' is FP64; the model takes {wanted}"
    decode = calls.infer("m", {"x": np.zeros(1)}).decode
    with pytest.raises(errors.RequestError) as refused:
        decode(Answer(400, msgspec.json.encode({"error": said})))
    assert refused.value.message == (f"{said}; convert it: {cure}" if cure else said)
