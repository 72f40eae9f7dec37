"""The image networks that the benchmarks load: onnx's ``light`` graphs with seeded random weights.

The onnx package ships the graphs of well-known networks with every weight a constant, so that as
shipped squeezenet answers the same for every input. Here the constants become random numbers,
scaled so that activations stay finite and answers depend on the input.
"""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

FILES: Final[Mapping[str, str]] = {
    "squeezenet": "light_squeezenet.onnx",
    "resnet50": "light_resnet50.onnx",
    "thumbnail": "light_squeezenet.onnx",
}
"""``thumbnail`` is squeezenet behind a small picture that the graph itself repeats to full size: as
much computing, and hardly anything to send."""
SEED: Final = 20_261_123
"""Seed of all weights; every tensor adds its own name, so their order does not matter."""

RECIPE: Final = 1
"""Part of the cached file's name: raise it when the weights are made differently."""

_IR_VERSION: Final = 8
_BRANCH_GAIN: Final = 0.5
"""Scale of a residual branch: 16 of them are added up, and the sum must stay finite."""
_VARIANCE_GAIN: Final = 2.93
"""Undoes what a ReLU does to the variance of normal numbers: 1 / (1/2 - 1/(2 pi))."""

_TILES: Final = 28
"""How often a thumbnail is repeated along each side."""

_CLASSES: Final = 1000
_LAST_GAIN: Final = 4.0
"""Scale of the last layer: without it the softmax of so many classes is nearly flat."""

Array = npt.NDArray[Any]


def network(name: str, folder: Path) -> Path:
    """Give the model file of a network, made on first use.

    Args:
        name: A key of ``FILES``.
        folder: Cache folder, made when missing.

    Returns:
        The path of the ONNX file, with one input of 1x3x224x224 float32 (602,112 bytes), or of
        1x3x8x8 (768 bytes) for the thumbnail.
    """
    path = folder / f"{name}-r{RECIPE}.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        onnx.save(build(name), partial)
        partial.rename(path)
    return path


def build(name: str) -> Any:  # noqa: ANN401 - onnx is untyped for mypy here
    """Make a network with seeded weights.

    Args:
        name: A key of ``FILES``.

    Returns:
        The checked ``onnx.ModelProto``.
    """
    shipped = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / FILES[name]
    model = onnx.load(shipped)
    graph = model.graph
    shapes = _weight_shapes(graph)
    roles = _roles(graph)
    weights = [
        numpy_helper.from_array(_weight(tensor, shapes[tensor], *role), tensor)
        for tensor, role in roles.items()
    ]
    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    used = {tensor for node in nodes for tensor in node.input}
    kept = [t for t in graph.initializer if t.name in used and t.name not in roles]
    named = {t.name for t in (*weights, *kept)}
    inputs = [value for value in graph.input if value.name in used - named]
    for field, values in (
        (graph.node, nodes),
        (graph.initializer, [*weights, *kept]),
        (graph.input, inputs),
    ):
        del field[:]
        field.extend(values)
    if name == "thumbnail":
        _tile(graph)
    model.ir_version = _IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model


def _tile(graph: Any) -> None:  # noqa: ANN401
    """Make the input of a network small, and repeat it to the size that the network takes."""
    (picture,) = graph.input
    (full,) = graph.node[0].input[:1]
    sizes = picture.type.tensor_type.shape.dim
    for size in sizes[2:]:
        size.dim_value //= _TILES
    repeats = np.array([1, 1, _TILES, _TILES], np.int64)
    graph.initializer.append(numpy_helper.from_array(repeats, "repeats"))
    picture.name = "thumbnail"
    graph.node.insert(0, onnx.helper.make_node("Tile", ["thumbnail", "repeats"], [full]))


def _weight_shapes(graph: Any) -> dict[str, tuple[int, ...]]:  # noqa: ANN401
    """Collect the shape of every tensor that is constant in the shipped graph."""
    shipped = {tensor.name: tensor for tensor in graph.initializer}
    shapes = {name: tuple(tensor.dims) for name, tensor in shipped.items()}
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            dims = numpy_helper.to_array(shipped[node.input[0]])
            shapes[node.output[0]] = tuple(int(size) for size in dims)
    return shapes


def _roles(graph: Any) -> dict[str, tuple[str, float]]:  # noqa: ANN401
    """Say for every weight what it is for: ``(operator and place, gain)``."""
    summed = {tensor for node in graph.node if node.op_type == "Sum" for tensor in node.input}
    roles: dict[str, tuple[str, float]] = {}
    for node in graph.node:
        if node.op_type in {"Conv", "Gemm", "BatchNormalization"}:
            gain = _BRANCH_GAIN if node.output[0] in summed else 1.0
            for place, tensor in enumerate(node.input[1:], start=1):
                roles[tensor] = (f"{node.op_type} {place}", gain)
    return roles


def _weight(name: str, shape: tuple[int, ...], role: str, gain: float) -> Array:
    """Draw one tensor; He-style scale for matrices, numbers around 1 for scales and variances.

    Each filter sums to zero: what follows a ReLU is positive, and without this the common part
    would grow from layer to layer until all inputs looked alike.
    """
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    values: Array
    match role:
        case "Conv 1" | "Gemm 1":
            fan_in = int(np.prod(shape[1:]))
            values = rng.normal(0.0, np.sqrt(_VARIANCE_GAIN / fan_in), shape)
            values -= values.mean(axis=tuple(range(1, len(shape))), keepdims=True)
            values *= _LAST_GAIN if shape[0] == _CLASSES else 1.0
        case "BatchNormalization 1":
            values = rng.uniform(0.8, 1.2, shape) * gain
        case "BatchNormalization 4":
            values = rng.uniform(0.5, 1.5, shape)
        case _:
            values = rng.normal(0.0, 0.1, shape)
    return values.astype(np.float32)
