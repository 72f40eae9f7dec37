"""TensorFlow Serving's two ways of writing tensors: row by row, and as columns.

Source: TensorFlow Serving, RESTful API, "Predict API" and "Encoding binary values".
"""

import re
from typing import Any, Final

import msgspec

from edge_runtime.api.compat.json_tensors import decode_tensor, refuse_non_finite, to_json
from edge_runtime.api.compat.schemas import TensorFlowPredictAnswer
from edge_runtime.datatypes import BYTES
from edge_runtime.errors import InvalidRequestError, InvalidTensorError
from edge_runtime.protocol.json_data import reason
from edge_runtime.protocol.messages import InferResponse
from edge_runtime.tensors import Signature, Tensor

_encode: Final = msgspec.json.Encoder().encode
_rows: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_columns: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_nothing: Final = re.compile(rb"\s*\[\s*\]")
_list_of_objects: Final = re.compile(rb"\s*\[\s*\{")
_object: Final = re.compile(rb"\s*\{")
_base64: Final = re.compile(rb"[\s\[]*\{\s*\"b64\"\s*:")


def decode_rows(signature: Signature, instances: msgspec.Raw, json_depth: int) -> dict[str, Tensor]:
    """Decode ``instances``: rows of the only input, or objects of one row of every input.

    Args:
        signature: What the model takes; the first axis of every input is the row.
        instances: The undecoded list.
        json_depth: Deepest nesting of a tensor.

    Returns:
        Tensors by input name, of shape ``[rows, ...]``.

    Raises:
        InvalidRequestError: There are no rows, or they are not of one kind.
        InvalidTensorError: A row lacks an input, or is not of the model's datatype or shape.
    """
    for spec in signature.inputs:
        if not spec.shape:
            raise InvalidTensorError(
                f"input {spec.name!r} is a scalar and has no rows: give it as a column, "
                '{"inputs": {...}}'
            )
    text = memoryview(instances)
    if _nothing.fullmatch(text):
        raise InvalidRequestError("instances is an empty list: give at least one row")
    if not _list_of_objects.match(text) or _is_base64(signature, text):
        spec = _only_input(signature, "instances", "a list of objects by input name")
        return {spec.name: decode_tensor(spec, instances, json_depth)}
    rows = _decode(_rows, instances, "instances")
    names = signature.input_names
    for index, row in enumerate(rows):
        if row.keys() != names:
            raise InvalidTensorError(
                f"row {index} of instances has the inputs {sorted(row)}; "
                f"the model takes {sorted(names)}"
            )
    return {
        spec.name: decode_tensor(
            spec, b"[%b]" % b",".join([row[spec.name] for row in rows]), json_depth
        )
        for spec in signature.inputs
    }


def decode_columns(signature: Signature, inputs: msgspec.Raw, json_depth: int) -> dict[str, Tensor]:
    """Decode ``inputs``: the only input's tensor, or an object of tensors by input name.

    Args:
        signature: What the model takes.
        inputs: The undecoded JSON.
        json_depth: Deepest nesting of a tensor.

    Raises:
        InvalidRequestError: It is neither of the two.
        InvalidTensorError: An input is missing or unknown, or not of the model's datatype or
            number of axes.
    """
    text = memoryview(inputs)
    if not _object.match(text) or _is_base64(signature, text):
        spec = _only_input(signature, "inputs", "an object by input name")
        return {spec.name: decode_tensor(spec, inputs, json_depth)}
    columns = _decode(_columns, inputs, "inputs")
    if columns.keys() != signature.input_names:
        raise InvalidTensorError(
            f"inputs has {sorted(columns)}; the model takes {sorted(signature.input_names)}"
        )
    return {
        spec.name: decode_tensor(spec, columns[spec.name], json_depth) for spec in signature.inputs
    }


def encode_rows(response: InferResponse) -> bytes:
    """Encode an answer in row format.

    Raises:
        InvalidRequestError: The outputs do not have one row count, or JSON cannot carry them.
    """
    outputs = response.outputs
    counts = {output.array.shape[:1] for output in outputs}
    if len(counts) != 1 or () in counts:
        shapes = ", ".join(f"{output.name!r} {list(output.array.shape)}" for output in outputs)
        raise InvalidRequestError(
            f"the outputs do not have the same rows ({shapes}): ask for columns, "
            '{"inputs": {...}} in place of "instances"'
        )
    columns = [to_json(output) for output in outputs]
    if len(outputs) == 1:
        return _finite(response, TensorFlowPredictAnswer(predictions=columns[0]))
    names = [output.name for output in outputs]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return _finite(response, TensorFlowPredictAnswer(predictions=rows))


def encode_columns(response: InferResponse) -> bytes:
    """Encode an answer in column format.

    Raises:
        InvalidRequestError: JSON cannot carry an output.
    """
    columns = {output.name: to_json(output) for output in response.outputs}
    value = columns.popitem()[1] if len(columns) == 1 else columns
    return _finite(response, TensorFlowPredictAnswer(outputs=value))


def _finite(response: InferResponse, answer: TensorFlowPredictAnswer) -> bytes:
    text = _encode(answer)
    if b"null" in text:  # what msgspec writes for NaN and infinity
        for output in response.outputs:
            refuse_non_finite(output.name, output.datatype, output.array)
    return text


def _only_input(signature: Signature, where: str, instead: str) -> Any:  # noqa: ANN401
    if len(signature.inputs) != 1:
        raise InvalidRequestError(
            f"{where} names no inputs, and the model takes "
            f"{[spec.name for spec in signature.inputs]}: give {instead}"
        )
    return signature.inputs[0]


def _is_base64(signature: Signature, text: memoryview) -> bool:
    """Tell whether an object is a string in base64, and not a tensor's name with its value."""
    inputs = signature.inputs
    return len(inputs) == 1 and inputs[0].datatype is BYTES and bool(_base64.match(text))


def _decode(decoder: msgspec.json.Decoder[Any], data: msgspec.Raw, where: str) -> Any:  # noqa: ANN401
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"{where}: {reason(error)}") from error
