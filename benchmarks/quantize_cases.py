"""The networks that quantisers are compared on, with samples for each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import onnx
import onnxruntime

from benchmarks.servers import ROOT
from tests import quantize_models

_SAMPLES: Final = 40  # of the image networks: constant weights give every image one answer
_LIGHT: Final = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"

Files = tuple[Path, Path, Path | None]
"""Model, calibration data, evaluation data (``None``: part of the former)."""


class Case(NamedTuple):
    """One network.

    Attributes:
        name: In the tables.
        make: Puts model and samples into a folder.
        floor: Share of the float model's score to keep.
    """

    name: str
    make: Callable[[Path], Files]
    floor: float = 0.99


def _digits(_folder: Path) -> Files:
    """Real images: the training images calibrate, the held-out images decide."""
    digits = ROOT / "examples" / "digits"
    return digits / "digits-fp32.onnx", digits / "train.npz", digits / "test.npz"


def _mlp(folder: Path) -> Files:
    model = quantize_models.mlp(folder / "mlp.onnx", sizes=(256, 1024, 1024, 512, 16))
    return model, _random(model, folder, {}, 400), None


def _transformer(folder: Path) -> Files:
    model = quantize_models.transformer(folder / "transformer.onnx", hidden=256, heads=8)
    return model, _random(model, folder, {1: 64}, 200), None


def _light(name: str) -> Callable[[Path], Files]:
    def make(folder: Path) -> Files:
        model = _LIGHT / f"light_{name}.onnx"
        return model, _random(model, folder, {}, _SAMPLES), None

    return make


def _random(model: Path, folder: Path, sizes: dict[int, int], samples: int) -> Path:
    """Write normally distributed samples for every input; open axes get the sizes given."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options)
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for value in session.get_inputs():
        inner = [
            size if isinstance(size, int) else sizes[axis]
            for axis, size in enumerate(value.shape)
            if axis
        ]
        arrays[value.name] = random.normal(size=(samples, *inner)).astype(np.float32)
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


CASES: Final = {
    case.name: case
    for case in (
        Case("digits", _digits),
        Case("mlp", _mlp),
        Case("transformer", _transformer),
        *(
            Case(name, _light(name))
            for name in (
                "squeezenet",
                "shufflenet",
                "resnet50",
                "inception_v1",
                "inception_v2",
                "densenet121",
                "bvlc_alexnet",
                "zfnet512",
                "vgg19",
            )
        ),
    )
}
