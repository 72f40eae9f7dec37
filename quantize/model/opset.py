"""Brings a graph into the form that everything after it expects.

That is: opset 17 or newer, a file format that goes with it, no model-local functions, no stored
tensor that is an input too, and an explicit version of ONNX's own operators.
"""

import re
from typing import Final

import onnx
from onnx import helper, inliner, version_converter

from quantize.errors import BadInputError
from quantize.model.operators import CONTRIBUTED, STANDARD, graphs, opset
from quantize.model.shapes import with_shapes
from quantize.model.source import early_nodes

OPSET_LEAST: Final = 17
"""LayerNormalization is one operator from here on; per-channel scales work from 13 on."""

_FORMAT_LEAST: Final = 4
_ASSERTION: Final = re.compile(r"^.*?Assertion `.*?` failed: ")  # with the converter's source file


def lifted(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Return a model in that form.

    Args:
        model: May be without its external weights, which are not looked at; is changed.
        name: Of its file, for messages.

    Raises:
        BadInputError: ONNX's converter cannot lift it; names the operator.
    """
    if model.functions:
        model = inliner.inline_local_functions(model)
    _name_domains(model)
    _drop_defaults(model)
    # Before version 4 of the format every stored tensor had to be an input too.
    model.ir_version = max(model.ir_version, _FORMAT_LEAST)
    if opset(model) < OPSET_LEAST:
        model = _converted(model, name)
    if not all(each.type.tensor_type.HasField("shape") for each in model.graph.output):
        with_shapes(model)
    least = helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    model.ir_version = max(model.ir_version, least)
    return model


def _converted(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    before = opset(model)
    early = list(early_nodes(model))
    moved = {node.output[0] for node in early}
    for node in early:  # the converter would look for them in versions that do not have them
        node.domain = CONTRIBUTED
    if early and CONTRIBUTED not in {each.domain for each in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(CONTRIBUTED, 1))
    model = with_shapes(model)  # some conversions ask for shapes that exporters leave out
    try:
        made = version_converter.convert_version(model, OPSET_LEAST)
    except Exception as error:  # the converter's errors share no base
        raise BadInputError(
            f"{name} is written for opset {before} and cannot be lifted to {OPSET_LEAST}: "
            f"{_culprit(model)}{_reason(error)}; export it again with opset {OPSET_LEAST} or newer"
        ) from error
    for graph in graphs(made):
        for node in graph.node:
            if node.domain == CONTRIBUTED and node.output[0] in moved:
                node.domain = ""
    if not made.metadata_props:
        made.metadata_props.extend(model.metadata_props)
    return made


def _culprit(model: onnx.ModelProto) -> str:
    """Name the first node that cannot be converted on its own; the converter does not."""
    graph = model.graph
    kinds = {each.name: each for each in (*graph.value_info, *graph.input, *graph.output)}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        taken = [name for name in node.input if name]
        inputs = [kinds[name] for name in taken if name in kinds]
        tensors = [stored[name] for name in taken if name in stored]
        outputs = [kinds.get(name) or onnx.ValueInfoProto(name=name) for name in node.output]
        alone = helper.make_model(
            helper.make_graph([node], "alone", inputs, outputs, tensors),
            opset_imports=model.opset_import,
        )
        try:
            version_converter.convert_version(alone, OPSET_LEAST)
        except Exception:  # noqa: BLE001 - the converter's errors share no base
            return f"operator {node.op_type} in node {node.name or node.output[0]!r}: "
    return ""


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return _ASSERTION.sub("", text)


def _name_domains(model: onnx.ModelProto) -> None:
    """Spell ONNX's own domain one way, and state its version where no node needs it."""
    for each in model.opset_import:
        if each.domain and each.domain in STANDARD:
            each.domain = ""
    for graph in graphs(model):
        for node in graph.node:
            if node.domain and node.domain in STANDARD:
                node.domain = ""
    if not opset(model):
        model.opset_import.append(helper.make_opsetid("", OPSET_LEAST))


def _drop_defaults(model: onnx.ModelProto) -> None:
    """Take stored tensors out of the inputs: what a caller may replace cannot be quantised."""
    for graph in graphs(model):
        stored = {tensor.name for tensor in graph.initializer}
        kept = [each for each in graph.input if each.name not in stored]
        if len(kept) < len(graph.input):
            del graph.input[:]
            graph.input.extend(kept)
