"""Chooses the inputs of a bundle's goldens: real samples, and what lies at the edges."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from onnx import helper, numpy_helper

from edge_runtime.goldens import Golden
from quantize.data import Dataset
from quantize.errors import StepFailedError
from quantize.execution import Runner, open_runner
from quantize.model.storage import load_graph
from quantize.signature import Array

SAMPLES_MAX: Final = 64
"""Real samples in the goldens: enough for a score, few enough for a device."""
BYTES_MAX: Final = 8 << 20
"""Bytes of the real samples with their outputs, unpacked; one run is always there."""

_NEAR: Final = 0.75  # 191 of 255: products of two large weights still overflow 16 bits
_LAYERS: Final = ("MatMul", "Gemm", "Conv")
# What stands between an input and its first layer without changing where it is large.
_PASSED: Final = (
    "Identity",
    "Cast",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "QuantizeLinear",
    "DequantizeLinear",
)


class FirstLayer(NamedTuple):
    """The first layer that an input meets.

    Attributes:
        operator: ``Conv``, ``MatMul`` or ``Gemm``.
        weights: ``[out, in / groups, ...]`` for ``Conv``, else ``[in, out]``.
        groups: Of a ``Conv``; else 1.
    """

    operator: str
    weights: Array
    groups: int = 1


def make_goldens(reference: Path, samples: Dataset, calibration: Dataset) -> tuple[Golden, ...]:
    """Choose inputs, and let the float model answer.

    Args:
        reference: The float model that outputs are compared with.
        samples: Where real samples come from, evenly spread; best the held-out set.
        calibration: Its smallest and largest values are the edges.

    Returns:
        ``samples-NN``: at most 64 real samples, one file for each run that the model takes. Then
        one file each, where the float model gives finite numbers: ``edge-zeros``,
        ``edge-smallest``, ``edge-largest``, ``edge-saturation``, whose values are largest exactly
        where the weights of a filter of the first layer are positive: sums in 16 bits overflow
        there; and ``edge-near-saturation``, a real sample three quarters of the way to it.

    Raises:
        StepFailedError: The float model cannot be loaded, or fails on real samples.
    """
    with open_runner(reference) as runner:
        real = _real(runner, samples)
        edges = edge_feeds(real[0].feeds, samples, calibration, first_layers(reference))
        found = [_edge(runner, name, feeds) for name, feeds in edges.items()]
    return (*real, *(golden for golden in found if golden is not None))


def _real(runner: Runner, samples: Dataset) -> list[Golden]:
    """Run evenly spread samples, as many as the limits allow."""
    probe = next(samples.feeds(1))
    arrays = [*probe.values(), *runner.run(probe).values()]
    per_sample = max(1, sum(array.nbytes for array in arrays) // samples.rows_per_run(1))
    wanted = max(1, min(SAMPLES_MAX, samples.samples, BYTES_MAX // per_sample))
    step = samples.rows_per_run(wanted)
    wanted = min(samples.samples, max(step, wanted // step * step))  # runs that are full
    chosen = samples.take(np.linspace(0, samples.samples - 1, wanted).round().astype(np.intp))
    goldens = []
    for place, feeds in enumerate(chosen.feeds(step)):
        first = place * step
        labels = None if chosen.labels is None else chosen.labels[first : first + step]
        # A feed may be a view of all samples; a golden owns its arrays.
        owned = {name: array.copy() for name, array in feeds.items()}
        goldens.append(Golden(f"samples-{place:02}", owned, runner.run(owned), labels))
    return goldens


def _edge(runner: Runner, name: str, feeds: dict[str, Array]) -> Golden | None:
    """Run an edge case; ``None`` where the float model itself is at a loss."""
    try:
        outputs = runner.run(feeds)
    except StepFailedError:
        return None
    floats = [array for array in outputs.values() if array.dtype.kind == "f"]
    if not all(np.isfinite(array).all() for array in floats):
        return None
    return Golden(name, feeds, outputs)


def edge_feeds(
    template: Mapping[str, Array],
    samples: Dataset,
    calibration: Dataset,
    layers: Mapping[str, FirstLayer],
) -> dict[str, dict[str, Array]]:
    """Make the inputs at the edges.

    Integers stay within what calibration has seen, because they may be indices; zeros are for
    floats only; texts stay as they are.

    Args:
        template: Inputs of one run.
        samples: Says how many rows a run takes: edges take one, or all that the model insists on.
        calibration: Gives the smallest and largest value of each input.
        layers: First layers by input name, where known.

    Returns:
        Feeds by name; without those that equal the template or another one.
    """
    rows = samples.rows_per_run(1)
    base = {
        name: array if name in samples.whole else array[:rows] for name, array in template.items()
    }
    ranges = {
        name: (array.min(), array.max())
        for name in base
        if (array := calibration.inputs[name]).dtype.kind in "biuf" and array.size
    }
    saturation = {
        name: saturating(base[name], layer, *ranges[name])
        for name, layer in layers.items()
        if name in ranges and base[name].dtype.kind == "f"
    }
    cases: dict[str, dict[str, Array]] = {
        "edge-zeros": {
            name: np.zeros_like(array) for name, array in base.items() if array.dtype.kind == "f"
        },
        "edge-smallest": {name: np.full_like(base[name], low) for name, (low, _) in ranges.items()},
        "edge-largest": {name: np.full_like(base[name], top) for name, (_, top) in ranges.items()},
        "edge-saturation": saturation,
        "edge-near-saturation": {
            name: (base[name] + _NEAR * (array - base[name])).astype(array.dtype)
            for name, array in saturation.items()
        },
    }
    seen = {_bytes(base)}
    result = {}
    for name, changed in cases.items():
        feeds = base | changed
        if _bytes(feeds) not in seen:
            seen.add(_bytes(feeds))
            result[name] = feeds
    return result


def saturating(template: Array, layer: FirstLayer, low: Any, high: Any) -> Array:  # noqa: ANN401 - numpy scalars
    """Make an input whose products with one filter are all as large as they get.

    Args:
        template: Gives shape and dtype; ``[batch, channels, ...]`` for ``Conv``, else
            ``[..., in]``.
        layer: The first layer.
        low: Smallest value that calibration has seen.
        high: Largest one.

    Returns:
        ``high`` where the filter with the most positive weight is positive, else ``low``; the
        template where the shapes do not fit each other.
    """
    weights = layer.weights
    if layer.operator != "Conv":
        column = weights[:, int(np.argmax(np.maximum(weights, 0).sum(axis=0)))]
        fits = template.ndim > 0 and template.shape[-1] == len(column)
        mask = np.broadcast_to(column > 0, template.shape) if fits else None
    else:
        mask = _tiled(template, layer)
    if mask is None:
        return template
    pattern: Array = np.where(mask, high, low).astype(template.dtype)
    return pattern


def _tiled(template: Array, layer: FirstLayer) -> Array | None:
    """Repeat a filter's signs over the whole input; strides may shift some places out of step."""
    weights, groups = layer.weights, layer.groups
    if template.ndim != weights.ndim or template.shape[1] != weights.shape[1] * groups:
        return None
    best = int(np.argmax(np.maximum(weights, 0).reshape(len(weights), -1).sum(axis=1)))
    kernel = weights[best] > 0
    repeats = [
        -(-size // width) for size, width in zip(template.shape[2:], kernel.shape[1:], strict=True)
    ]
    tiled = np.tile(kernel, (1, *repeats))
    tiled = tiled[(slice(None), *(slice(size) for size in template.shape[2:]))]
    mask = np.zeros(template.shape, bool)
    first = best // (len(weights) // groups) * kernel.shape[0]
    mask[:, first : first + kernel.shape[0]] = tiled
    return mask


def first_layers(path: Path) -> dict[str, FirstLayer]:
    """Find the first layer that each input of a model meets.

    Args:
        path: ONNX file; only the weights of these layers are read.

    Returns:
        Layers by input name; inputs that meet something else first are left out.
    """
    model = load_graph(path)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    users: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    found = {}
    for value in model.graph.input:
        name = value.name
        for _ in range(len(model.graph.node)):
            following = users.get(name, [])
            if len(following) != 1 or following[0].op_type not in _PASSED:
                break
            name = following[0].output[0]
        for node in users.get(name, []):
            if node.op_type in _LAYERS and node.input[0] == name and node.input[1] in tensors:
                found[value.name] = _layer(node, tensors[node.input[1]], path)
                break
    return {name: layer for name, layer in found.items() if layer.weights.ndim > 1}


def _layer(node: Any, tensor: Any, path: Path) -> FirstLayer:  # noqa: ANN401 - onnx messages
    weights: Array = numpy_helper.to_array(tensor, str(path.parent))
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    if node.op_type == "Conv":
        return FirstLayer("Conv", weights, attributes.get("group", 1))
    if attributes.get("transB", 0):
        weights = weights.T
    return FirstLayer(node.op_type, weights if weights.ndim == 2 else weights.reshape(-1))  # noqa: PLR2004


def _bytes(feeds: Mapping[str, Array]) -> tuple[bytes, ...]:
    return tuple(array.tobytes() for array in feeds.values())
