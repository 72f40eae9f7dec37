"""A row of features to a model's input, and its outputs to one prediction with its confidence.

Pure. Which output is the label and which holds the scores is decided once for a signature.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, Final, NamedTuple

import msgspec

from edge_runtime.api.compat.json_tensors import (
    decode_values,
    numbers,
    refuse_non_finite,
    tensor,
    to_json,
)
from edge_runtime.errors import InvalidRequestError, InvalidTensorError
from edge_runtime.protocol.messages import InferResponse, OutputTensor, RequestedOutput
from edge_runtime.tensors import VARIABLE, Array, Signature, Tensor, TensorSpec

_INSTEAD: Final = "use POST /v2/models/NAME/infer, or /v1/models/NAME:predict"
_list_of_lists: Final = re.compile(rb"\s*\[\s*\[")


class Rows(NamedTuple):
    """Decoded features.

    Attributes:
        tensor: The model's input.
        given: Rows given.
        is_list: Whether they came as a list of rows, so that lists must be answered.
    """

    tensor: Tensor
    given: int
    is_list: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model is used through features.

    Attributes:
        input: The only input.
        outputs: The outputs that are needed.
        label: Name of the output that holds the predicted class, or empty.
        scores: Name of the output that holds one score per class, or the values; or empty.
        labels: Names of the classes, in the order of the scores; empty where unknown.
    """

    input: TensorSpec
    outputs: tuple[RequestedOutput, ...]
    label: str
    scores: str
    labels: tuple[str, ...]

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row: the input's without its first axis, where that varies."""
        shape = self.input.shape
        return shape[1:] if self.has_rows else shape

    @property
    def has_rows(self) -> bool:
        """Whether the model takes several rows at a time."""
        return self.input.shape[:1] == (VARIABLE,)


@lru_cache(maxsize=64)
def plan(signature: Signature) -> Plan:
    """Decide how a model is used through features.

    Raises:
        InvalidRequestError: It takes several inputs, or nobody can tell which output is meant.
    """
    if len(signature.inputs) != 1:
        raise InvalidRequestError(
            f"features fit a model with one input; this one takes "
            f"{[spec.name for spec in signature.inputs]}: {_INSTEAD}"
        )
    floats = [each for each in signature.outputs.values() if each.datatype.json == "float"]
    others = [
        each for each in signature.outputs.values() if each.datatype.json in {"int", "bool", "str"}
    ]
    scores = _scores(floats)
    label = _label(others, alone=not floats)
    wanted = [spec.name for spec in (label, scores) if spec is not None]
    if not wanted:
        raise InvalidRequestError(
            f"no output of {list(signature.outputs)} can be told to be the prediction (a name "
            f"with 'prob', 'score', 'label' or 'class', or labels in the manifest): {_INSTEAD}"
        )
    return Plan(
        input=signature.inputs[0],
        outputs=tuple(RequestedOutput(name) for name in wanted),
        label=label.name if label else "",
        scores=scores.name if scores else "",
        labels=scores.labels if scores else (),
    )


def decode(how: Plan, features: msgspec.Raw, model: str) -> Rows:
    """Decode one row of features, or a list of rows.

    Args:
        how: How the model is used.
        features: The undecoded JSON.
        model: The model's name, for messages.

    Raises:
        InvalidTensorError: A row does not have as many features as the model takes, they are not
            of its datatype, or there are more rows than it takes.
    """
    spec = how.input
    wanted = f"features are a flat list of {spec.datatype.name}, or a list of such rows"
    if _list_of_lists.match(features):
        rows, is_list = decode_values(spec, 2, features, wanted), True
        if len(rows) > 1 and not how.has_rows:
            raise InvalidTensorError(f"model {model!r} takes one row at a time, {len(rows)} given")
    else:
        rows, is_list = [decode_values(spec, 1, features, wanted)], False
    shape = _shape_of_row(how, len(rows[0]), model)
    for index, row in enumerate(rows):
        _check_count(how, len(row), len(rows[0]), f"row {index}: " if is_list else "", model)
    whole = [len(rows), *shape] if how.has_rows else shape
    elements = [element for row in rows for element in row]
    return Rows(tensor(spec, whole, elements), len(rows), is_list)


def predictions(how: Plan, count: int, response: InferResponse) -> tuple[list[Any], list[Any]]:
    """Give the prediction and the confidence of each row.

    Args:
        how: How the model is used.
        count: Rows that were given.
        response: What the model gave.

    Returns:
        The label output where there is one, else the label or index of the highest score, else
        the model's value; and the highest score, or ``None`` where there are no scores.

    Raises:
        InvalidRequestError: The outputs are not one per row, or hold NaN or infinity.
    """
    outputs = {output.name: output for output in response.outputs}
    table = _score_table(outputs.get(how.scores), count)
    if table is None:
        return _rows(outputs[how.label or how.scores], count), [None] * count
    confidence = numbers(table.max(axis=1))
    if how.label:
        return _rows(outputs[how.label], count), confidence
    best: list[int] = table.argmax(axis=1).tolist()
    names = how.labels
    return [names[index] if index < len(names) else index for index in best], confidence


def _scores(floats: list[TensorSpec]) -> TensorSpec | None:
    for candidates in (
        [spec for spec in floats if spec.labels],
        [spec for spec in floats if "prob" in spec.name.lower()],
        [spec for spec in floats if "score" in spec.name.lower()],
        floats,
    ):
        if len(candidates) == 1:
            return candidates[0]
    return None


def _label(others: list[TensorSpec], *, alone: bool) -> TensorSpec | None:
    named = [
        spec for spec in others if "label" in spec.name.lower() or "class" in spec.name.lower()
    ]
    if len(named) == 1:
        return named[0]
    return others[0] if alone and len(others) == 1 else None


def _shape_of_row(how: Plan, given: int, model: str) -> list[int]:
    """Fill in the one axis that may vary."""
    shape = list(how.row_shape)
    varying = [axis for axis, size in enumerate(shape) if size == VARIABLE]
    if len(varying) > 1:
        raise InvalidTensorError(
            f"model {model!r} takes {how.input.name!r} of shape {list(how.input.shape)}, which a "
            f"list of features cannot say: {_INSTEAD}"
        )
    if varying:
        unit = prod(size for size in shape if size != VARIABLE)
        shape[varying[0]] = given // unit if unit else 0
        if not given or prod(shape) != given:
            raise InvalidTensorError(
                f"model {model!r} takes a multiple of {unit} features, {given} given"
            )
    return shape


def _check_count(how: Plan, given: int, first: int, where: str, model: str) -> None:
    takes = first if VARIABLE in how.row_shape else prod(how.row_shape)
    if given != takes:
        raise InvalidTensorError(
            f"{where}model {model!r} takes {takes} features"
            f"{' (as in the first row)' if VARIABLE in how.row_shape else ''}, {given} given"
        )


def _rows(output: OutputTensor, count: int) -> list[Any]:
    """Give one value per row: a plain one where a row has one element."""
    array = output.array
    refuse_non_finite(output.name, output.datatype, array)
    if array.size == count:
        flat = OutputTensor(output.name, output.datatype, array.reshape(-1), output.binary)
        return list(to_json(flat))
    if array.ndim and array.shape[0] == count:
        return list(to_json(output))
    if count == 1:
        return [to_json(output)]
    raise InvalidRequestError(
        f"output {output.name!r} has shape {list(array.shape)} for {count} rows, so nobody can "
        f"tell which part belongs to which: {_INSTEAD}"
    )


def _score_table(output: OutputTensor | None, count: int) -> Array | None:
    """Give the scores as ``[rows, classes]``, or nothing where the output has no classes."""
    if output is None:
        return None
    array = output.array
    refuse_non_finite(output.name, output.datatype, array)
    if array.ndim == 1 and count == 1:
        array = array.reshape(1, -1)
    match array.shape:
        case (rows, classes) if rows == count and classes > 1:
            return array
        case _:
            return None
