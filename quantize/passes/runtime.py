"""ONNX Runtime's own rewriting of level 1: only operators that every CPU has."""

from pathlib import Path
from typing import Final

from quantize.execution import optimized_copy
from quantize.passes.step import Pass, always


def call(source: Path, destination: Path) -> None:
    """Save a model as ONNX Runtime rewrites it.

    Raises:
        StepFailedError: It cannot load or write it.
    """
    optimized_copy(source, destination, "basic")


RUNTIME: Final = Pass("onnxruntime level 1", requires=always, call=call)
