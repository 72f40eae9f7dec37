"""Trials and reports of searches that never were, for what reads them."""

from typing import Any

import msgspec

from edge_runtime.manifest import Requires
from quantize.records import (
    BASELINE,
    Decision,
    Kind,
    Latency,
    PassResult,
    Recipe,
    Score,
    Sensitivity,
    Split,
    Trial,
)
from quantize.reports.document import Ending, Host, Report, Shipped, SourceModel
from quantize.settings import Settings


def score(ratio: float, low: float | None = None, *, needed: int | None = None) -> Score:
    """A score of 450 samples; with a bound it is one of the held-out set."""
    return Score(
        metric="top1",
        value=0.98 * ratio,
        reference=0.98,
        ratio=ratio,
        low=low,
        samples=450,
        samples_needed=needed,
    )


def latency(ratio: float) -> Latency:
    """Times of a candidate that takes so much of the float model's 2 ms."""
    return Latency(
        p50_s=0.002 * ratio,
        p90_s=0.0022 * ratio,
        reference_p50_s=0.002,
        reference_p90_s=0.0022,
        ratio=ratio,
        ratio_low=ratio - 0.02,
        ratio_high=ratio + 0.02,
        runs=40,
        threads=1,
        rows=1,
        cpu="x86_64, Some CPU, with VNNI",
    )


def trial(name: str, *, kind: Kind = "static", accepted: bool | None = None, **more: Any) -> Trial:  # noqa: ANN401
    """A trial that was measured; ``accepted`` gives it a decision."""
    facts: dict[str, Any] = {
        "status": "measured",
        "file": f"{name}.onnx",
        "size_bytes": 300_000,
        "recipe": Recipe(name=name, kind=kind),
    }
    if accepted is not None:
        reasons = ("keeps the floor",) if accepted else ("keeps 97.1 %, the floor is 99 %",)
        facts["decision"] = Decision(accepted=accepted, reasons=reasons, floor_met=accepted)
    return Trial(name=name, **(facts | more))


GOOD = trial(
    "u8s8-minmax",
    accepted=True,
    search=score(1.0),
    held_out=score(0.998, 0.9921),
    latency=latency(0.43),
    memory_bytes=2_000_000,
)
PORTABLE = trial(
    "u8s8-reduced",
    accepted=True,
    search=score(0.999),
    held_out=score(0.996, 0.9905),
    latency=latency(0.5),
    portable=True,
)
INACCURATE = trial("dynamic", kind="dynamic", accepted=False, search=score(0.971), batchable=False)
SLOW = trial(
    "u8u8",
    search=score(0.999),
    held_out=score(0.997, 0.9911),
    latency=latency(1.07),
    decision=Decision(
        accepted=False, reasons=("takes 1.07 of the time (1.05 to 1.09)",), floor_met=True
    ),
)
FAILED = trial("entropy", status="failed", reason="Conv | 7: no kernel", file="", size_bytes=0)
BASE = trial(BASELINE, kind="float32", size_bytes=1_000_000, memory_bytes=5_000_000)


_BY_ENDING: dict[Ending, dict[str, Any]] = {
    "met": {
        "trials": (GOOD, PORTABLE, INACCURATE, FAILED),
        "pareto": ("u8s8-minmax",),
        "chosen": "u8s8-minmax",
        "shipped": (
            Shipped(
                name="int8-vnni",
                trial="u8s8-minmax",
                file="int8-vnni/model.onnx",
                size_bytes=300_000,
                requires=Requires("x86_64", ("vnni",)),
            ),
            Shipped(
                name="int8-portable",
                trial="u8s8-reduced",
                file="int8-portable/model.onnx",
                size_bytes=300_000,
            ),
        ),
    },
    "floor-not-reached": {
        "trials": (
            INACCURATE,
            trial(
                "u8s8-percentile",
                accepted=False,
                search=score(0.995),
                held_out=score(0.993, 0.981, needed=1200),
                latency=latency(0.5),
            ),
            FAILED,
        ),
    },
    "not-faster": {
        "trials": (SLOW, INACCURATE),
        "shipped": (
            Shipped(name="fp32", trial=BASELINE, file="fp32/model.onnx", size_bytes=1_000_000),
        ),
    },
}


def report(ending: Ending, **more: Any) -> Report:  # noqa: ANN401
    """A report with a bit of everything."""
    facts: dict[str, Any] = {
        "created": "2025-01-31T12:00:00Z",
        "seconds": 63.0,
        "settings": Settings(
            model="digits.onnx", data="calibration.npz", output="bundle", name="digits"
        ),
        "metric": "top1",
        "target": "x86-64-vnni",
        "measured_here": True,
        "source": SourceModel(
            sha256="ab" * 32, size_bytes=1_100_000, opset=17, nodes=12, operators={"Conv": 2}
        ),
        "host": Host(
            cpu="x86_64, Some CPU, with VNNI", arch="x86_64", vnni=True, cpus=2, system="Linux 6"
        ),
        "versions": {"onnxruntime": "1.32.0", "python": "3.11.9"},
        "passes": (
            PassResult(
                name="onnxslim",
                kept=True,
                reason="fewer nodes",
                nodes_before=14,
                nodes_after=12,
                latency_ratio=0.98,
            ),
        ),
        "split": Split(
            calibration=128, search=256, held_out=450, duplicates=3, sha256={"data": "cd" * 32}
        ),
        "baseline": BASE,
        "sensitivity": (
            Sensitivity(
                nodes=("/conv1/Conv", "/relu1/Relu"),
                operator="Conv",
                signal_to_noise_db=31.0,
                time_share=0.6,
            ),
            Sensitivity(
                nodes=("/head|1/MatMul",),
                operator="MatMul",
                signal_to_noise_db=8.5,
                time_share=0.1,
                excluded=True,
            ),
        ),
    }
    return Report(ending=ending, **(facts | _BY_ENDING[ending] | more))


def changed(given: Report, **settings: Any) -> Report:  # noqa: ANN401
    """The same report of a search with other settings."""
    return msgspec.structs.replace(
        given, settings=msgspec.structs.replace(given.settings, **settings)
    )
