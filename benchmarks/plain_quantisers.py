"""What users would run otherwise: ONNX Runtime's quantisers as they come, and NNCF."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantType,
    quant_pre_process,
    quantize_dynamic,
    quantize_static,
)

_CALIBRATED_ON: Final = 32
_OPSET: Final = 17

Quantise = Callable[[Path, Path, Path], None]
"""Reads a float model and samples, and writes the quantised model."""


class PlainError(Exception):
    """A quantiser gave up, or wrote what ONNX Runtime does not load."""


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, data: Path) -> None:
        self._feeds = _feeds(data)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def _feeds(data: Path) -> Iterator[dict[str, Any]]:
    with np.load(data) as arrays:
        named = {name: arrays[name][:_CALIBRATED_ON] for name in arrays.files if name != "labels"}
    for index in range(len(next(iter(named.values())))):
        yield {name: array[index : index + 1] for name, array in named.items()}


def _static_defaults(model: Path, data: Path, destination: Path) -> None:
    quantize_static(_prepared(model, destination), destination, _Reader(data))


def _static_vnni(model: Path, data: Path, destination: Path) -> None:
    quantize_static(
        _prepared(model, destination),
        destination,
        _Reader(data),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def _dynamic_defaults(model: Path, _data: Path, destination: Path) -> None:
    quantize_dynamic(_prepared(model, destination), destination)


def _nncf(model: Path, data: Path, destination: Path) -> None:
    os.environ["NNCF_CI"] = "1"  # its telemetry stays off
    try:
        import nncf  # noqa: PLC0415 - not installed as a rule
    except ImportError as error:
        raise PlainError("not installed") from error
    lifted = onnx.load(_prepared(model, destination))
    onnx.save(nncf.quantize(lifted, nncf.Dataset([*_feeds(data)])), destination)


def _prepared(model: Path, destination: Path) -> Path:
    """Do what ONNX Runtime's documentation says to do first, from an opset that it can take."""
    lifted = onnx.load(model)
    if lifted.opset_import[0].version < _OPSET:
        lifted.ir_version = max(lifted.ir_version, 8)
        stored = {tensor.name for tensor in lifted.graph.initializer}
        fed = [value for value in lifted.graph.input if value.name not in stored]
        del lifted.graph.input[:]
        lifted.graph.input.extend(fed)
        lifted = onnx.version_converter.convert_version(lifted, _OPSET)
    source = destination.with_suffix(".source.onnx")
    onnx.save(lifted, source)
    prepared = destination.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    return prepared


def _guarded(quantise: Quantise) -> Quantise:
    """Turn whatever goes wrong into one sentence, and look whether the result loads."""

    def run(model: Path, data: Path, destination: Path) -> None:
        logging.disable(logging.WARNING)
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                quantise(model, data, destination)
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            onnxruntime.InferenceSession(destination, options)
        except PlainError:
            raise
        except Exception as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise PlainError(f"failed: {first[:120]}") from error
        finally:
            logging.disable(logging.NOTSET)

    return run


PLAIN: Final[dict[str, Quantise]] = {
    "quantize_static, defaults": _guarded(_static_defaults),
    "quantize_static, U8S8 per channel": _guarded(_static_vnni),
    "quantize_dynamic, defaults": _guarded(_dynamic_defaults),
    "NNCF": _guarded(_nncf),
}
