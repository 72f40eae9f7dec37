"""Tensors as JSON whose nesting is their shape, the way TensorFlow Serving writes them.

The element type and the number of axes come from the model, not from the text; so a decoder for
exactly that type does the work, and nothing is nested deeper than the model says.
"""

import base64
import binascii
from itertools import chain
from typing import Any, Final

import msgspec
import numpy as np

from edge_runtime.datatypes import BYTES, Datatype
from edge_runtime.errors import InvalidRequestError, InvalidTensorError
from edge_runtime.protocol.json_data import pack, reason
from edge_runtime.protocol.messages import OutputTensor
from edge_runtime.protocol.shortest import shortest
from edge_runtime.tensors import Array, Tensor, TensorSpec

BINARY_ADVICE: Final = "use the binary extension of POST /v2/models/NAME/infer"
_BYTES_SUFFIX: Final = "_bytes"  # TensorFlow's mark of strings that are not text


class Base64(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """``{"b64": "..."}``: bytes in JSON."""

    b64: str


_ELEMENT: Final[dict[str, Any]] = {"float": float, "int": int, "bool": bool, "str": str | Base64}
_decoders: dict[tuple[str, int], msgspec.json.Decoder[Any]] = {}


def decode_tensor(spec: TensorSpec, data: msgspec.Raw | bytes, json_depth: int) -> Tensor:
    """Decode one tensor.

    Args:
        spec: What the model takes; its sizes are left for ``Signature.check``.
        data: The undecoded JSON: lists as deep as the model has axes; no list for a scalar.
        json_depth: Deepest nesting accepted.

    Raises:
        InvalidTensorError: The JSON is not of the model's datatype or depth, or is ragged.
    """
    depth = len(spec.shape)
    if depth > json_depth:
        raise InvalidTensorError(
            f"input {spec.name!r} has {depth} axes, nested deeper than {json_depth} "
            f"(limits.json_depth): {BINARY_ADVICE}"
        )
    values = decode_values(spec, depth, data, _takes(spec))
    shape, elements = _flatten(spec, values, depth)
    return tensor(spec, shape, elements)


def decode_values(
    spec: TensorSpec,
    depth: int,
    data: msgspec.Raw | bytes,
    wanted: str,
) -> Any:  # noqa: ANN401 - lists of numbers or strings
    """Decode lists of a model's elements.

    Args:
        spec: Says what the elements are.
        depth: How deep the lists are nested; 0 for an element without a list.
        data: The undecoded JSON.
        wanted: What is taken, in words, for messages.

    Raises:
        InvalidTensorError: It is something else; says what, and where in the JSON.
    """
    datatype = spec.datatype
    if datatype.json == "none":
        raise InvalidTensorError(
            f"input {spec.name!r} is {datatype.name}, which JSON cannot carry: {BINARY_ADVICE}"
        )
    key = (datatype.json, depth)
    decoder = _decoders.get(key)
    if decoder is None:
        kind: Any = _ELEMENT[datatype.json]
        for _ in range(depth):
            kind = list[kind]
        decoder = _decoders[key] = msgspec.json.Decoder(kind)
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidTensorError(f"input {spec.name!r}: {reason(error)}; {wanted}") from error


def tensor(spec: TensorSpec, shape: list[int], elements: list[Any]) -> Tensor:
    """Turn decoded elements in row-major order into a tensor.

    Raises:
        InvalidTensorError: An element does not fit the datatype, or base64 holds no UTF-8 text.
    """
    if spec.datatype is BYTES:
        elements = [_text(spec, element) for element in elements]
    return Tensor(spec.datatype, pack(spec.name, spec.datatype, shape, elements))


def to_json(output: OutputTensor) -> Any:  # noqa: ANN401 - a number, a string, or lists of them
    """Give an output as nested lists that JSON can carry.

    Strings of an output whose name ends with ``_bytes`` become ``{"b64": "..."}``, as do bytes.

    Raises:
        InvalidRequestError: The datatype has no JSON form.
    """
    if output.datatype.json == "none":
        raise InvalidRequestError(
            f"output {output.name!r} is {output.datatype.name}, which JSON cannot carry: "
            f"{BINARY_ADVICE}"
        )
    if output.datatype is not BYTES:
        return numbers(output.array)
    as_bytes = output.name.endswith(_BYTES_SUFFIX)
    elements = [
        element if isinstance(element, str) and not as_bytes else _base64(element)
        for element in output.array.reshape(-1).tolist()
    ]
    array: Array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(output.array.shape).tolist()


def numbers(array: Array) -> Any:  # noqa: ANN401 - a number, or lists of them
    """Give an array as nested lists whose JSON reads back as the same numbers, and is short."""
    return (shortest(array) if array.dtype == np.float32 else array).tolist()


def refuse_non_finite(name: str, datatype: Datatype, array: Array) -> None:
    """Refuse to answer NaN or infinity: JSON has neither, and ``null`` would be a lie.

    Raises:
        InvalidRequestError: The array holds one.
    """
    if datatype.json == "float" and not np.isfinite(array).all():
        raise InvalidRequestError(
            f"output {name!r} holds NaN or infinity, which JSON cannot carry: {BINARY_ADVICE}"
        )


def _flatten(spec: TensorSpec, values: Any, depth: int) -> tuple[list[int], list[Any]]:  # noqa: ANN401
    """Take the nesting off, and give the shape that it had."""
    if not depth:
        return [], [values]
    shape: list[int] = []
    level: list[Any] = [values]
    for axis in range(depth):
        size = len(level[0]) if level else 0
        if any(len(part) != size for part in level):
            other = next(len(part) for part in level if len(part) != size)
            raise InvalidTensorError(
                f"input {spec.name!r} is ragged: along axis {axis} there are {size} elements "
                f"first and then {other}; {_takes(spec)}"
            )
        shape.append(size)
        level = list(chain.from_iterable(level))
    return shape, level


def _text(spec: TensorSpec, element: str | Base64) -> str:
    if isinstance(element, str):
        return element
    try:
        return base64.b64decode(element.b64, validate=True).decode()
    except binascii.Error as error:
        raise InvalidTensorError(f"input {spec.name!r}: b64 is not base64: {error}") from error
    except UnicodeDecodeError as error:
        raise InvalidTensorError(
            f"input {spec.name!r}: b64 does not hold UTF-8, and ONNX strings are text; send bytes "
            "as the UINT8 tensor of a model that takes one"
        ) from error


def _base64(element: str | bytes) -> dict[str, str]:
    data = element.encode() if isinstance(element, str) else element
    return {"b64": base64.b64encode(data).decode()}


def _takes(spec: TensorSpec) -> str:
    return f"the model takes {spec.datatype.name} of shape {list(spec.shape)} (-1: any size)"
