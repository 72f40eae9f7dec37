"""``--input NAME=VALUE``: files and JSON to the tensors that a model takes."""

import json
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge_runtime.datatypes import BF16, BY_NAME, BYTES, Datatype
from edge_runtime.errors import InvalidTensorError
from edge_runtime.protocol.json_data import pack
from edge_runtime.protocol.schemas import ModelMetadata, TensorMetadata
from edge_runtime.tensors import VARIABLE, Array, Tensor

SEED: Final = 0
_TEXT_KINDS: Final = "SU"
_JSON_KINDS: Final[dict[str, set[type]]] = {"str": {str}, "bool": {bool}, "int": {int}}


def read_inputs(arguments: Sequence[str], model: ModelMetadata) -> dict[str, Tensor]:
    """Read every input that the command line names.

    Args:
        arguments: ``NAME=VALUE`` each.
        model: What the model declares.

    Returns:
        Tensors by input name, in the model's datatypes.

    Raises:
        InvalidTensorError: An input is unknown, given twice, unreadable, or does not fit.
    """
    declared = {spec.name: spec for spec in model.inputs}
    tensors: dict[str, Tensor] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or not value:
            raise InvalidTensorError(
                f"--input {argument!r} is not NAME=VALUE, for example image=@image.npy"
            )
        spec = declared.get(name)
        if spec is None:
            raise InvalidTensorError(
                f"model {model.name!r} has no input {name!r}; it takes {', '.join(declared)}"
            )
        if name in tensors:
            raise InvalidTensorError(f"--input {name} is given twice")
        datatype = BY_NAME[spec.datatype]
        if value.startswith("@"):
            array = _converted(name, _read(name, value[1:]), datatype)
        else:
            array = _from_json(spec, datatype, value)
        if array.ndim == len(spec.shape) - 1 and spec.shape[0] == VARIABLE:
            array = array[np.newaxis]
        tensors[name] = Tensor(datatype, array)
    return tensors


def random_inputs(model: ModelMetadata, rows: int) -> dict[str, Tensor]:
    """Make up inputs, the same ones every time.

    Floats are in [0, 1), 8-bit images over their whole range; other integers are 0 or 1, which
    are an index into any table and a mask as well.

    Args:
        model: What the model declares.
        rows: Size of a varying first axis; other varying axes have size 1.
    """
    generator = np.random.default_rng(SEED)
    tensors = {}
    for spec in model.inputs:
        datatype = BY_NAME[spec.datatype]
        shape = [1 if size == VARIABLE else size for size in spec.shape]
        if spec.shape[:1] == (VARIABLE,):
            shape[0] = rows
        array: Array
        if datatype is BYTES:
            array = np.full(shape, "text", object)
        elif datatype is BF16:
            array = _bfloat16_bits(generator.random(shape, np.float32))
        elif datatype.json == "int":
            high = 256 if datatype.name == "UINT8" else 2
            array = generator.integers(0, high, shape).astype(datatype.numpy)
        elif datatype.json == "bool":
            array = generator.integers(0, 2, shape).astype(np.bool_)
        else:
            array = generator.random(shape).astype(datatype.numpy)
        tensors[spec.name] = Tensor(datatype, array)
    return tensors


def _read(name: str, place: str) -> Array:
    """Read ``FILE.npy``, or one array of ``FILE.npz:KEY``."""
    file, key = place, ""
    before, colon, after = place.rpartition(":")
    if colon and before.endswith(".npz"):
        file, key = before, after
    try:
        with Path(file).open("rb") as stream:  # numpy leaves a broken file open
            # Pickles run code; nothing here needs them.
            loaded: Any = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            keys = list(loaded)
            if not key and len(keys) == 1:
                key = keys[0]
            if key not in keys:
                raise InvalidTensorError(
                    f"--input {name}: {file} holds {', '.join(keys) or 'nothing'}; "
                    f"name one: @{file}:KEY"
                )
            array: Array = loaded[key]
            return array
    except OSError as error:
        said = error.strerror or str(error)
        raise InvalidTensorError(f"--input {name}: cannot read {file}: {said}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidTensorError(
            f"--input {name}: {file} is not a .npy or .npz file of numbers or text; "
            "write it with numpy.save()"
        ) from error


def _converted(name: str, array: Array, datatype: Datatype) -> Array:
    """Give an array the declared datatype, or refuse if values would change."""
    if datatype is BYTES:
        if array.dtype.kind not in _TEXT_KINDS:
            raise InvalidTensorError(f"--input {name}: the model takes text, not {array.dtype}")
        try:
            return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
        except UnicodeDecodeError as error:
            raise InvalidTensorError(f"--input {name}: a text is not UTF-8") from error
    if datatype is BF16:
        # numpy has no bfloat16: files hold it as 16-bit integers, or as 2 bytes of no type.
        if array.dtype.itemsize == BF16.size_bytes and array.dtype.kind in "uV":
            return array.view(BF16.numpy)
        raise InvalidTensorError(f"--input {name}: the model takes BF16; give its bits as uint16")
    if array.dtype == np.dtype(datatype.numpy):
        return array
    if array.dtype.kind in "biuf":
        with np.errstate(all="ignore"):  # what overflows is not equal afterwards
            converted: Array = array.astype(datatype.numpy)
            back = converted.astype(array.dtype)
        # Both: -1 comes back from 255 as it was, and 2**53 + 1 equals its neighbour as a float.
        nan = array.dtype.kind == "f"
        same = np.array_equal(back, array, equal_nan=nan)
        if same and np.array_equal(converted, array, equal_nan=nan and converted.dtype.kind == "f"):
            return converted
    wanted = np.dtype(datatype.numpy).name
    raise InvalidTensorError(
        f"--input {name}: the model takes {datatype.name}, and {array.dtype} would lose by it; "
        f"save array.astype({wanted!r}) if that is what you want"
    )


def _from_json(spec: TensorMetadata, datatype: Datatype, text: str) -> Array:
    try:
        nested = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidTensorError(
            f"--input {spec.name}: {text[:60]!r} is not JSON ({error}); a file is @FILE.npy"
        ) from error
    values, shape = _flattened(spec.name, nested)
    if len(shape) <= 1 and len(spec.shape) != len(shape):
        shape = _only_shape(spec, len(values))
    _check_kind(spec, datatype, values)
    if datatype.json != "none":
        return pack(spec.name, datatype, shape, values)
    single = pack(spec.name, BY_NAME["FP32"], shape, values)
    return _bfloat16_bits(single) if datatype is BF16 else _half(spec.name, single)


def _flattened(name: str, nested: Any) -> tuple[list[Any], list[int]]:  # noqa: ANN401 - JSON
    """Take the nesting off and give its shape: ``[]`` for a bare value."""
    shape: list[int] = []
    level = [nested]
    while level and isinstance(level[0], list):
        size = len(level[0])
        if not all(isinstance(part, list) and len(part) == size for part in level):
            raise InvalidTensorError(
                f"--input {name}: the lists of axis {len(shape)} have several lengths"
            )
        shape.append(size)
        level = [value for part in level for value in part]
    if any(isinstance(value, list | dict) or value is None for value in level):
        raise InvalidTensorError(f"--input {name}: lists and values are mixed, or not values")
    return level, shape


def _check_kind(spec: TensorMetadata, datatype: Datatype, values: list[Any]) -> None:
    """Refuse what Python would quietly convert: true is no number, and "no" is not true."""
    kinds = {type(value) for value in values}
    wanted = _JSON_KINDS.get(datatype.json, {int, float})
    if not kinds <= wanted:
        found = ", ".join(sorted(kind.__name__ for kind in kinds - wanted))
        raise InvalidTensorError(
            f"--input {spec.name}: the model takes {datatype.name}, the JSON holds {found}"
        )


def _only_shape(spec: TensorMetadata, count: int) -> list[int]:
    """Find the one shape that the model can mean for ``count`` values in a row."""
    shape = list(spec.shape)
    varying = [axis for axis, size in enumerate(shape) if size == VARIABLE]
    fixed = math.prod(size for size in shape if size != VARIABLE)
    if len(varying) == 1 and fixed and count % fixed == 0:
        shape[varying[0]] = count // fixed
    elif varying or fixed != count:
        raise InvalidTensorError(
            f"--input {spec.name}: {count} values do not say which shape of "
            f"{list(spec.shape)} (-1: any size) they have; nest the lists"
        )
    return shape


def _half(name: str, array: Array) -> Array:
    with np.errstate(over="ignore"):
        half: Array = array.astype(np.float16)
    if np.isinf(half).any() and np.isfinite(array).all():
        raise InvalidTensorError(f"--input {name}: a value is too large for FP16 (65504)")
    return half


def _bfloat16_bits(array: Array) -> Array:
    """Round FP32 to the nearest bfloat16 (ties to even), as raw bits; finite values only."""
    bits = array.astype(np.float32).view(np.uint32).astype(np.uint64)
    rounded: Array = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return rounded
