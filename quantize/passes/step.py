"""What a rewriting step is: what it requires, what it does, and what must be true afterwards."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx

from quantize.model import storage
from quantize.model.operators import (
    KNOWN_DOMAINS,
    is_quantized,
    nodes,
    opset,
    weights,
)
from quantize.model.opset import OPSET_LEAST

_Shape = tuple[int | None, ...] | None

_HIDDEN_SHARE: Final = 0.05  # folding may turn a small table of positions into a constant


@dataclass(frozen=True, slots=True)
class Subject:
    """A model file that steps look at.

    Attributes:
        path: Of the file.
        model: Its graph; weights that are kept in other files are not in it.
        size_bytes: Of the file and of the files it reads.
    """

    path: Path
    model: onnx.ModelProto
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Pass:
    """One rewriting step.

    Attributes:
        name: For the report.
        requires: Says why a model does not need the step or cannot go through it; empty: it may.
        call: Reads one file and writes another in the same folder; raises ``StepFailedError``.
        ensures: Says what is wrong with the result beyond what ``broken`` finds; empty: nothing.
        is_needed: Whether nothing can go on without it: it is kept though it is not faster, and
            its failure is the model's.
    """

    name: str
    requires: Callable[[Subject], str]
    call: Callable[[Path, Path], None]
    ensures: Callable[[Subject, Subject], str] = lambda _before, _after: ""
    is_needed: bool = False


def read_subject(path: Path) -> Subject:
    """Read a model file for the steps.

    Raises:
        BadInputError: It cannot be read.
        OSError: Nor can a file that it names.
        ModelLoadError: It names a file outside of its folder.
    """
    return Subject(path, storage.load_graph(path), storage.stored_bytes(path))


def always(_subject: Subject) -> str:
    """Require nothing."""
    return ""


def fits_in_memory(subject: Subject) -> str:
    """Require that one protobuf message can hold the model with all its weights."""
    if subject.size_bytes > storage.ONE_FILE_BYTES_MAX:
        return f"it has {subject.size_bytes / 1e9:.1f} GB, more than one protobuf message can hold"
    return ""


def broken(before: Subject, after: Subject) -> str:
    """Say what a step may never do and did; empty: nothing.

    Args:
        before: What the step was given.
        after: What it made of it.
    """
    if opset(after.model) < OPSET_LEAST:
        return f"its opset is {opset(after.model)}, not at least {OPSET_LEAST}"
    strangers = {node.domain for node in nodes(after.model)} - KNOWN_DOMAINS
    if strangers:
        return f"it needs the operators of {', '.join(sorted(strangers))}"
    if any(is_quantized(node.op_type) for node in nodes(after.model)):
        return "it is quantised"
    _, was = weights(before.model)
    every, now = weights(after.model)
    if now - was > _HIDDEN_SHARE * every:
        return f"it hides {now - was} of {every} weights from quantisers"
    return _interface_change(before.model, after.model) or _invalid(after.path)


def is_same_graph(before: Subject, after: Subject) -> bool:
    """Say whether two models do the same with the same: nodes may have other names."""
    return _outline(before.model) == _outline(after.model)


def _outline(model: onnx.ModelProto) -> tuple[object, ...]:
    lines = []
    for node in model.graph.node:
        bare = onnx.NodeProto.FromString(node.SerializeToString())
        bare.name = bare.doc_string = ""
        del bare.metadata_props[:]
        lines.append(bare.SerializeToString(deterministic=True))
    return lines, sorted((each.name, *each.dims) for each in model.graph.initializer)


def _interface_change(before: onnx.ModelProto, after: onnx.ModelProto) -> str:
    stored = {tensor.name for tensor in before.graph.initializer}
    fed = [each for each in before.graph.input if each.name not in stored]
    varies = any(None in (_declared(each)[2] or (None,)) for each in fed)
    for what, old, new in (
        ("inputs", fed, after.graph.input),
        ("outputs", before.graph.output, after.graph.output),
    ):
        was, now = [_declared(each) for each in old], [_declared(each) for each in new]
        if [each[:2] for each in was] != [each[:2] for each in now]:
            return f"its {what} are others"
        for (name, _, shape), (_, _, other) in zip(was, now, strict=True):
            may_know_more = what == "outputs" and not varies
            if not _is_shape_kept(shape, other, may_know_more=may_know_more):
                return f"the shape of {name!r} is {other}, not {shape}"
    return ""


def _is_shape_kept(shape: _Shape, other: _Shape, *, may_know_more: bool) -> bool:
    if shape is None or shape == other:
        return True
    if not may_know_more or other is None or len(other) != len(shape):
        return False
    return all(old in {None, new} for old, new in zip(shape, other, strict=True))


def _declared(value: onnx.ValueInfoProto) -> tuple[str, int, _Shape]:
    tensor = value.type.tensor_type
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(
            each.dim_value if each.HasField("dim_value") else None for each in tensor.shape.dim
        )
    return value.name, tensor.elem_type, shape


def _invalid(path: Path) -> str:
    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError) as error:
        return f"it is not valid: {' '.join(str(error).split())}"
    return ""
