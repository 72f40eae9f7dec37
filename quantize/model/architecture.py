"""Recognises what kind of network a graph is, where a tool wants to be told."""

from collections.abc import Iterable
from typing import Final

import onnx

_NORMALIZATIONS: Final = frozenset(
    {
        "LayerNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    }
)
_FUSED_ATTENTION: Final = frozenset({"Attention", "GroupQueryAttention", "MultiHeadAttention"})
_BETWEEN: Final = frozenset({"Add", "Cast", "Div", "Mul", "Sub", "Where"})
_STEPS: Final = 4


def transformer_type(model: onnx.ModelProto) -> str:
    """Say which of ONNX Runtime's transformer optimisers fits a graph.

    Returns:
        ``gpt2`` for a decoder that takes its past, ``vit`` where a convolution makes the tokens,
        ``bert`` for other encoders; empty: no attention with layer normalisation is in it.
    """
    graph = model.graph
    types = {node.op_type for node in graph.node}
    normalized = bool(types & _NORMALIZATIONS) or {"ReduceMean", "Sqrt", "Pow"} <= types
    attends = bool(types & _FUSED_ATTENTION) or _has_scores(graph.node)
    if not (normalized and attends):
        return ""
    if any("past" in value.name for value in graph.input):
        return "gpt2"
    return "vit" if "Conv" in types else "bert"


def _has_scores(nodes: Iterable[onnx.NodeProto]) -> bool:
    """Say whether a matrix product is scaled, goes through Softmax and into another product."""
    producers = {}
    readers: dict[str, list[onnx.NodeProto]] = {}
    softmaxes = []
    for node in nodes:
        producers.update(dict.fromkeys(node.output, node))
        for name in node.input:
            readers.setdefault(name, []).append(node)
        if node.op_type == "Softmax":
            softmaxes.append(node)
    for softmax in softmaxes:
        after = {reader.op_type for reader in readers.get(softmax.output[0], ())}
        if "MatMul" in after and _comes_from_product(softmax, producers):
            return True
    return False


def _comes_from_product(node: onnx.NodeProto, producers: dict[str, onnx.NodeProto]) -> bool:
    edge = [node]
    for _ in range(_STEPS):
        edge = [producers[name] for each in edge for name in each.input if name in producers]
        if any(each.op_type == "MatMul" for each in edge):
            return True
        edge = [each for each in edge if each.op_type in _BETWEEN]
    return False
