"""Keeps in float what was left in float: ONNX Runtime rounds some of it while it loads a model.

A ``Conv``, ``ConvTranspose`` or ``Gemm`` with float weights between a ``DequantizeLinear`` and a
``QuantizeLinear`` gets int8 weights of its own then, one scale for all channels and the full
range: less accurate than what was excluded, and cut off on x86 CPUs without VNNI. It looks
through ``Relu`` and ``Clip`` but not through ``LeakyRelu``, which is the same as a ReLU with slope
0, the same as nothing with slope 1, and fused into the convolution like one.
"""

from collections import defaultdict
from typing import Final

import onnx
from onnx import TensorProto, helper

_ROUNDED: Final = frozenset({"Conv", "ConvTranspose", "Gemm"})
_LOOKED_THROUGH: Final = frozenset({"Relu", "Clip"})


def rounded_at_load(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """List the nodes in float that ONNX Runtime computes in int8 all the same.

    Args:
        graph: Of a model with ``QuantizeLinear`` and ``DequantizeLinear``.
    """
    makers = {tensor: node.op_type for node in graph.node for tensor in node.output}
    takers = defaultdict(list)
    for node in graph.node:
        for tensor in node.input:
            takers[tensor].append(node)
    floats = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    return [
        node
        for node in graph.node
        if node.op_type in _ROUNDED
        and makers.get(node.input[0]) == "DequantizeLinear"
        and node.input[1] in floats
        and _leads_to_rounding(node, takers)
    ]


def keep_float(model: onnx.ModelProto) -> int:
    """Make ONNX Runtime compute in float what is in float.

    Args:
        model: Changed in place; results stay the same.

    Returns:
        How many nodes would have been rounded.
    """
    graph = model.graph
    nodes = rounded_at_load(graph)
    takers = {tensor: node for node in graph.node for tensor in node.input}
    for node in nodes:
        follower = takers[node.output[0]]
        if follower.op_type == "Relu":
            follower.op_type = "LeakyRelu"
            follower.attribute.append(helper.make_attribute("alpha", 0.0))
            continue
        output = node.output[0]
        node.output[0] = f"{output}_float"
        place = next(index for index, each in enumerate(graph.node) if each is node) + 1
        identity = helper.make_node(
            "LeakyRelu", [node.output[0]], [output], name=f"{node.name}_float", alpha=1.0
        )
        graph.node.insert(place, identity)
    return len(nodes)


def _leads_to_rounding(
    node: onnx.NodeProto, takers: defaultdict[str, list[onnx.NodeProto]]
) -> bool:
    while True:
        readers = takers[node.output[0]]
        if len(readers) != 1:
            return False
        (node,) = readers
        if node.op_type == "QuantizeLinear":
            return True
        if node.op_type not in _LOOKED_THROUGH:
            return False
