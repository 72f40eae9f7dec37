"""Bytes to requests and answers to bytes: what goes in comes out, and garbage is refused."""

import json
import string
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_runtime.datatypes import BY_NAME, BYTES
from edge_runtime.errors import (
    EdgeRuntimeError,
    InvalidRequestError,
    InvalidTensorError,
    UnsupportedError,
)
from edge_runtime.protocol.codec import (
    Encoded,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)
from edge_runtime.protocol.messages import (
    InferRequest,
    InferResponse,
    OutputTensor,
    RequestedOutput,
)
from edge_runtime.tensors import Tensor
from tests import strategies

FP32 = BY_NAME["FP32"]
ONE = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}

requested = st.none() | st.lists(
    st.builds(RequestedOutput, strategies.names, st.booleans(), st.integers(0, 9)),
    min_size=1,
    max_size=3,
    unique_by=lambda output: output.name,
).map(tuple)


def requests(tensors: st.SearchStrategy[Tensor]) -> st.SearchStrategy[InferRequest]:
    return st.builds(
        InferRequest,
        id=strategies.TEXT,
        inputs=st.dictionaries(strategies.names, tensors, max_size=3),
        outputs=requested,
        binary_outputs=st.booleans(),
        priority=st.integers(0, 2**64 - 1),
        timeout_us=st.integers(0, 2**63),
    )


def body(encoded: Encoded) -> bytes:
    return b"".join(bytes(part) for part in encoded.parts)


def decode(message: dict[str, Any], binary: bytes = b"", **more: Any) -> InferRequest:  # noqa: ANN401
    text = json.dumps(message).encode()
    return decode_request(text + binary, len(text) if binary else None, **more)


def assert_same_request(left: InferRequest, right: InferRequest) -> None:
    assert left.inputs.keys() == right.inputs.keys()
    for name, tensor in left.inputs.items():
        assert strategies.same(tensor, right.inputs[name])
    for field in ("id", "outputs", "binary_outputs", "priority", "timeout_us", "raw_input"):
        assert getattr(left, field) == getattr(right, field)


# -- round trips --------------------------------------------------------------------------------


@given(requests(strategies.tensors))
def test_binary_request_survives_to_the_last_bit(request: InferRequest) -> None:
    encoded = encode_request(request)
    assert_same_request(decode_request(body(encoded), encoded.json_length), request)


@given(requests(strategies.json_tensors))
def test_json_request_survives_to_the_last_bit(request: InferRequest) -> None:
    encoded = encode_request(request, binary=False)
    assert encoded.json_length is None
    assert_same_request(decode_request(body(encoded)), request)


@st.composite
def responses(draw: st.DrawFn) -> InferResponse:
    outputs = []
    for name in draw(st.lists(strategies.names, max_size=3)):
        binary = draw(st.booleans())
        tensor = draw(strategies.tensors if binary else strategies.json_tensors)
        outputs.append(OutputTensor(name, tensor.datatype, tensor.array, binary))
    return InferResponse("digits", "3", draw(strategies.TEXT), outputs)


@given(responses())
def test_response_survives_to_the_last_bit(response: InferResponse) -> None:
    encoded = encode_response(response)
    message, tensors = decode_response(body(encoded), encoded.json_length)
    assert (message.model_name, message.model_version) == ("digits", "3")
    assert message.id == response.id
    for output, entry, tensor in zip(response.outputs, message.outputs, tensors, strict=True):
        assert entry.name == output.name
        assert strategies.same(Tensor(output.datatype, output.array), tensor)
    binary = any(output.binary for output in response.outputs)
    assert (encoded.json_length is not None) == binary


@given(responses())
def test_json_part_of_a_response_is_plain_json(response: InferResponse) -> None:
    encoded = encode_response(response)
    message = json.loads(bytes(encoded.parts[0]))
    for entry, output in zip(message["outputs"], response.outputs, strict=True):
        # C++ clients take any parameters of an output as a sign of binary data.
        assert ("parameters" in entry) == output.binary == ("data" not in entry)


# -- garbage ------------------------------------------------------------------------------------

words = st.sampled_from([*string.printable, '"data"', "[", "]", "{", "}", "null", "-1", "1e999"])


@given(requests(strategies.tensors), st.data())
def test_damaged_request_is_decoded_or_refused_with_our_errors(
    request: InferRequest, data: st.DataObject
) -> None:
    encoded = encode_request(request)
    damaged = bytearray(body(encoded))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged)))
        until = place + data.draw(st.integers(0, 5))
        damaged[place:until] = data.draw(st.binary(max_size=3) | words.map(str.encode))
    length = encoded.json_length
    if length is not None:
        length = max(0, length + data.draw(st.integers(-2, 2)))
    for decoder in (decode_request, decode_response):
        try:
            decoder(bytes(damaged), length)
        except EdgeRuntimeError as error:
            assert error.message  # noqa: PT017 - either outcome is right, nothing else is


@given(st.binary(max_size=60), st.none() | st.integers(0, 70))
def test_noise_is_decoded_or_refused_with_our_errors(noise: bytes, length: int | None) -> None:
    for decoder in (decode_request, decode_response):
        try:
            decoder(noise, length)
        except EdgeRuntimeError as error:
            assert error.message  # noqa: PT017


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | strategies.TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(strategies.TEXT, inner, max_size=3),
    max_leaves=6,
)
parameters = anything | st.dictionaries(
    st.sampled_from(["binary_data_size", "binary_data", "classification", "shared_memory_region"]),
    anything,
)
almost_tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": anything | st.just("x"),
        "datatype": anything | st.sampled_from([*BY_NAME]),
        "shape": anything | st.lists(st.integers(-1, 2**66), max_size=70),
        "data": anything | st.lists(anything, max_size=4),
        "parameters": parameters,
    },
)
almost_messages = st.fixed_dictionaries(
    {"inputs": st.lists(almost_tensors, max_size=3) | anything},
    optional={
        "id": anything,
        "outputs": st.lists(almost_tensors, max_size=3),
        "parameters": parameters,
        "model_name": anything | st.just("m"),
        "model_version": anything | st.just("1"),
    },
)


@given(almost_messages, st.binary(max_size=8))
@example({"inputs": [{**ONE, "shape": [0, 2**70], "data": []}]}, b"")
@example({"inputs": [{**ONE, "shape": [1] * 65}]}, b"")
@example({"inputs": [], "outputs": [{**ONE, "datatype": "BYTES", "data": [["a"], ["b"]]}]}, b"")
def test_almost_a_message_is_decoded_or_refused_with_our_errors(
    message: dict[str, Any], binary: bytes
) -> None:
    message = {"model_name": "m", "model_version": "1", **message}
    text = json.dumps(message).encode()
    for decoder in (decode_request, decode_response):
        try:
            decoder(text + binary, len(text) if binary else None)
        except EdgeRuntimeError as error:
            assert error.message  # noqa: PT017


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"inputs":[{"data":'])
def test_bottomless_json_is_refused(opening: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="the request is not what the protocol says"):
        decode_request(opening * 100_000)


# -- requests -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "error", "words_of_it"),
    [
        ({}, InvalidRequestError, "missing required field `inputs`"),
        ({"inputs": [{"name": "x"}]}, InvalidRequestError, r"missing .* `shape` - at `\$\.inputs"),
        ({"inputs": [ONE], "id": 7}, InvalidRequestError, r"`str \| null`, got `int` - at `\$.id"),
        ({"inputs": [ONE, ONE]}, InvalidTensorError, "input 'x' is given twice"),
        ({"inputs": [{**ONE, "datatype": "FP8"}]}, InvalidTensorError, "'FP8'; known are BOOL"),
        ({"inputs": [{**ONE, "shape": [-1]}]}, InvalidTensorError, "negative axis"),
        ({"inputs": [{**ONE, "shape": [2]}]}, InvalidTensorError, "needs 2 elements, data has 1"),
        ({"inputs": [{**ONE, "shape": [2**41]}]}, InvalidTensorError, "larger than any request"),
        (
            {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}]},
            InvalidTensorError,
            "'x' has neither data nor binary_data_size",
        ),
        (
            {"inputs": [{**ONE, "parameters": {"binary_data_size": 4}}]},
            InvalidTensorError,
            "'x' has both data and binary_data_size",
        ),
        (
            {"inputs": [{**ONE, "parameters": {"shared_memory_region": "r"}}]},
            UnsupportedError,
            "'x': shared memory",
        ),
        ({"inputs": [], "outputs": [{"name": "y"}] * 2}, InvalidRequestError, "asked for twice"),
        (
            {"inputs": [], "outputs": [{"name": "y", "parameters": {"classification": True}}]},
            InvalidRequestError,
            "'y': classification must be a positive integer, not True",
        ),
        (
            {"inputs": [], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]},
            InvalidRequestError,
            "'y': parameter 'binary_data' must be true or false",
        ),
        ({"inputs": [], "parameters": {"priority": -1}}, InvalidRequestError, "'priority' must be"),
        ({"inputs": [], "parameters": {"priority": 2**64}}, InvalidRequestError, "of 64 bits"),
        ({"inputs": [], "parameters": {"timeout": 10**400}}, InvalidRequestError, "'timeout' must"),
        ({"inputs": [], "parameters": {"timeout": 0.5}}, InvalidRequestError, "'timeout' must be"),
        ({"inputs": [], "parameters": {"sequence_id": 7}}, UnsupportedError, "'sequence_id'"),
    ],
)
def test_contradiction_is_refused_where_it_is(
    message: dict[str, Any], error: type[EdgeRuntimeError], words_of_it: str
) -> None:
    with pytest.raises(error, match=words_of_it):
        decode(message)


@pytest.mark.parametrize("literal", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"null"])
def test_number_that_json_does_not_have_is_refused(literal: bytes) -> None:
    text = json.dumps({"inputs": [ONE]}).encode().replace(b"1.0", literal)
    with pytest.raises(EdgeRuntimeError, match=r"malformed|out of range|Expected `float`"):
        decode_request(text)


@pytest.mark.parametrize("name", ["FP16", "BF16"])
def test_half_precision_in_json_is_refused_and_in_binary_taken(name: str) -> None:
    with pytest.raises(InvalidTensorError, match=f"'x' is {name}, .*: use the binary extension"):
        decode({"inputs": [{**ONE, "datatype": name}]})
    entry = {"name": "x", "shape": [1], "datatype": name, "parameters": {"binary_data_size": 2}}
    tensor = decode({"inputs": [entry]}, b"\x80\x3f").inputs["x"]
    assert tensor.array.tobytes() == b"\x80\x3f"


def test_binary_tensors_are_taken_in_the_order_of_the_inputs() -> None:
    entries = [
        {"name": name, "shape": [1], "datatype": "UINT8", "parameters": {"binary_data_size": 1}}
        for name in "ba"
    ]
    inputs = decode({"inputs": [entries[0], ONE, entries[1]]}, b"\1\2").inputs
    assert {name: tensor.array.tolist() for name, tensor in inputs.items()} == {
        "b": [1],
        "x": [1.0],
        "a": [2],
    }


@pytest.mark.parametrize(
    ("size", "binary", "message"),
    [
        (8, b"1234", "binary_data_size 8 reaches beyond the body"),
        (4, b"12345", "1 bytes after the last binary tensor belong to no input"),
        (3, b"123", r"shape \[1\] of FP32 needs 4 bytes, the request has 3"),
        (-4, b"1234", "binary_data_size must be an integer, 0 or above"),
        (True, b"1", "binary_data_size must be an integer"),
        ("4", b"1234", "binary_data_size must be an integer"),
    ],
)
def test_binary_length_mismatch_is_refused(size: object, binary: bytes, message: str) -> None:
    entry = {
        "name": "x",
        "shape": [1],
        "datatype": "FP32",
        "parameters": {"binary_data_size": size},
    }
    with pytest.raises(EdgeRuntimeError, match=message):
        decode({"inputs": [entry]}, binary)


def test_header_longer_than_the_body_is_refused() -> None:
    message = "Inference-Header-Content-Length is 99, but the body has 2 bytes"
    for decoder in (decode_request, decode_response):
        with pytest.raises(InvalidRequestError, match=message):
            decoder(b"{}", 99)


def test_raw_binary_request_is_the_body_as_it_is() -> None:
    request = decode_request(b"\x00\x01{}", 0)
    assert request.raw_input is not None
    assert bytes(request.raw_input) == b"\x00\x01{}"
    assert request.binary_outputs


def test_outputs_follow_the_default_of_the_request_unless_they_say_otherwise() -> None:
    outputs = [{"name": "a"}, {"name": "b", "parameters": {"binary_data": False}}]
    message = {"inputs": [], "outputs": outputs, "parameters": {"binary_data_output": True}}
    assert decode(message).outputs == (RequestedOutput("a", binary=True), RequestedOutput("b"))


def test_unknown_fields_and_parameters_are_passed_over() -> None:
    request = decode({"inputs": [{**ONE, "hint": 1}], "parameters": {"mine": "x"}, "more": [{}]})
    assert request.inputs["x"].array.tolist() == [1.0]


# -- answers ------------------------------------------------------------------------------------


def response(array: Any, name: str = "FP32", *, binary: bool = False) -> InferResponse:  # noqa: ANN401
    datatype = BY_NAME[name]
    output = OutputTensor("scores", datatype, np.asarray(array, datatype.numpy), binary)
    return InferResponse("m", "1", "", [output])


@pytest.mark.parametrize("name", ["FP32", "FP64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_answer_in_json_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(InvalidRequestError, match=r"output 'scores' holds NaN .*: ask for binary"):
        encode_response(response([1.0, value], name))
    encoded = encode_response(response([1.0, value], name, binary=True))
    assert encoded.json_length is not None


@pytest.mark.parametrize("name", ["FP16", "BF16"])
def test_half_precision_answer_in_json_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"'scores' is {name}, .*: ask for binary"):
        encode_response(response([1], name))


def test_the_word_null_in_a_text_is_no_number_that_is_missing() -> None:
    text = np.array(["null"], object)
    outputs = [OutputTensor("label", BYTES, text, binary=False)]
    encoded = encode_response(InferResponse("null", "1", "null", outputs))
    assert json.loads(bytes(encoded.parts[0]))["outputs"][0]["data"] == ["null"]


def test_non_finite_input_is_not_sent_as_json() -> None:
    request = InferRequest(inputs={"x": Tensor(FP32, np.array([np.nan], "<f4"))})
    with pytest.raises(InvalidRequestError, match=r"input 'x' holds NaN .*: send it as binary"):
        encode_request(request, binary=False)


@pytest.mark.parametrize(
    ("output", "binary", "message"),
    [
        ({"datatype": "BOOL", "data": ["x"]}, b"", "Expected `bool`, got `str`"),
        ({"datatype": "INT8", "data": [True]}, b"", "Expected `int`, got `bool`"),
        ({"datatype": "FP16", "data": [1.0]}, b"", "FP16, which JSON cannot carry"),
        ({"datatype": "FP32"}, b"", "output 'y' has no data"),
        ({"datatype": "FP32", "parameters": {"binary_data_size": -4}}, bytes(8), "0 or above"),
        ({"datatype": "FP32", "parameters": {"binary_data_size": 4}}, b"123", "needs 4 bytes"),
    ],
)
def test_answer_that_contradicts_itself_is_refused(
    output: dict[str, Any], binary: bytes, message: str
) -> None:
    outputs = [{"name": "y", "shape": [1], **output}]
    text = json.dumps({"model_name": "m", "model_version": "1", "outputs": outputs}).encode()
    with pytest.raises(EdgeRuntimeError, match=message):
        decode_response(text + binary, len(text) if binary else None)
