"""Equal ways to write a graph that ONNX Runtime's int8 kernels can be fast with.

Its quantiser knows no ``Sum``, and its 8-bit ``Transpose`` of more than four axes moves one byte
at a time: a channel shuffle then costs more than the convolutions around it. Both have a twin
that computes the same numbers and stays in int8. Names of nodes and tensors are kept.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from quantize.signature import Shape

SHUFFLE: list[int] = [0, 2, 1, 3, 4]
"""Permutation of a channel shuffle: groups and channels of a group change places."""

_SAME = 0  # in the shape of a Reshape: the axis as it is
_REST = -1  # in the shape of a Reshape: what is left


def name_nodes(model: onnx.ModelProto) -> None:
    """Give every node of the graph a name that no other has; good names stay.

    Names depend on the graph alone: two readers of one file agree on them.

    Args:
        model: Changed in place.
    """
    taken = Counter(node.name for node in model.graph.node)
    seen: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            name = f"{node.op_type}_{index}"
            while name in taken:
                name += "_"
            taken[name] += 1
            node.name = name
        seen.add(node.name)


def rewrite(model: onnx.ModelProto) -> int:
    """Replace two-input ``Sum`` by ``Add``, and channel shuffles by ``Gather``.

    Args:
        model: Changed in place; has the shapes of its tensors, its nodes have names.

    Returns:
        How many places were rewritten.
    """
    count = 0
    for node in model.graph.node:
        if node.op_type == "Sum" and not node.domain and len(node.input) == 2:  # noqa: PLR2004
            node.op_type = "Add"
            count += 1
    return count + _rewrite_shuffles(model.graph)


def _rewrite_shuffles(graph: onnx.GraphProto) -> int:
    shapes = {
        value.name: _shape(value) for value in (*graph.value_info, *graph.input, *graph.output)
    }
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers = Counter(tensor for node in graph.node for tensor in node.input)
    kept = {value.name for value in graph.output}
    makers = {tensor: node for node in graph.node for tensor in node.output}
    takers = {tensor: node for node in graph.node for tensor in node.input}
    gone: list[onnx.NodeProto] = []
    for turn in list(graph.node):
        if turn.op_type != "Transpose" or _permutation(turn) != SHUFFLE:
            continue
        split, join = makers.get(turn.input[0]), takers.get(turn.output[0])
        inner = {turn.input[0], turn.output[0]}
        if split is None or join is None or kept & inner or any(readers[t] != 1 for t in inner):
            continue
        groups = _groups(split, join, shapes, constants)
        if groups is None:
            continue
        channels = np.arange(groups[0] * groups[1], dtype=np.int64)
        order = numpy_helper.from_array(
            channels.reshape(groups).T.reshape(-1), f"{turn.name}_channel_order"
        )
        graph.initializer.append(order)
        # In the place of the last one: everything that it reads is computed by then.
        join.CopyFrom(
            onnx.helper.make_node(
                "Gather",
                [split.input[0], order.name],
                list(join.output),
                name=turn.name,
                axis=1,
            )
        )
        gone += [split, turn]
    for node in gone:
        graph.node.remove(node)
    return len(gone) // 2


def _groups(
    split: onnx.NodeProto,
    join: onnx.NodeProto,
    shapes: Mapping[str, Shape],
    constants: Mapping[str, onnx.TensorProto],
) -> tuple[int, int] | None:
    """Find a shuffle's groups and channels of each; ``None``: these nodes are none."""
    if split.op_type != "Reshape" or join.op_type != "Reshape":
        return None
    if split.input[1] not in constants or join.input[1] not in constants:
        return None
    if any(
        each.name == "allowzero" and each.i for node in (split, join) for each in node.attribute
    ):
        return None  # a 0 then is an axis without elements
    shape = shapes.get(split.input[0], ())
    apart = _target(constants[split.input[1]])
    together = _target(constants[join.input[1]])
    if len(shape) != 4 or shape[1] is None or len(apart) != 5:  # noqa: PLR2004 - NCHW, and one more
        return None
    batch, groups, each, *picture = apart
    if min(groups, each) < 1 or groups * each != shape[1]:
        return None
    if not _keeps([batch, shape[1], *picture], shape) or not _keeps(together, shape):
        return None
    return groups, each


def _keeps(target: Sequence[int], shape: Shape) -> bool:
    """Say whether a Reshape to ``target`` surely leaves a shape as it is."""
    if len(target) != len(shape) or list(target).count(_REST) > 1:
        return False
    # Behind the first axis a 0 of the five-axis shape would mean another axis.
    fits = [wanted in {_REST, size} for wanted, size in zip(target, shape, strict=True)]
    return (fits[0] or target[0] == _SAME) and all(fits[1:])


def _target(tensor: onnx.TensorProto) -> list[int]:
    return [int(size) for size in numpy_helper.to_array(tensor).reshape(-1)]


def _permutation(node: onnx.NodeProto) -> list[int]:
    return next((list(each.ints) for each in node.attribute if each.name == "perm"), [])


def _shape(value: onnx.ValueInfoProto) -> Shape:
    sizes = value.type.tensor_type.shape.dim
    return tuple(size.dim_value if size.HasField("dim_value") else None for size in sizes)
