"""Bundles of the digits models, as a search would write them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.hardware import CpuFacts, cpu_facts
from edge_runtime.manifest import Manifest, Provenance, Requires, Runtime
from quantize.acceptance import acceptance
from quantize.data import Dataset
from quantize.execution import open_runner
from quantize.golden_inputs import make_goldens
from quantize.metrics import metric
from quantize.packaging import Contents, new_folder, write_bundle
from quantize.variants import ShippedVariant
from tests.conftest import DIGITS
from tests.quantize_reports import latency, trial

FLOAT = DIGITS / "digits-fp32.onnx"
INT8 = DIGITS / "digits-int8.onnx"
VNNI = Requires("x86_64", ("vnni",))

PLAIN_CPU = CpuFacts("x86_64", frozenset({"avx2"}), vnni=False, description="x86_64, old")
VNNI_CPU = CpuFacts("x86_64", frozenset({"avx512_vnni"}), vnni=True, description="x86_64, new")


def digits() -> Dataset:
    """The 450 images with their labels."""
    with np.load(DIGITS / "test.npz") as file:
        return Dataset({"image": file["image"]}, file["labels"], "test.npz")


def variants(**of_trial: Any) -> tuple[ShippedVariant, ...]:  # noqa: ANN401
    """An int8 variant for VNNI, and the float model for all others."""
    int8 = trial("int8", latency=latency(0.5), memory_bytes=3_000_000, **of_trial)
    base = trial("fp32", kind="float32", latency=latency(1.0), memory_bytes=5_000_000)
    return ShippedVariant("int8-vnni", INT8, int8, VNNI), ShippedVariant("fp32", FLOAT, base)


def write_digits(
    output: Path, shipped: Sequence[ShippedVariant] = (), *, metric_name: str = "top1"
) -> Manifest:
    """Write the bundle of the digits model to a folder that does not exist yet."""
    shipped = shipped or variants()
    data = digits()
    with open_runner(FLOAT) as runner:
        measure = metric(metric_name, has_labels=True, signature=runner.signature)
    asked = acceptance(
        make_goldens(FLOAT, data, data),
        shipped,
        metric=measure,
        metric_output="",
        floor=0.99,
        rows=1,
        cpu=cpu_facts(),
    )
    contents = Contents(
        name="digits",
        version=3,
        created="2025-01-31T12:00:00Z",
        variants=shipped,
        goldens=asked.goldens,
        acceptance=asked.acceptance,
        runtime=Runtime("1.29", 17),
        provenance=Provenance(recipe="int8"),
    )
    with new_folder(output) as folder:
        return write_bundle(folder, contents, lambda _: None)
