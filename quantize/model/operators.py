"""Nodes and tensors of a graph, and which operators mean what.

Works on protobuf messages whose weights may be elsewhere: nothing reads a payload.
"""

import math
from collections.abc import Iterator
from typing import Any, Final

import onnx
from onnx import AttributeProto

STANDARD: Final = frozenset({"", "ai.onnx"})
"""Names of ONNX's own operators' domain."""
CONTRIBUTED: Final = "com.microsoft"
"""Domain of operators that only ONNX Runtime has."""
KNOWN_DOMAINS: Final = STANDARD | {"ai.onnx.ml", CONTRIBUTED}
"""Domains that ONNX Runtime's CPU build has operators of."""

WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "Gather", "Gemm", "LSTM", "MatMul"})
"""Operators whose weights a quantiser of ONNX Runtime can make smaller."""

_FLOATS: Final = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16})
_AXES_LEAST: Final = 2
_WEIGHTS_LEAST: Final = 1024
_QUANTIZED: Final = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeLinear",
        "DynamicQuantizeMatMul",
        "GatherBlockQuantized",
        "MatMulBnb4",
        "MatMulInteger",
        "MatMulInteger16",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QAttention",
        "QEmbedLayerNormalization",
        "QGemm",
        "QMoE",
        "QOrderedMatMul",
        "QuantizeLinear",
    }
)
_QUANTIZED_PREFIX: Final = "QLinear"


def is_quantized(operator: str) -> bool:
    """Say whether an operator is there only in quantised models.

    Args:
        operator: Type of a node, without its domain.
    """
    return operator in _QUANTIZED or operator.startswith(_QUANTIZED_PREFIX)


def graphs(model: onnx.ModelProto) -> Iterator[Any]:
    """Yield the main graph and every graph in its nodes' attributes, outermost first."""
    waiting = [model.graph]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            waiting.extend(_subgraphs(node))


def nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Yield every node of every graph and function."""
    for graph in graphs(model):
        yield from graph.node
    for function in model.functions:
        waiting = list(function.node)
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(inner for graph in _subgraphs(node) for inner in graph.node)


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every stored tensor: initializers, and those in attributes of nodes."""
    for graph in graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in nodes(model):
        for attribute in node.attribute:
            yield from ([attribute.t] if attribute.type == AttributeProto.TENSOR else [])
            yield from attribute.tensors


def elements(tensor: onnx.TensorProto) -> int:
    """Count the elements of a tensor by its dimensions."""
    return math.prod(tensor.dims)


def opset(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators that a model is written for; 0: none."""
    return max((each.version for each in model.opset_import if each.domain in STANDARD), default=0)


def weights(model: onnx.ModelProto) -> tuple[int, int]:
    """Count weights: elements of stored float tensors of two axes or more, and of some size.

    Returns:
        All of them, and those hidden from quantisers: read by no operator of ``WEIGHTED``.
    """
    every = hidden = 0
    for graph in graphs(model):
        read = {name for node in graph.node if node.op_type in WEIGHTED for name in node.input}
        for tensor in graph.initializer:
            if tensor.data_type not in _FLOATS or len(tensor.dims) < _AXES_LEAST:
                continue
            size = elements(tensor)
            if size >= _WEIGHTS_LEAST:
                every += size
                hidden += 0 if tensor.name in read else size
    return every, hidden


def _subgraphs(node: onnx.NodeProto) -> list[Any]:
    found = []
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            found.append(attribute.g)
        found.extend(attribute.graphs)
    return found
