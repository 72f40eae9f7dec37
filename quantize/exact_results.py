"""Leaves the last layers' results as they come: nothing that follows them takes integers.

ONNX Runtime's quantiser rounds the result of every layer to 256 steps. Where only nodes in float
read it, or it is an output of the model, that costs accuracy and a node, and gives nothing: the
kernels of matrix products give floats just as well.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

import onnx

_PRODUCTS: Final = frozenset({"Gemm", "MatMul"})


def keep_exact(model: onnx.ModelProto) -> int:
    """Take the rounding off results of matrix products that only nodes in float read.

    Args:
        model: With ``QuantizeLinear`` and ``DequantizeLinear``; changed in place.

    Returns:
        How many were taken off.
    """
    graph = model.graph
    makers = {tensor: node for node in graph.node for tensor in node.output}
    takers = defaultdict(list)
    for node in graph.node:
        for tensor in node.input:
            takers[tensor].append(node)
    outputs = {value.name for value in graph.output}
    gone: list[onnx.NodeProto] = []
    for rounding in graph.node:
        if rounding.op_type != "QuantizeLinear":
            continue
        product, back = makers.get(rounding.input[0]), takers[rounding.output[0]]
        if (
            product is None
            or product.op_type not in _PRODUCTS
            or not reads_integers(product, makers)
            or len(takers[rounding.input[0]]) != 1
            or rounding.input[0] in outputs
            or [node.op_type for node in back] != ["DequantizeLinear"]
        ):
            continue
        result = back[0].output[0]
        followers = takers[result]
        if all(_stays_float(node, takers) for node in followers):
            product.output[0] = result
            gone += [rounding, back[0]]
    for node in gone:
        graph.node.remove(node)
    if gone:
        _drop_unread(graph)
    return len(gone) // 2


def reads_integers(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto]) -> bool:
    """Say whether a product is computed in integers, whatever becomes of its result.

    Args:
        node: Takes two factors first.
        makers: Node by the tensor that it makes.
    """
    found = [makers.get(tensor) for tensor in node.input[:2]]
    return all(maker is not None and maker.op_type == "DequantizeLinear" for maker in found)


def _stays_float(node: onnx.NodeProto, takers: dict[str, list[onnx.NodeProto]]) -> bool:
    """Whether a node's own results are not rounded: then it is computed in float."""
    return not any(
        taker.op_type == "QuantizeLinear" for tensor in node.output for taker in takers[tensor]
    )


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Remove scales and zero points that nobody reads any more."""
    read = {tensor for node in graph.node for tensor in node.input}
    read |= {value.name for value in graph.output}
    for tensor in [each for each in graph.initializer if each.name not in read]:
        graph.initializer.remove(tensor)
