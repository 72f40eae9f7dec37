"""JSON numbers, booleans and strings to arrays: the ``data`` of a tensor, flat or nested."""

import re
import struct
from itertools import chain
from typing import Any, Final

import msgspec
import numpy as np

from edge_runtime.datatypes import Datatype
from edge_runtime.errors import InvalidTensorError
from edge_runtime.tensors import Array, element_count

_ELEMENT: Final = {"float": float, "int": int, "bool": bool, "str": str}
_COUNT_ABOVE_BYTES: Final = 65_536  # smaller data cannot hurt, and is not worth the look
_brackets = re.compile(rb"[ \t\r\n\[]*")
_nested: dict[tuple[str, int], msgspec.json.Decoder[list[Any]]] = {}
_flat: Final[dict[str, msgspec.json.Decoder[list[Any]]]] = {
    kind: msgspec.json.Decoder(list[element])  # type: ignore[valid-type]
    for kind, element in _ELEMENT.items()
}


def decode_data(
    name: str, datatype: Datatype, shape: list[int], data: msgspec.Raw, json_depth: int
) -> Array:
    """Decode one tensor's JSON ``data``, flat or nested as its shape says.

    Args:
        name: The tensor's name, for messages.
        datatype: Element type.
        shape: Element counts per axis, as the request claims them.
        data: The undecoded JSON.
        json_depth: Deepest nesting accepted.

    Raises:
        InvalidTensorError: The data is not of that datatype or shape, or nested too deeply.
    """
    if datatype.json == "none":
        raise InvalidTensorError(
            f"input {name!r} is {datatype.name}, which JSON cannot carry: use the binary extension"
        )
    if len(memoryview(data)) > _COUNT_ABOVE_BYTES and datatype.json != "str":
        _refuse_surplus(name, shape, data)
    try:
        values = _flat[datatype.json].decode(data)  # the common case, without a look at the text
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        depth = _depth(data)
        if depth == 1:
            raise InvalidTensorError(f"input {name!r}: {reason(error)}") from error
        if depth > json_depth:
            raise InvalidTensorError(
                f"input {name!r}: data is nested deeper than {json_depth}"
            ) from error
        values = _decode_nested(name, datatype, shape, data, depth)
    return pack(name, datatype, shape, values)


def _refuse_surplus(name: str, shape: list[int], data: msgspec.Raw) -> None:
    """Refuse more elements than the shape holds before memory is spent on decoding them."""
    count = element_count(shape, name)
    elements = bytes(data).count(b",") + 1  # one comma between any two, nested or not
    if elements > max(count, 1):
        raise InvalidTensorError(
            f"tensor {name!r}: shape {shape} needs {count} elements, data has {elements}"
        )


def _depth(data: msgspec.Raw) -> int:
    """Count the brackets that open before the first element; what is no list counts as flat."""
    start = _brackets.match(data)
    return max(start[0].count(b"[") if start else 0, 1)


def _decode_nested(
    name: str, datatype: Datatype, shape: list[int], data: msgspec.Raw, depth: int
) -> list[Any]:
    decoder = _nested.get((datatype.json, depth))
    if decoder is None:
        kind: Any = _ELEMENT[datatype.json]
        for _ in range(depth):
            kind = list[kind]
        decoder = _nested[datatype.json, depth] = msgspec.json.Decoder(kind)
    try:
        values = decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidTensorError(f"input {name!r}: {reason(error)}") from error
    return _flatten(name, values, shape, depth)


def from_elements(name: str, datatype: Datatype, shape: list[int], values: list[Any]) -> Array:
    """Turn elements of any JSON type, already decoded, into an array.

    Args:
        name: The tensor's name, for messages.
        datatype: Element type.
        shape: Element counts per axis.
        values: Elements in row-major order, flat.

    Raises:
        InvalidTensorError: An element is not of that datatype, or the count is not the shape's.
    """
    if datatype.json == "none":
        raise InvalidTensorError(f"tensor {name!r} is {datatype.name}, which JSON cannot carry")
    kind: Any = _ELEMENT[datatype.json]
    try:
        elements = msgspec.convert(values, list[kind])
    except msgspec.ValidationError as error:
        raise InvalidTensorError(f"tensor {name!r}: {reason(error)}") from error
    return pack(name, datatype, shape, elements)


def _flatten(name: str, values: list[Any], shape: list[int], depth: int) -> list[Any]:
    """Take the nesting off, after checking that it is the shape's."""
    # An empty axis ends the brackets early: [[]] is shape [1, 0, n] for every n.
    if depth != len(shape) and (depth > len(shape) or 0 not in shape[:depth]):
        raise InvalidTensorError(
            f"input {name!r}: data is nested {depth} deep, shape {shape} has {len(shape)} axes"
        )
    level: list[Any] = [values]
    for axis in range(depth):
        size = shape[axis]
        if any(len(part) != size for part in level):
            raise InvalidTensorError(
                f"input {name!r}: data does not have shape {shape} (axis {axis} is not {size})"
            )
        level = list(chain.from_iterable(level))
    return level


def pack(name: str, datatype: Datatype, shape: list[int], values: list[Any]) -> Array:
    """Turn decoded JSON elements into an array; a value out of range is refused, never wrapped.

    Args:
        name: The tensor's name, for messages.
        datatype: Element type.
        shape: Element counts per axis.
        values: Elements in row-major order.

    Raises:
        InvalidTensorError: The count is not the shape's, or an element does not fit the datatype.
    """
    count = element_count(shape, name)
    if count != len(values):
        raise InvalidTensorError(
            f"tensor {name!r}: shape {shape} needs {count} elements, data has {len(values)}"
        )
    if datatype.json == "str":
        strings: Array = np.empty(count, object)
        strings[:] = values
        return strings.reshape(shape)
    try:
        data = struct.pack(f"<{count}{datatype.pack}", *values)
    except (struct.error, OverflowError) as error:
        raise InvalidTensorError(
            f"tensor {name!r}: an element does not fit {datatype.name} ({error})"
        ) from error
    return np.ndarray(shape, datatype.numpy, data)


def reason(error: Exception) -> str:
    """Say why a JSON decoder refused, in words for the caller."""
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
