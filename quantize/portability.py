"""Whether a quantised model computes the same on x86 CPUs with and without VNNI. Reads the file.

Without VNNI, ONNX Runtime adds products of two uint8 and int8 numbers into 16 bits, which cut off
above 32767. Weights within [-64, 64] cannot get there (2 * 255 * 64 = 32640), and products of two
uint8 numbers are widened first. Signed activations are no way out: on x86, ONNX Runtime turns
them into unsigned ones while it loads the model, and leaves weights with a scale per channel
signed.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from quantize.load_time_rounding import rounded_at_load
from quantize.model import storage

LARGEST: Final = 64
"""Largest magnitude of a weight whose products cannot be cut off."""

_WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# Place of the weight among the inputs of operators that take integers themselves.
_INTEGER: Final = {
    "ConvInteger": 1,
    "DynamicQuantizeLSTM": 1,
    "DynamicQuantizeMatMul": 1,
    "MatMulInteger": 1,
    "MatMulIntegerToFloat": 1,
    "QAttention": 1,
    "QGemm": 3,
    "QLinearConv": 3,
    "QLinearMatMul": 3,
}
_MOVERS: Final = frozenset({"Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_NBITS: Final = "MatMulNBits"
_NBITS_SAFE: Final = 4  # such weights are at most 15, and 2 * 255 * 15 fits 16 bits


class Portability(NamedTuple):
    """Whether integer results are the same everywhere, and why."""

    portable: bool
    reason: str


def is_portable(path: Path) -> Portability:
    """Say whether no integer sum of a model can be cut off on x86 CPUs without VNNI.

    Args:
        path: ONNX file; weights beside it are read where they count.

    Returns:
        The answer and one sentence for it; a model without int8 products is portable.

    Raises:
        BadInputError: The file cannot be read.
    """
    model = storage.load_whole(path)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {tensor: node for node in model.graph.node for tensor in node.output}
    products = 0
    for node, name in _weights(model.graph, makers):
        products += 1
        tensor = constants.get(name)
        if tensor is None:
            return Portability(
                portable=False,
                reason=f"{node.op_type} {node.name!r} multiplies by int8 numbers that are not "
                "known before it runs",
            )
        if tensor.data_type != TensorProto.INT8 or not tensor.dims:
            continue
        largest = int(np.abs(numpy_helper.to_array(tensor).astype(np.int16)).max(initial=0))
        if largest > LARGEST:
            return Portability(
                portable=False,
                reason=f"{node.op_type} {node.name!r} has int8 weights up to {largest}; sums of "
                f"products are cut off on x86 CPUs without VNNI from {LARGEST + 1} on",
            )
    for node in rounded_at_load(model.graph):
        return Portability(
            portable=False,
            reason=f"ONNX Runtime rounds the float weights of {node.op_type} {node.name!r} to all "
            "of int8 while it loads the model",
        )
    for node in model.graph.node:
        if node.op_type == _NBITS and _bits(node) > _NBITS_SAFE:
            return Portability(
                portable=False,
                reason=f"{_NBITS} {node.name!r} has weights of {_bits(node)} bits",
            )
    return Portability(
        portable=True,
        reason=f"all int8 weights of its {products} integer products are within "
        f"[-{LARGEST}, {LARGEST}] or unsigned"
        if products
        else "it has no integer products",
    )


def _weights(
    graph: onnx.GraphProto, makers: dict[str, onnx.NodeProto]
) -> Iterator[tuple[onnx.NodeProto, str]]:
    """Give every node that multiplies integers with the name of its weight."""
    for node in graph.node:
        if node.op_type in _WEIGHTED and not node.domain:
            if not _is_dequantized(node.input[0], makers):
                continue  # computed in float, however its weights are stored
            source = makers.get(_unmoved(node.input[1], makers))
            if source is None or source.op_type != "DequantizeLinear":
                continue
            # A product of two activations: its second factor was rounded on the way.
            rounding = makers.get(source.input[0])
            if rounding is not None and _is_unsigned(rounding, graph):
                continue
            yield node, source.input[0]
        elif node.op_type in _INTEGER and len(node.input) > _INTEGER[node.op_type]:
            name = node.input[_INTEGER[node.op_type]]
            rounding = makers.get(name)
            if rounding is not None and rounding.op_type == "DynamicQuantizeLinear":
                continue  # gives uint8
            yield node, name


def _is_dequantized(tensor: str, makers: dict[str, onnx.NodeProto]) -> bool:
    maker = makers.get(tensor)
    return maker is not None and maker.op_type == "DequantizeLinear"


def _unmoved(tensor: str, makers: dict[str, onnx.NodeProto]) -> str:
    """Go back over nodes that only move numbers."""
    while (maker := makers.get(tensor)) is not None and maker.op_type in _MOVERS:
        tensor = maker.input[0]
    return tensor


def _is_unsigned(rounding: onnx.NodeProto, graph: onnx.GraphProto) -> bool:
    """Say whether a QuantizeLinear gives uint8: by its zero point, or without one."""
    if len(rounding.input) <= 2:  # noqa: PLR2004 - tensor, scale, zero point
        return True
    zero = next((each for each in graph.initializer if each.name == rounding.input[2]), None)
    return zero is not None and zero.data_type == TensorProto.UINT8


def _bits(node: onnx.NodeProto) -> int:
    return next((int(each.i) for each in node.attribute if each.name == "bits"), 4)
