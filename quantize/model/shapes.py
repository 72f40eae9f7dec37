"""Writes down the type and shape of every tensor, as far as somebody knows them.

Three ways know different things: ONNX's own inference, with and without values of small tensors,
and ONNX Runtime's symbolic one, which knows its own operators. What fails is left out.
"""

import contextlib
import io
import logging
from typing import Any, Final

import onnx
from onnx import helper, shape_inference

from quantize.model.operators import CONTRIBUTED, elements

_STEERING: Final = 256  # elements; larger tensors are weights, not shapes or axes
_SYMBOLIC_LARGEST: Final = 2**31 - 1


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with what could be inferred; at worst as it is.

    Args:
        model: May be without its external weights. Is changed.
    """
    made = _inferred(_without_weights(model))
    if unknown(made) and any(node.domain == CONTRIBUTED for node in made.graph.node):
        better = _symbolic(made)
        if better is not None and unknown(better) < unknown(made):
            made = better
    known = list(made.graph.value_info)
    del model.graph.value_info[:]
    model.graph.value_info.extend(known)
    for output, found in zip(model.graph.output, made.graph.output, strict=True):
        if not output.type.tensor_type.HasField("shape"):
            output.type.CopyFrom(found.type)
    return model


def unknown(model: onnx.ModelProto) -> int:
    """Count the tensors of the main graph whose element type nobody knows."""
    graph = model.graph
    known = {
        each.name
        for each in (*graph.value_info, *graph.output)
        if each.type.tensor_type.elem_type or each.type.WhichOneof("value") != "tensor_type"
    }
    return len({name for node in graph.node for name in node.output if name} - known)


def dimensions(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    """Return the known shapes of the main graph's tensors; ``None`` for an axis that varies."""
    graph = model.graph
    found: dict[str, tuple[int | None, ...]] = {
        tensor.name: tuple(tensor.dims) for tensor in graph.initializer
    }
    for value in (*graph.value_info, *graph.input, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            found[value.name] = tuple(
                each.dim_value if each.HasField("dim_value") else None
                for each in value.type.tensor_type.shape.dim
            )
    return found


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model with its weights as inputs: their shapes count, and their bytes only cost."""
    graph = model.graph
    small = [each for each in graph.initializer if elements(each) <= _STEERING]
    fed = {each.name for each in (*graph.input, *small)}
    weights = [
        helper.make_tensor_value_info(each.name, each.data_type, each.dims)
        for each in graph.initializer
        if each.name not in fed
    ]
    bare = helper.make_graph(
        graph.node,
        graph.name or "graph",
        [*graph.input, *weights],
        graph.output,
        small,
        value_info=graph.value_info,
        sparse_initializer=graph.sparse_initializer,
    )
    return helper.make_model(
        bare,
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
        functions=model.functions,
    )


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    for with_values in (True, False):
        with contextlib.suppress(Exception):  # the library's errors share no base
            return shape_inference.infer_shapes(model, data_prop=with_values)
    return model


def _symbolic(model: onnx.ModelProto) -> onnx.ModelProto | None:
    # It prints and logs about every node that it does not know.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
        from onnxruntime.tools import symbolic_shape_infer  # noqa: PLC0415 - slow, seldom needed

        logging.getLogger(symbolic_shape_infer.__name__).setLevel(logging.CRITICAL)
        made: Any = symbolic_shape_infer.SymbolicShapeInference.infer_shapes(
            model, int_max=_SYMBOLIC_LARGEST, auto_merge=True, guess_output_rank=False, verbose=0
        )
        return made
    return None
