"""Tensors in memory, and the signature they must fit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.datatypes import ALL, BF16, BOOL, BY_NAME, BY_NUMPY, BY_ORT, BYTES, Datatype
from edge_runtime.errors import InvalidTensorError
from edge_runtime.tensors import (
    ALIGNMENT_BYTES,
    ELEMENTS_MAX,
    RANK_MAX,
    VARIABLE,
    Array,
    Signature,
    Tensor,
    TensorSpec,
    element_count,
    fits,
    from_buffer,
    receive_buffer,
    to_buffer,
)
from tests import strategies

FP32, INT64 = BY_NAME["FP32"], BY_NAME["INT64"]
sides = st.integers(-2, 2**70)


def spec(
    name: str, datatype: Datatype = FP32, shape: tuple[int, ...] = (VARIABLE, 2), symbol: str = ""
) -> TensorSpec:
    symbols = (symbol or None, *[None] * (len(shape) - 1)) if shape else ()
    return TensorSpec(name, datatype, shape, symbols)


def zeros(shape: tuple[int, ...], datatype: Datatype = FP32) -> Tensor:
    return Tensor(datatype, np.zeros(shape, datatype.numpy))


# -- bytes to tensors and back ------------------------------------------------------------------


@given(strategies.tensors)
def test_tensor_survives_its_bytes_to_the_last_bit(tensor: Tensor) -> None:
    data = bytes(to_buffer(tensor.datatype, tensor.array))
    back = from_buffer("x", tensor.datatype, tensor.array.shape, data)
    assert strategies.same(Tensor(tensor.datatype, back), tensor)


@given(strategies.tensors, st.integers(1, 7))
def test_misaligned_bytes_come_out_aligned(tensor: Tensor, shift: int) -> None:
    data = to_buffer(tensor.datatype, tensor.array)
    misplaced = memoryview(bytes(shift) + bytes(data))[shift:]
    back = from_buffer("x", tensor.datatype, tensor.array.shape, misplaced)
    assert back.flags.aligned
    assert strategies.same(Tensor(tensor.datatype, back), tensor)


def test_aligned_bytes_are_not_copied() -> None:
    data = receive_buffer(64, 0)
    array = from_buffer("x", FP32, [4, 4], data)
    assert np.shares_memory(array, np.asarray(data))


@pytest.mark.parametrize("count", [10, 10_000])
def test_parts_of_a_larger_array_give_only_their_own_bytes(count: int) -> None:
    columns = np.arange(2 * count, dtype="<i4").reshape(count, 2)[:, 1]
    assert bytes(to_buffer(BY_NAME["INT32"], columns)) == columns.tobytes()


def test_large_array_is_not_copied() -> None:
    array = np.zeros(100_000, "<f4")
    assert np.shares_memory(np.asarray(to_buffer(FP32, array)), array)


@given(strategies.tensors, st.binary(min_size=1, max_size=9))
def test_one_byte_too_many_or_too_few_is_refused(tensor: Tensor, more: bytes) -> None:
    data = bytes(to_buffer(tensor.datatype, tensor.array))
    shape = tensor.array.shape
    with pytest.raises(InvalidTensorError, match=r"needs \d+ bytes|do not hold exactly"):
        from_buffer("x", tensor.datatype, shape, data + more)
    if data:
        with pytest.raises(InvalidTensorError, match=r"needs \d+ bytes|do not hold|UTF-8"):
            from_buffer("x", tensor.datatype, shape, data[:-1])


@given(strategies.datatypes, st.lists(sides, max_size=70), st.binary(max_size=40))
def test_any_claimed_shape_is_taken_or_refused(
    datatype: Datatype, shape: list[int], data: bytes
) -> None:
    try:
        array = from_buffer("x", datatype, shape, data)
    except InvalidTensorError:
        return
    assert array.shape == tuple(shape)
    if datatype is not BYTES:
        assert array.nbytes == len(data)


@pytest.mark.parametrize(
    "shape",
    [[2**40, 2], [2**63], [2**62, 2**62, 2], [0, 2**70], [0, 2**39, 2**39], [2**64, 0]],
)
def test_shape_product_overflow_is_refused(shape: list[int]) -> None:
    with pytest.raises(InvalidTensorError, match=r"'big': shape .* is larger than any request"):
        element_count(shape, "big")


@pytest.mark.parametrize("rank", [RANK_MAX + 1, 100_000])
def test_shape_of_many_axes_is_refused_in_a_short_message(rank: int) -> None:
    with pytest.raises(InvalidTensorError, match=f"has {rank} axes; at most {RANK_MAX}") as raised:
        element_count([2**62] * rank, "deep")
    assert len(raised.value.message) < 200


def test_claim_of_many_strings_allocates_nothing() -> None:
    with pytest.raises(InvalidTensorError, match="do not hold exactly"):
        from_buffer("x", BYTES, [ELEMENTS_MAX], b"")


def test_negative_axis_is_refused() -> None:
    with pytest.raises(
        InvalidTensorError, match=r"'x': shape .* negative axis; give the real size"
    ):
        element_count([2, -1], "x")


@pytest.mark.parametrize("byte", [2, 255])
def test_boolean_byte_other_than_0_and_1_is_refused(byte: int) -> None:
    with pytest.raises(InvalidTensorError, match="'flag': a BOOL element is one byte, 0 or 1"):
        from_buffer("flag", BOOL, [2], bytes([1, byte]))


def test_string_that_is_not_utf8_is_refused_with_its_place() -> None:
    data = b"\x01\0\0\0a" + b"\x02\0\0\0\xc3\x28"
    with pytest.raises(InvalidTensorError, match="'text': element 1 is not UTF-8"):
        from_buffer("text", BYTES, [2], data)


@given(st.integers(0, 5000), st.integers(0, 5000))
def test_receive_buffer_is_aligned_where_the_tensors_begin(size: int, start: int) -> None:
    buffer = receive_buffer(size, start)
    assert len(buffer) == size
    address = int(np.asarray(buffer).ctypes.data)
    assert (address + start) % ALIGNMENT_BYTES == 0 or not size


# -- the datatype table -------------------------------------------------------------------------


def test_every_name_of_a_datatype_is_unique() -> None:
    assert len(BY_NAME) == len(BY_ORT) == len({each.onnx for each in ALL}) == len(ALL)
    assert len({each.triton for each in ALL}) == len(ALL)
    assert len(BY_NUMPY) == len(ALL) - 1  # BF16 travels as uint16


@pytest.mark.parametrize("datatype", ALL, ids=lambda each: each.name)
def test_datatype_table_agrees_with_numpy(datatype: Datatype) -> None:
    if datatype is not BYTES:
        assert np.dtype(datatype.numpy).itemsize == datatype.size_bytes
    assert (datatype.json == "none") == (datatype.name in {"FP16", "BF16"})


# -- signatures ---------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3), max_size=4), st.lists(st.integers(-1, 3), max_size=4))
def test_shape_fits_exactly_where_every_axis_agrees(shape: list[int], declared: list[int]) -> None:
    agrees = len(shape) == len(declared) and all(
        wanted in {size, VARIABLE} for size, wanted in zip(shape, declared, strict=False)
    )
    assert fits(tuple(shape), tuple(declared)) == agrees


TWO = Signature([spec("a", symbol="batch"), spec("b", symbol="batch")], [spec("y")])


def test_tensors_that_fit_are_handed_on_as_they_are() -> None:
    tensors = {"b": zeros((3, 2)), "a": zeros((3, 2))}
    feeds = TWO.check(tensors)
    assert {name: id(array) for name, array in feeds.items()} == {
        name: id(tensor.array) for name, tensor in tensors.items()
    }
    assert TWO.rows(feeds) == 3


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, r"missing 'a', 'b'; the model takes \['a', 'b'\]"),
        ({"a": zeros((1, 2))}, "missing 'b'"),
        ({"a": zeros((1, 2)), "B": zeros((1, 2))}, "missing 'b'; unknown 'B'"),
        ({each: zeros((1, 2)) for each in "abc"}, "unknown 'c'"),
        ({"a": zeros((1, 2), INT64), "b": zeros((1, 2))}, "'a' is INT64; the model takes FP32"),
        ({"a": zeros((1, 2)), "b": zeros((1, 3))}, r"'b' has shape \[1, 3\]; .* \[-1, 2\]"),
        ({"a": zeros((2,)), "b": zeros((1, 2))}, r"'a' has shape \[2\]; .* \[-1, 2\] \(-1: any"),
        ({"a": zeros((1, 2)), "b": zeros((2, 2))}, "'a' and 'b' must agree on axis 'batch'.*1 and"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(
    tensors: dict[str, Tensor], message: str
) -> None:
    with pytest.raises(InvalidTensorError, match=message):
        TWO.check(tensors)


def test_bf16_and_uint16_are_not_taken_for_each_other() -> None:
    signature = Signature([spec("x", BF16)], [])
    with pytest.raises(InvalidTensorError, match=r"'x' is UINT16; the model takes BF16"):
        signature.check({"x": zeros((1, 2), BY_NAME["UINT16"])})


@pytest.mark.parametrize(
    ("shape", "feeds", "rows"),
    [
        ((VARIABLE, 2), {"x": np.zeros((7, 2))}, 7),
        ((3, VARIABLE), {"x": np.zeros((3, 9))}, 1),
        ((), {"x": np.zeros(())}, 1),
    ],
)
def test_rows_are_counted_on_a_varying_first_axis_only(
    shape: tuple[int, ...], feeds: dict[str, Array], rows: int
) -> None:
    assert Signature([spec("x", shape=shape)], []).rows(feeds) == rows


@pytest.mark.parametrize(
    ("inputs", "output", "batchable"),
    [
        (((VARIABLE, 2), (VARIABLE,)), (VARIABLE, 2), True),
        (((VARIABLE, 2), (4,)), (VARIABLE, 2), False),
        (((VARIABLE, 2),), (2,), False),
        (((VARIABLE, 2),), (), False),
    ],
)
def test_only_all_varying_first_axes_make_a_model_batchable(
    inputs: tuple[tuple[int, ...], ...], output: tuple[int, ...], *, batchable: bool
) -> None:
    specs = [spec(str(index), shape=shape) for index, shape in enumerate(inputs)]
    assert Signature(specs, [spec("y", shape=output)]).batchable is batchable
