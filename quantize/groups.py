"""Which nodes belong together: a producer and what is fused into it. Reads graphs, not weights.

Leaving a convolution in float but not its ReLU would put two conversions between them, so what is
left out of a quantisation are always whole groups.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx

from quantize.integer_forms import name_nodes

PRODUCERS: Final = frozenset({"Attention", "Conv", "ConvTranspose", "Gemm", "LSTM", "MatMul"})
"""Operators with weights: where the work is, and where quantisation costs accuracy."""

FOLLOWERS: Final = frozenset(
    {"Add", "BatchNormalization", "BiasGelu", "Clip", "FastGelu", "Gelu", "HardSigmoid"}
    | {"HardSwish", "LeakyRelu", "Mul", "PRelu", "Relu", "Sigmoid", "Sub", "Sum"}
)
"""Element-wise operators: they belong to the group whose result only they read."""

MOVERS: Final = frozenset(
    {"Flatten", "Gather", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators that only move numbers: several in a row are one group."""


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes that are quantised together or not at all.

    Attributes:
        nodes: Their names, in the order of the graph; the producer first.
        operator: Operator type of the first.
        inputs: Tensors that come from outside and are no constants.
        tensors: Tensors that its nodes make; the last one is its result.
    """

    nodes: tuple[str, ...]
    operator: str
    inputs: tuple[str, ...]
    tensors: tuple[str, ...]

    @property
    def output(self) -> str:
        """The tensor that the rest of the graph sees."""
        return self.tensors[-1]


def groups_of(model: Path) -> tuple[Group, ...]:
    """Divide a model's graph into groups; every node is in exactly one.

    Args:
        model: ONNX file; external weights are not read. Nodes without a name get the one that
            ``quantizers.build`` gives them.

    Returns:
        In the order of the graph.
    """
    proto = onnx.load(model, load_external_data=False)
    name_nodes(proto)
    return divide(proto.graph)


def divide(graph: onnx.GraphProto) -> tuple[Group, ...]:
    """Divide a graph whose nodes have names and are in topological order.

    Args:
        graph: The graph.
    """
    readers = Counter(tensor for node in graph.node for tensor in node.input)
    readers.update(value.name for value in graph.output)
    home: dict[str, int] = {}  # tensor -> its group
    members: list[list[onnx.NodeProto]] = []
    for node in graph.node:
        joined = -1
        for tensor in node.input:
            place = home.get(tensor, -1)
            if readers[tensor] == 1 and place >= 0 and _joins(node, members[place]):
                joined = max(joined, place)
        if joined < 0:
            joined = len(members)
            members.append([])
        members[joined].append(node)
        home.update(dict.fromkeys(node.output, joined))
    constants = {tensor.name for tensor in graph.initializer}
    return tuple(_group(nodes, constants) for nodes in members)


def _joins(node: onnx.NodeProto, group: list[onnx.NodeProto]) -> bool:
    first = group[0].op_type
    if node.op_type in FOLLOWERS:
        return first in PRODUCERS
    return node.op_type in MOVERS and first in MOVERS


def _group(nodes: list[onnx.NodeProto], constants: set[str]) -> Group:
    tensors = [tensor for node in nodes for tensor in node.output if tensor]
    inside = {*tensors, *constants, ""}
    outside = (tensor for node in nodes for tensor in node.input if tensor not in inside)
    return Group(
        nodes=tuple(node.name for node in nodes),
        operator=nodes[0].op_type,
        inputs=tuple(dict.fromkeys(outside)),
        tensors=tuple(tensors),
    )
