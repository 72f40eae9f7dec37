"""numpy arrays to tensors of the protocol, and back."""

from importlib import import_module
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from edge_runtime.datatypes import ALL, BF16, BY_NUMPY, BYTES
from edge_runtime.errors import InvalidTensorError
from edge_runtime.tensors import Array, Tensor

Input = ArrayLike | Tensor

_BF16_NAME: Final = "bfloat16"  # ml_dtypes' dtype, known by name: ml_dtypes itself is optional
_TEXT_KINDS: Final = "OSTU"  # numpy's kinds of objects, bytes and both kinds of text


def to_tensor(name: str, value: Input) -> Tensor:
    """Turn an input of the caller into a tensor that the codec can send.

    Args:
        name: The input's name, for messages.
        value: An array of any layout and byte order (or what numpy makes one of); text as ``U``,
            ``S`` or objects of ``str`` and UTF-8 ``bytes``; BF16 as ``ml_dtypes.bfloat16``. A
            ``Tensor`` says its datatype itself (raw BF16 bits in ``<u2``).

    Returns:
        The tensor; large arrays in the right byte order are not copied here.

    Raises:
        InvalidTensorError: The protocol has no such datatype, or a text is none.
    """
    if isinstance(value, Tensor):
        return value
    try:
        array: Array = np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidTensorError(f"input {name!r} is not an array: {error}") from error
    dtype = array.dtype
    datatype = BY_NUMPY.get(dtype.str)
    if datatype is not None and datatype is not BYTES:
        return Tensor(datatype, array)
    if dtype.kind in _TEXT_KINDS:
        return Tensor(BYTES, _texts(name, array))
    if dtype.name == _BF16_NAME:
        return Tensor(BF16, array.view(np.uint16))
    little = dtype.newbyteorder("<")
    datatype = BY_NUMPY.get(little.str)
    if datatype is None:
        known = ", ".join(datatype.name for datatype in ALL)
        raise InvalidTensorError(
            f"input {name!r} has dtype {dtype}, which the protocol cannot carry ({known}); "
            "convert it with astype()"
        )
    return Tensor(datatype, array.astype(little))


def to_array(tensor: Tensor) -> Array:
    """Turn an output into the array for the caller, which may be written to.

    Args:
        tensor: As decoded.

    Returns:
        The array; BF16 as ``ml_dtypes.bfloat16`` if that package is installed, else its raw bits
        as ``uint16``.
    """
    datatype, array = tensor
    if not array.flags.writeable:  # of JSON; binary outputs are views of memory that is ours
        array = array.copy()
    if datatype is BF16:
        try:
            bfloat16: Any = import_module("ml_dtypes").bfloat16
        except ImportError:
            return array
        viewed: Array = array.view(bfloat16)
        return viewed
    return array


def refuse_non_finite(inputs: dict[str, Tensor]) -> None:
    """Refuse what JSON cannot carry.

    Args:
        inputs: Tensors that are to travel as JSON.

    Raises:
        InvalidTensorError: One holds NaN or infinity.
    """
    for name, (datatype, array) in inputs.items():
        if datatype.json == "float" and not np.isfinite(array).all():
            raise InvalidTensorError(
                f"input {name!r} holds NaN or infinity, which JSON cannot carry: send it as binary"
            )


def _texts(name: str, array: Array) -> Array:
    """Make an object array of ``str``: JSON would turn ``bytes`` into base64."""
    texts: list[str] = []
    for element in array.reshape(-1).tolist():
        if isinstance(element, str):
            texts.append(element)
        elif isinstance(element, bytes):
            try:
                texts.append(element.decode())
            except UnicodeDecodeError as error:
                raise InvalidTensorError(
                    f"input {name!r}: element {len(texts)} is not UTF-8; ONNX strings are text"
                ) from error
        else:
            raise InvalidTensorError(
                f"input {name!r}: element {len(texts)} is {type(element).__name__}, not text; "
                "numbers need a numeric dtype"
            )
    objects: Array = np.empty(len(texts), object)
    objects[:] = texts
    return objects.reshape(array.shape)
