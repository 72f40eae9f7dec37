"""The only import of ONNX Runtime's quantisers: make a candidate's file from a recipe."""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnx

from quantize import exact_results, execution, integer_forms, load_time_rounding, matmul_nbits
from quantize.errors import QuantizeError, StepFailedError
from quantize.model import storage
from quantize.records import Recipe

Ranges = Mapping[str, tuple[float, float]]
"""Smallest and largest value of every float tensor, by the tensor's name."""

DEQUANTIZED: Final = "_DequantizeLinear_Output"
"""What the quantiser puts behind a tensor's name for the tensor after rounding."""

_PER_CHANNEL_AXES: Final = {"MatMul": 1}  # of the others the quantiser knows the axis
_SHARES: Final = frozenset({"Sigmoid", "Softmax"})
_SMALLEST_RANGE: Final = 1e-8  # a constant zero would give a scale of zero


def build(
    recipe: Recipe,
    model: Path,
    destination: Path,
    *,
    ranges: Ranges | None = None,
    exclude: Sequence[str] = (),
) -> None:
    """Make a candidate: quantise a float model as a recipe says.

    Static recipes leave a ``Softmax`` or ``Sigmoid`` that gives an output of the model in float.

    Args:
        recipe: How.
        model: The float model, opset 17 or newer.
        destination: File to write; external weights, if it needs them, go beside it into a file
            with ``.data`` behind its name.
        ranges: For recipes that calibrate, see ``calibration.Calibrator.ranges``.
        exclude: Names of nodes that stay in float.

    Raises:
        StepFailedError: It cannot be made; one line. Nothing is left at ``destination``.
    """
    weights = destination.with_name(destination.name + storage.WEIGHTS_SUFFIX)
    try:
        with _silence(), tempfile.TemporaryDirectory(dir=destination.parent) as folder:
            _build(
                recipe,
                model,
                destination,
                ranges=ranges,
                exclude=list(exclude),
                folder=Path(folder),
            )
    except BaseException as error:
        destination.unlink(missing_ok=True)
        weights.unlink(missing_ok=True)
        if isinstance(error, QuantizeError) or not isinstance(error, Exception):
            raise
        reason = execution.one_line(error, destination.parent)
        raise StepFailedError(f"recipe {recipe.name} cannot be made: {reason}") from error


def _build(
    recipe: Recipe,
    model: Path,
    destination: Path,
    *,
    ranges: Ranges | None,
    exclude: list[str],
    folder: Path,
) -> None:
    proto = storage.load_whole(model)
    integer_forms.name_nodes(proto)
    match recipe.kind:
        case "static":
            if ranges is None:
                raise StepFailedError(f"recipe {recipe.name} needs calibrated ranges")
            if not proto.graph.value_info and proto.ByteSize() < storage.ONE_FILE_BYTES_MAX:
                proto = onnx.shape_inference.infer_shapes(proto)
            integer_forms.rewrite(proto)
            exclude = [*exclude, *_tail(proto.graph)]
            prepared = folder / "prepared.onnx"
            beside = _save(proto, prepared)
            del proto
            quantised = folder / destination.name
            _static(recipe, prepared, quantised, ranges, exclude, beside=beside)
            proto = storage.load_whole(quantised)
            load_time_rounding.keep_float(proto)
            exact_results.keep_exact(proto)
            _save(proto, destination)
        case "dynamic":
            prepared = folder / "prepared.onnx"
            beside = _save(proto, prepared)
            del proto
            _dynamic(recipe, prepared, destination, exclude, beside=beside)
        case "matmul-nbits":
            _matmul_nbits(recipe, proto, destination, exclude)
        case "float16":
            _float16(proto, destination, exclude)
        case "float32":
            _save(proto, destination)


def _static(
    recipe: Recipe,
    prepared: Path,
    destination: Path,
    ranges: Ranges,
    exclude: list[str],
    *,
    beside: bool,
) -> None:
    from onnxruntime import quantization  # noqa: PLC0415 - slow, and not every command needs it
    from onnxruntime.quantization import calibrate  # noqa: PLC0415

    cache = prepared.with_name("ranges.json")
    method = calibrate.CalibrationMethod.MinMax  # the ranges are chosen already
    calibrate.save_tensors_data(
        calibrate.TensorsData(method, {name: _limits(pair) for name, pair in ranges.items()}), cache
    )
    quantization.quantize_static(
        prepared,
        destination,
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=list(recipe.operators) or None,
        per_channel=recipe.per_channel,
        reduce_range=recipe.reduce_range,
        activation_type=quantization.QuantType[recipe.activation],
        weight_type=quantization.QuantType[recipe.weight],
        nodes_to_exclude=exclude,
        use_external_data_format=beside,
        calibrate_method=method,
        calibration_cache_path=cache,
        extra_options={
            # One zero point for all channels: kernels refuse uint8 weights with several.
            "WeightSymmetric": True,
            "QDQOpTypePerChannelSupportToAxis": _PER_CHANNEL_AXES,
        },
    )


def _dynamic(
    recipe: Recipe, prepared: Path, destination: Path, exclude: list[str], *, beside: bool
) -> None:
    from onnxruntime import quantization  # noqa: PLC0415

    quantization.quantize_dynamic(
        prepared,
        destination,
        op_types_to_quantize=list(recipe.operators) or None,
        per_channel=recipe.per_channel,
        reduce_range=recipe.reduce_range,
        weight_type=quantization.QuantType[recipe.weight],
        nodes_to_exclude=exclude,
        use_external_data_format=beside,
        extra_options={"WeightSymmetric": True},
    )


def _matmul_nbits(
    recipe: Recipe, proto: onnx.ModelProto, destination: Path, exclude: list[str]
) -> None:
    if recipe.bits not in {4, 8}:
        raise StepFailedError(f"recipe {recipe.name} asks for {recipe.bits} bits; only 4 and 8 are")
    bits: Literal[4, 8] = 4 if recipe.bits == 4 else 8  # noqa: PLR2004 - for the type checker
    count = matmul_nbits.rewrite(
        proto, bits=bits, block_size=recipe.block_size or 32, exclude=exclude
    )
    if not count:
        raise StepFailedError(
            f"recipe {recipe.name} finds no MatMul with a constant matrix of at least "
            f"{matmul_nbits.LARGE} elements"
        )
    _save(proto, destination)


def _float16(proto: onnx.ModelProto, destination: Path, exclude: list[str]) -> None:
    from onnxruntime.quantization.onnx_model import ONNXModel  # noqa: PLC0415
    from onnxruntime.transformers import float16  # noqa: PLC0415

    halved = float16.convert_float_to_float16(
        proto, keep_io_types=True, disable_shape_infer=True, node_block_list=exclude
    )
    # It puts the casts of inputs at the end.
    ONNXModel(halved).topological_sort()
    _save(halved, destination)


def _save(proto: onnx.ModelProto, path: Path) -> bool:
    """Write a model; give whether its weights had to go into a second file."""
    storage.save(proto, path)
    return path.with_name(path.name + storage.WEIGHTS_SUFFIX).exists()


def _tail(graph: onnx.GraphProto) -> list[str]:
    """Name what gives shares as an output: 256 steps would make most of them zero, or equal.

    What reads such an output counts too: it would have it rounded.
    """
    outputs = {value.name for value in graph.output}
    shares = [
        node
        for node in graph.node
        if node.op_type in _SHARES and not outputs.isdisjoint(node.output)
    ]
    given = {tensor for node in shares for tensor in node.output}
    readers = [node for node in graph.node if not given.isdisjoint(node.input)]
    return [node.name for node in (*shares, *readers)]


def _limits(pair: tuple[float, float]) -> Any:  # noqa: ANN401 - untyped library
    low, high = pair
    if high - low < _SMALLEST_RANGE and abs(low) < _SMALLEST_RANGE:
        high = _SMALLEST_RANGE
    return np.float32(low), np.float32(high)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the quantisers' prints, log lines and warnings away from the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
