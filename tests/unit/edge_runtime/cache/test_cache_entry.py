"""Kept answers: nobody can change them, and what is read is what was written."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.cache.entry import CorruptEntryError, decode, encode, entry
from edge_runtime.datatypes import ALL, BY_NAME, BYTES, Datatype
from edge_runtime.tensors import Tensor
from tests.strategies import names, same, tensors

FP32 = BY_NAME["FP32"]
outputs = st.dictionaries(names, tensors, max_size=4)


@given(outputs)
def test_what_is_written_is_read_back_to_the_last_bit(written: dict[str, Tensor]) -> None:
    read = decode(encode(written))
    assert list(read) == list(written)
    for name, tensor in written.items():
        assert same(read[name], tensor)
        assert not read[name].array.flags.writeable
        assert read[name].array.flags.aligned


@pytest.mark.parametrize("datatype", ALL, ids=lambda it: it.name)
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0, 2), ()])
def test_empty_and_scalar_outputs_are_read_back(datatype: Datatype, shape: tuple[int, ...]) -> None:
    array = np.full(shape, "" if datatype is BYTES else 0, datatype.numpy)
    assert same(decode(encode({"x": Tensor(datatype, array)}))["x"], Tensor(datatype, array))


@given(outputs, st.data())
def test_a_shortened_or_lengthened_answer_is_refused(
    written: dict[str, Tensor], data: st.DataObject
) -> None:
    payload = encode(written)
    with pytest.raises(CorruptEntryError):
        decode(payload + bytes(data.draw(st.integers(1, 40))))
    with pytest.raises(CorruptEntryError):
        decode(payload[: data.draw(st.integers(0, len(payload) - 1))])


@given(st.binary(max_size=200))
def test_anything_else_is_read_or_refused_and_never_more_than_that(payload: bytes) -> None:
    with contextlib.suppress(CorruptEntryError):
        decode(payload)


@given(outputs, st.data())
def test_a_changed_byte_is_read_or_refused_and_never_more_than_that(
    written: dict[str, Tensor], data: st.DataObject
) -> None:
    payload = bytearray(encode(written))
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(CorruptEntryError):
        decode(bytes(payload))


def test_a_kept_array_cannot_be_written_to() -> None:
    array = np.ones(3, np.float32)
    kept = entry({"x": Tensor(FP32, array)}, 0, 0)
    with pytest.raises(ValueError, match="read-only"):
        kept.tensors["x"].array[0] = 2
    assert kept.tensors["x"].array is array  # a whole array is not copied


def test_a_row_of_a_shared_run_does_not_keep_the_other_rows() -> None:
    whole = np.ones((64, 100), np.float32)
    kept = entry({"x": Tensor(FP32, whole[3:4])}, 0, 0)
    assert kept.tensors["x"].array.base is None
    whole[:] = 7
    assert kept.tensors["x"].array.max() == 1
    assert kept.size_bytes < 3000


def test_outputs_come_in_the_order_asked_for() -> None:
    one, two = np.zeros(1, np.float32), np.ones(1, np.float32)
    kept = entry({"a": Tensor(FP32, one), "b": Tensor(FP32, two)}, 0, 0)
    assert [array.item() for array in kept.outputs(["b", "a", "b"])] == [1, 0, 1]


def test_the_size_counts_what_strings_take() -> None:
    long = np.array(["x" * 10_000], object)
    assert entry({"x": Tensor(BYTES, long)}, 0, 0).size_bytes > 10_000
