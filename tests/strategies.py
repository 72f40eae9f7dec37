"""Random tensors of every datatype, for property tests."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from edge_runtime.datatypes import ALL, BOOL, BYTES, Datatype
from edge_runtime.tensors import Array, Tensor

RANK_MAX = 4
SIDE_MAX = 3
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)

shapes = st.lists(st.integers(0, SIDE_MAX), max_size=RANK_MAX).map(tuple)
datatypes = st.sampled_from(ALL)
json_datatypes = st.sampled_from([each for each in ALL if each.json != "none"])
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


def _strings(texts: list[str], shape: tuple[int, ...]) -> Array:
    array: Array = np.empty(len(texts), object)
    array[:] = texts
    return array.reshape(shape)


def _of_bytes(datatype: Datatype, shape: tuple[int, ...], data: bytes) -> Array:
    return np.frombuffer(data, datatype.numpy).reshape(shape)


@st.composite
def arrays(draw: st.DrawFn, datatype: Datatype, shape: tuple[int, ...] | None = None) -> Array:
    """Any bits at all, so floats are often NaN or infinite."""
    sides = draw(shapes) if shape is None else shape
    count = int(np.prod(sides, dtype=int))
    if datatype is BYTES:
        return _strings(draw(st.lists(TEXT, min_size=count, max_size=count)), sides)
    size = count * datatype.size_bytes
    data = draw(st.binary(min_size=size, max_size=size))
    if datatype is BOOL:
        data = bytes(byte & 1 for byte in data)
    return _of_bytes(datatype, sides, data)


@st.composite
def finite_arrays(
    draw: st.DrawFn, datatype: Datatype, shape: tuple[int, ...] | None = None
) -> Array:
    """What JSON can carry."""
    array = draw(arrays(datatype, shape))
    if datatype.json == "float":
        array = np.where(np.isfinite(array), array, np.zeros((), datatype.numpy))
    return array


tensors = datatypes.flatmap(
    lambda datatype: arrays(datatype).map(lambda array: Tensor(datatype, array))
)
json_tensors = json_datatypes.flatmap(
    lambda datatype: finite_arrays(datatype).map(lambda array: Tensor(datatype, array))
)


def same(left: Tensor, right: Tensor) -> bool:
    """Tell whether two tensors are equal to the last bit."""
    if left.datatype is not right.datatype or left.array.shape != right.array.shape:
        return False
    if left.datatype is BYTES:
        equal: bool = left.array.tolist() == right.array.tolist()
        return equal
    return left.array.dtype == right.array.dtype and left.array.tobytes() == right.array.tobytes()


def nested(array: Array) -> Any:  # noqa: ANN401 - lists in lists
    """Give an array as nested lists; a scalar as the protocol has it, in one."""
    return array.tolist() if array.ndim else [array.item()]
