"""A repository with a model for every datatype and every case of the protocol."""

import hashlib
from pathlib import Path
from typing import Any, Final

from edge_runtime.datatypes import ALL
from edge_runtime.manifest import Manifest, TensorDescription, Variant, write
from tests import models

LABELS: Final = ("no", "yes")
#: An input that ``FP32`` and the other models of one FP32 input take.
GOOD: Final[dict[str, Any]] = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
#: What ``two`` takes.
PAIR: Final[list[dict[str, Any]]] = [
    {**GOOD, "name": "a", "data": [5, 6]},
    {**GOOD, "name": "b", "data": [1, 2]},
]
MODELS: Final = 2 * len(ALL) + 5


def write_repository(root: Path) -> None:
    """Write ``MODELS`` models, one version each."""
    for datatype in ALL:
        models.identity(root / datatype.name / "1" / "model.onnx", datatype.name)
        models.identity(root / f"{datatype.name}-scalar" / "1" / "model.onnx", datatype.name, ())
    models.two_inputs(root / "two" / "1" / "model.onnx")
    models.divide(root / "divide" / "1" / "model.onnx")
    models.gather(root / "gather" / "1" / "model.onnx")
    models.identity(root / "text" / "1" / "model.onnx", "BYTES", (1,))
    _labelled(root / "labelled" / "1")


def _labelled(folder: Path) -> None:
    """Write a bundle whose output has labels."""
    file = models.identity(folder / "model.onnx")
    data = file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    ends = ("FP32", (-1, 2))
    manifest = Manifest(
        name="labelled",
        version=1,
        inputs=(TensorDescription("x", *ends),),
        outputs=(TensorDescription("y", *ends, labels=LABELS),),
        variants=(Variant("fp32", file.name, digest, len(data)),),
    )
    (folder / "manifest.json").write_bytes(write(manifest))
