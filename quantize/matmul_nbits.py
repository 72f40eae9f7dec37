"""Weights of 4 or 8 bits in blocks, for ``MatMulNBits``; activations stay float.

Written here because ONNX Runtime's own quantiser for it needs one more package, and sets up
logging for the whole process when it is imported.
"""

from collections.abc import Collection
from typing import Final, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from quantize.signature import Array

LARGE: Final = 1 << 18
"""Weights of a product that are worth it: below, unpacking costs more than memory saves."""

INT8_COMPUTE: Final = 4
"""``accuracy_level`` that lets the kernel round activations to int8: far faster on CPUs."""

_DOMAIN: Final = "com.microsoft"


def rewrite(
    model: onnx.ModelProto,
    *,
    bits: Literal[4, 8],
    block_size: int,
    exclude: Collection[str] = (),
    least: int = LARGE,
) -> int:
    """Replace large products with a constant matrix by ``MatMulNBits``.

    Args:
        model: Changed in place; its weights are in memory.
        bits: Bits of a weight.
        block_size: Weights that share a scale: a power of two, at least 16.
        exclude: Names of nodes to leave alone.
        least: Elements that a matrix must have.

    Returns:
        How many products were replaced.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    packed: dict[str, list[str]] = {}
    count = 0
    for node in graph.node:
        if node.op_type != "MatMul" or node.domain or node.name in exclude:
            continue
        weight = constants.get(node.input[1])
        if weight is None or not _fits(weight, least):
            continue
        if weight.name not in packed:
            matrix = numpy_helper.to_array(weight)
            tensors = [
                numpy_helper.from_array(array, f"{weight.name}_q{bits}{part}")
                for part, array in zip(("", "_scales"), pack(matrix, bits, block_size), strict=True)
            ]
            graph.initializer.extend(tensors)
            packed[weight.name] = [tensor.name for tensor in tensors]
        rows, columns = weight.dims
        node.CopyFrom(
            helper.make_node(
                "MatMulNBits",
                [node.input[0], *packed[weight.name]],
                list(node.output),
                name=node.name,
                domain=_DOMAIN,
                K=rows,
                N=columns,
                bits=bits,
                block_size=block_size,
                accuracy_level=INT8_COMPUTE,
            )
        )
        count += 1
    _drop_unread(graph, packed)
    if count and all(each.domain != _DOMAIN for each in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return count


def pack(matrix: Array, bits: Literal[4, 8], block_size: int) -> tuple[Array, Array]:
    """Round a matrix to symmetric integers, block by block down its columns.

    Args:
        matrix: Float of shape (K, N).
        bits: Bits of a weight.
        block_size: Weights that share a scale; the last block is filled up with zeros.

    Returns:
        Bytes of shape (N, blocks, block_size * bits / 8), the first of two 4-bit weights in the
        lower half, and scales, float32 of shape (N * blocks).
    """
    rows, columns = matrix.shape
    blocks = -(-rows // block_size)
    padded = np.zeros((columns, blocks * block_size), np.float32)
    padded[:, :rows] = matrix.T
    padded = padded.reshape(columns, blocks, block_size)
    middle = 1 << (bits - 1)
    # The value furthest from zero takes the end of the range that has one step more.
    furthest = np.take_along_axis(
        padded, np.abs(padded).argmax(axis=2, keepdims=True), axis=2
    ).squeeze(2)
    scales = (furthest / -middle).astype(np.float32)
    divisors = np.where(scales == 0, 1, scales)[..., None]
    steps = np.clip(np.rint(padded / divisors) + middle, 0, 2 * middle - 1).astype(np.uint8)
    if bits == 4:  # noqa: PLR2004
        steps = (steps[..., 0::2] | (steps[..., 1::2] << 4)).astype(np.uint8)
    return steps, scales.reshape(-1)


def _fits(weight: TensorProto, least: int) -> bool:
    return (
        weight.data_type == TensorProto.FLOAT
        and len(weight.dims) == 2  # noqa: PLR2004 - a matrix
        and int(np.prod(weight.dims)) >= least
    )


def _drop_unread(graph: onnx.GraphProto, names: Collection[str]) -> None:
    read = {tensor for node in graph.node for tensor in node.input}
    read |= {value.name for value in graph.output}
    for tensor in [each for each in graph.initializer if each.name in names]:
        if tensor.name not in read:
            graph.initializer.remove(tensor)
