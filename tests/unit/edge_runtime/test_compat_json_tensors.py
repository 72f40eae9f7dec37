"""Nested JSON to tensors and back: the nesting is the shape, and nothing is guessed."""

import base64
import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.api.compat.json_tensors import decode_tensor, refuse_non_finite, to_json
from edge_runtime.datatypes import BY_NAME, BYTES, Datatype
from edge_runtime.errors import InvalidRequestError, InvalidTensorError
from edge_runtime.protocol.messages import OutputTensor
from edge_runtime.tensors import VARIABLE, Array, Tensor, TensorSpec
from tests import strategies

DEPTH = 16
sides = st.lists(st.integers(1, 3), max_size=4).map(tuple)


def spec(datatype: str, rank: int, name: str = "x") -> TensorSpec:
    return TensorSpec(name, BY_NAME[datatype], (VARIABLE,) * rank)


def decode(datatype: str, rank: int, data: Any, depth: int = DEPTH) -> Array:  # noqa: ANN401
    text = data if isinstance(data, bytes) else json.dumps(data).encode()
    return decode_tensor(spec(datatype, rank), msgspec.Raw(text), depth).array


def encode(datatype: str, array: Array, name: str = "y") -> Any:  # noqa: ANN401
    return to_json(OutputTensor(name, BY_NAME[datatype], array, binary=False))


@given(st.data(), strategies.json_datatypes, sides, st.none() | st.integers(0, 4))
def test_what_goes_out_comes_in_again_to_the_last_bit(
    data: st.DataObject, datatype: Datatype, shape: tuple[int, ...], indent: int | None
) -> None:
    array = data.draw(strategies.finite_arrays(datatype, shape))
    text = json.dumps(encode(datatype.name, array), indent=indent).encode()
    back = decode(datatype.name, len(shape), text)
    assert strategies.same(Tensor(datatype, back), Tensor(datatype, array))


@pytest.mark.parametrize(
    ("datatype", "rank", "data", "message"),
    [
        ("FP32", 2, [[1, 2], [3]], "ragged: along axis 1 there are 2 elements first and then 1"),
        ("FP32", 3, [[[1], [2]], [[3]]], "ragged: along axis 1 there are 2"),
        ("FP32", 2, [[1], []], "ragged"),
        ("FP32", 2, [1, 2], r"Expected `array`, got `int` - at `\$\[0\]`"),
        ("FP32", 1, [[1]], r"Expected `float`, got `array` - at `\$\[0\]`"),
        ("FP32", 1, 1, "Expected `array`, got `int`; the model takes FP32 of shape"),
        ("FP32", 2, [[1, 2], [3, "4"]], r"Expected `float`, got `str` - at `\$\[1\]\[1\]`"),
        ("FP32", 1, [None], "got `null`"),
        ("FP32", 1, [True], "got `bool`"),
        ("FP32", 1, b"[NaN]", "malformed"),
        ("FP32", 1, b"[-Infinity]", "malformed"),
        ("FP32", 1, b"[1e400]", "out of range"),
        ("FP32", 1, [1e39], "does not fit FP32"),
        ("INT32", 1, [1.5], "Expected `int`, got `float`"),
        ("INT32", 1, [2**31], "does not fit INT32"),
        ("UINT8", 1, [-1], "does not fit UINT8"),
        ("BOOL", 1, [1], "Expected `bool`, got `int`"),
        ("BYTES", 1, [1], "got `int`"),
        ("FP16", 1, [1], "FP16, which JSON cannot carry: use the binary extension"),
        ("BF16", 1, [1], "BF16, which JSON cannot carry"),
        ("FP32", 1, [{"b64": "AAAA"}], "Expected `float`, got `object`"),
        ("BYTES", 1, [{"b64": "AAAA", "more": 1}], "unknown field `more`"),
        ("BYTES", 1, [{"b64": "%"}], "b64 is not base64"),
        ("BYTES", 1, [{"b64": "//4="}], "does not hold UTF-8"),
    ],
)
def test_what_is_not_the_models_tensor_is_refused(
    datatype: str, rank: int, data: object, message: str
) -> None:
    with pytest.raises(InvalidTensorError, match=f"^(input|tensor) 'x'.*{message}"):
        decode(datatype, rank, data)


def test_nesting_deeper_than_the_limit_is_refused_before_it_is_read() -> None:
    assert decode("FP32", 3, [[[1]]], depth=3).shape == (1, 1, 1)
    with pytest.raises(InvalidTensorError, match=r"nested deeper than 2 \(limits.json_depth\)"):
        decode("FP32", 3, b"this is not even JSON", depth=2)


def test_a_scalar_needs_no_list() -> None:
    array = decode("FP32", 0, 1.5)
    assert array.shape == ()
    assert array.item() == 1.5


def test_an_empty_list_is_an_empty_axis() -> None:
    assert decode("FP32", 1, []).shape == (0,)
    assert decode("FP32", 2, [[], []]).shape == (2, 0)
    assert decode("FP32", 2, []).shape == (0, 0)


def test_base64_and_text_are_the_same_string() -> None:
    text = "smörgås\0"
    coded = {"b64": base64.b64encode(text.encode()).decode()}
    assert decode("BYTES", 2, [[text, coded]]).tolist() == [[text, text]]


def test_an_output_named_bytes_is_answered_in_base64() -> None:
    strings = np.array([["a", "é"]], object)
    assert encode("BYTES", strings) == [["a", "é"]]
    coded = [[{"b64": "YQ=="}, {"b64": "w6k="}]]
    assert encode("BYTES", strings, "image_bytes") == coded


def test_bytes_that_are_no_text_are_answered_in_base64() -> None:
    array = np.empty(2, object)
    array[:] = ["a", b"\xff"]
    assert encode("BYTES", array) == ["a", {"b64": "/w=="}]


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_an_output_without_a_json_form_is_refused(datatype: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"output 'y' is {datatype}"):
        encode(datatype, np.zeros(1, BY_NAME[datatype].numpy))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_and_never_turned_into_null(value: float) -> None:
    with pytest.raises(InvalidRequestError, match="output 'y' holds NaN or infinity"):
        refuse_non_finite("y", BY_NAME["FP64"], np.array([1.0, value]))
    refuse_non_finite("y", BY_NAME["FP64"], np.array([1.0, -2.0]))
    refuse_non_finite("y", BYTES, np.array(["NaN"], object))
