"""JSON numbers, booleans and strings to arrays: never wrapped, never guessed."""

import json
import struct
import tracemalloc
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.datatypes import ALL, BY_NAME, Datatype
from edge_runtime.errors import InvalidTensorError
from edge_runtime.protocol.json_data import decode_data
from edge_runtime.tensors import Array, Tensor
from tests import strategies

DEPTH = 16
INTEGERS = [each for each in ALL if each.json == "int"]
NUMBERS = [each for each in ALL if each.json in {"int", "float"}]
FP32_MAX = float(np.finfo("<f4").max)


def decode(datatype: Datatype | str, shape: list[int], data: Any, **style: Any) -> Array:  # noqa: ANN401
    if isinstance(datatype, str):
        datatype = BY_NAME[datatype]
    text = data if isinstance(data, bytes) else json.dumps(data, **style).encode()
    return decode_data("x", datatype, shape, msgspec.Raw(text), DEPTH)


@given(strategies.json_tensors, st.none() | st.integers(0, 40))
def test_flat_and_nested_data_are_the_same_however_they_are_laid_out(
    tensor: Tensor, indent: int | None
) -> None:
    datatype, array = tensor
    shape = list(array.shape)
    flat = decode(datatype, shape, array.reshape(-1).tolist(), indent=indent)
    assert strategies.same(Tensor(datatype, flat), tensor)
    nested = decode(datatype, shape, strategies.nested(array), indent=indent)
    assert strategies.same(Tensor(datatype, nested), tensor)


@given(strategies.shapes, strategies.shapes)
def test_nesting_of_another_shape_is_refused(
    claimed: tuple[int, ...], real: tuple[int, ...]
) -> None:
    data = strategies.nested(np.zeros(real))
    flat = len(data) == np.prod(claimed, dtype=int) and not any(map(isinstance, data, [list] * 9))
    if flat or data == strategies.nested(np.zeros(claimed)):
        assert decode("FP64", list(claimed), data).shape == claimed
    else:
        with pytest.raises(InvalidTensorError, match="'x'"):
            decode("FP64", list(claimed), data)


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([2, 2], [[1, 2], [3]]),
        ([2, 2], [[1, 2, 3], [4]]),
        ([2, 2], [[1, 2], 3, 4]),
        ([4], [[1, 2], [3, 4]]),
        ([2, 2], [[[1], [2]], [[3], [4]]]),
        ([2, 2, 1], [[1, 2], [3, 4]]),
        ([1], 1),
        ([1], None),
        ([1], {"0": 1}),
        ([1], "1"),
        ([], []),
        ([0], [1]),
    ],
)
def test_data_that_is_not_the_shape_is_refused(shape: list[int], data: object) -> None:
    for datatype in ("FP32", "INT32"):
        with pytest.raises(InvalidTensorError, match=r"(tensor|input) 'x'"):
            decode(datatype, shape, data)


@pytest.mark.parametrize("datatype", INTEGERS, ids=lambda each: each.name)
def test_integer_is_exact_to_its_limits_and_refused_beyond(datatype: Datatype) -> None:
    limits = np.iinfo(datatype.numpy)
    ends = [int(limits.min), int(limits.max)]
    assert decode(datatype, [2], ends).tolist() == ends
    for beyond in (ends[0] - 1, ends[1] + 1, 2**80):
        with pytest.raises(InvalidTensorError, match=f"does not fit {datatype.name}"):
            decode(datatype, [1], [beyond])


@pytest.mark.parametrize("datatype", INTEGERS, ids=lambda each: each.name)
@pytest.mark.parametrize("element", [1.5, 1.0, True, "1", None, [1]])
def test_integer_is_nothing_but_an_integer(datatype: Datatype, element: object) -> None:
    with pytest.raises(InvalidTensorError, match="input 'x'"):
        decode(datatype, [1, 1], [[element]])


@pytest.mark.parametrize("value", [FP32_MAX * 1.01, -FP32_MAX * 1.01, 1e300])
def test_float_over_the_range_of_fp32_is_refused_and_fits_fp64(value: float) -> None:
    with pytest.raises(InvalidTensorError, match="does not fit FP32"):
        decode("FP32", [1], [value])
    assert decode("FP64", [1], [value]).item() == value


@given(st.floats(-FP32_MAX, FP32_MAX))
def test_float_is_rounded_as_ieee_754_says(value: float) -> None:
    assert decode("FP32", [1], [value]).tobytes() == struct.pack("<f", value)


def test_integer_is_a_float_too() -> None:
    assert decode("FP32", [2, 1], [[1], [-2]]).tolist() == [[1.0], [-2.0]]


@pytest.mark.parametrize("datatype", NUMBERS, ids=lambda each: each.name)
def test_boolean_is_no_number(datatype: Datatype) -> None:
    with pytest.raises(InvalidTensorError, match="got `bool`"):
        decode(datatype, [1], [True])


@pytest.mark.parametrize("element", [0, 1, "true", None, 1.0])
def test_boolean_is_nothing_but_true_and_false(element: object) -> None:
    with pytest.raises(InvalidTensorError, match="Expected `bool`"):
        decode("BOOL", [1], [element])
    assert decode("BOOL", [2], [True, False]).tolist() == [True, False]


@pytest.mark.parametrize("element", [1, True, None, ["a"]])
def test_string_is_nothing_but_text(element: object) -> None:
    with pytest.raises(InvalidTensorError, match="input 'x'"):
        decode("BYTES", [1], [element])


@pytest.mark.parametrize("text", ["", "[[[", "a\0b", "é", "😀", '"\\'])
def test_any_text_is_kept(text: str) -> None:
    assert decode("BYTES", [1, 1], [[text]]).tolist() == [[text]]


@pytest.mark.parametrize("data", [b'["\xff"]', b'["\\ud800"]', b'["a'])
def test_text_that_is_not_unicode_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidTensorError, match="input 'x'"):
        decode("BYTES", [1], data)


@pytest.mark.parametrize("name", ["FP16", "BF16"])
def test_half_precision_has_no_json(name: str) -> None:
    with pytest.raises(InvalidTensorError, match=f"'x' is {name}.*use the binary extension"):
        decode(name, [1], [1.0])


def test_nesting_is_taken_to_its_limit_and_refused_beyond() -> None:
    shape = [1] * DEPTH
    assert decode("FP32", shape, np.zeros(shape).tolist()).shape == tuple(shape)
    with pytest.raises(InvalidTensorError, match=f"nested deeper than {DEPTH}"):
        decode("FP32", [1, *shape], np.zeros([1, *shape]).tolist())
    with pytest.raises(InvalidTensorError, match=f"nested deeper than {DEPTH}"):
        decode("FP32", [1], b"[ \n\t\r" * 100_000)


@pytest.mark.parametrize("shape", [[1], [1, 3]])
def test_a_surplus_of_elements_is_refused_before_it_costs_memory(shape: list[int]) -> None:
    text = b"[" + b"0," * 3_000_000 + b"0]"
    tracemalloc.start()
    try:
        with pytest.raises(InvalidTensorError, match="data has 3000001"):
            decode("FP32", shape, text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(text)


@pytest.mark.parametrize("nest", [False, True])
def test_large_data_that_fits_its_shape_is_taken(nest: bool) -> None:  # noqa: FBT001 - a case
    values = np.arange(60_000, dtype="<f4").reshape(300, 200)
    data = values.tolist() if nest else values.reshape(-1).tolist()
    assert np.array_equal(decode("FP32", [300, 200], data), values)
