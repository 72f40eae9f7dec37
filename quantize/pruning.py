"""Removes channels and attention heads that matter least, by onnxsim: smaller shapes, not zeros.

onnxsim is young and rewrites weights, so its version is pinned and nothing it returns is believed:
every result is checked, loaded and run before anybody sees it. What a smaller model is worth is
for the same floor and gate to say as for any other candidate.
"""

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from edge_runtime.errors import ModelLoadError
from quantize.errors import BadInputError, StepFailedError
from quantize.execution import open_runner
from quantize.model import storage
from quantize.model.operators import elements, is_quantized, nodes
from quantize.passes.finishing import FINISHING
from quantize.passes.step import Subject, broken, fits_in_memory, read_subject
from quantize.signature import Array, Signature

VERSION: Final = "0.8.1"
"""Of onnxsim: the only one whose results were looked at."""
STRUCTURED: Final = "structured"
"""What ``--prune`` takes: whole channels and heads."""

_UNSTRUCTURED: Final = frozenset(
    {"unstructured", "sparse", "sparsity", "magnitude", "wanda", "2:4", "n:m", "zeros"}
)

Feeds = Mapping[str, Array]
_Removal = Callable[[onnx.ModelProto], Any]


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of the ladder.

    Attributes:
        ratio: Share of channels and heads asked to be removed.
        path: The smaller model; ``None``: there is none.
        reason: What was removed, or why there is no model.
        parameters: Elements stored by the smaller model; 0: there is none.
    """

    ratio: float
    path: Path | None
    reason: str
    parameters: int = 0


def check_request(how: str) -> None:
    """Check what a caller asks to be removed.

    Args:
        how: The value of ``--prune``.

    Raises:
        BadInputError: It is not ``structured``; says why zeros in weights are not offered.
    """
    if how.lower() in _UNSTRUCTURED:
        raise BadInputError(
            f"--prune {how}: zeros within weights make nothing faster here, because ONNX Runtime "
            f"multiplies by them as by any number; use --prune {STRUCTURED}, which removes whole "
            "channels and heads"
        )
    if how != STRUCTURED:
        raise BadInputError(f"--prune {how}: unknown; the only way is {STRUCTURED}")


def check_installed() -> None:
    """Check that the pinned onnxsim is there.

    Raises:
        BadInputError: It is not, or another version is.
    """
    try:
        version = importlib.metadata.version("onnxsim")
    except importlib.metadata.PackageNotFoundError:
        version = ""
    if version != VERSION:
        found = f"{version} is installed" if version else "it is not installed"
        raise BadInputError(
            f"--prune needs onnxsim {VERSION}, and {found}; install edge-runtime[quantize,prune]"
        )


def prune_ladder(
    source: Path,
    workspace: Path,
    samples: Sequence[Feeds],
    ratios: Sequence[float] = (0.1, 0.2, 0.3),
) -> Iterator[Rung]:
    """Make smaller models, one for each ratio, each from the whole model.

    Args:
        source: A float model that the rewriting steps are done with: normalisation must be
            folded into weights already. Must lie in ``workspace`` if it has external weights.
        workspace: Folder for the results.
        samples: Inputs that tell how strong channels are, and that results are tried on.
        ratios: Shares of channels and heads to remove.

    Yields:
        A rung for each ratio, in their order. One that failed has no model.

    Raises:
        BadInputError: onnxsim is missing or of another version, or there is no sample.
    """
    check_installed()
    if not samples:
        raise BadInputError("pruning needs samples: they tell which channels are weak")
    workspace.mkdir(parents=True, exist_ok=True)
    for ratio in ratios:
        destination = workspace / f"pruned-{round(100 * ratio):02d}.onnx"
        yield _rung(source, destination, samples, ratio)


def _rung(source: Path, destination: Path, samples: Sequence[Feeds], ratio: float) -> Rung:
    before = read_subject(source)
    unfit = fits_in_memory(before)
    if unfit:
        return Rung(ratio, None, f"not tried: {unfit}")
    if any(is_quantized(node.op_type) for node in nodes(before.model)):
        return Rung(ratio, None, "not tried: the model is quantised")
    current, said = before, []
    for what, removal in _removals(samples, ratio):
        tried = destination.with_name(f"{destination.stem}-{what}.onnx")
        try:
            smaller = _called(removal, current.path)
            if _parameters(smaller) == _parameters(current.model):
                continue
            made = _verified(before, smaller, tried, samples)
        except (StepFailedError, ModelLoadError, OSError) as error:
            storage.remove(tried)
            said.append(f"{what} failed: {error}")
            continue
        said.append(f"{what} removed")
        if current is not before:
            storage.remove(current.path)
        current = made
    if current is before:
        reason = "; ".join(said) or "no channel or head can be removed without a change outside"
        return Rung(ratio, None, reason)
    current.path.replace(destination)
    had, has = _parameters(before.model), _parameters(current.model)
    said.append(f"{has} of {had} parameters left")
    return Rung(ratio, destination, "; ".join(said), has)


def _removals(samples: Sequence[Feeds], ratio: float) -> list[tuple[str, _Removal]]:
    """Return what is done to the model, in order; strong activations keep a channel alive."""
    import onnxsim  # noqa: PLC0415 - slow to load, and seldom asked for

    data = [dict(feeds) for feeds in samples]
    return [
        (
            "channels",
            lambda model: onnxsim.apply_structured_wanda_pruning(
                model, calibration_data=data, sparsity=ratio
            ),
        ),
        (
            "heads",
            lambda model: onnxsim.apply_attention_head_wanda_pruning(
                model, calibration_data=data, sparsity=ratio
            ),
        ),
    ]


def _called(removal: _Removal, path: Path) -> onnx.ModelProto:
    try:
        made = removal(storage.load_whole(path))
    except Exception as error:  # onnxsim's errors share no base
        raise StepFailedError(f"onnxsim failed: {' '.join(str(error).split())}") from error
    if not isinstance(made, onnx.ModelProto):
        raise StepFailedError(f"onnxsim returned {type(made).__name__}, not a model")
    return made


def _verified(
    before: Subject, smaller: onnx.ModelProto, path: Path, samples: Sequence[Feeds]
) -> Subject:
    """Write a smaller model and believe in it only after it ran.

    Raises:
        StepFailedError: It is not valid, takes or gives other tensors, or fails on a sample.
    """
    raw = path.with_name(f"{path.stem}-raw.onnx")
    try:
        del smaller.graph.value_info[:]  # shapes of before
        storage.save(smaller, raw)
        FINISHING.call(raw, path)
    finally:
        storage.remove(raw)
    made = read_subject(path)
    problem = broken(before, made)
    if not problem and _parameters(made.model) > _parameters(before.model):
        problem = "it has become larger"
    problem = problem or _fails(before.path, path, samples)
    if problem:
        raise StepFailedError(f"onnxsim's result cannot be used: {problem}")
    return made


def _fails(original: Path, path: Path, samples: Sequence[Feeds]) -> str:
    with open_runner(original) as whole, open_runner(path) as smaller:
        if _declared(whole.signature) != _declared(smaller.signature):
            return "it takes or gives other tensors"
        for feeds in samples:
            expected, found = whole.run(feeds), smaller.run(feeds)
            for name, array in found.items():
                if array.shape != expected[name].shape:
                    return f"output {name!r} is {array.shape}, not {expected[name].shape}"
                finite = array.dtype.kind != "f" or np.isfinite(array).all()
                if not finite and np.isfinite(expected[name]).all():
                    return f"output {name!r} is not finite"
    return ""


def _declared(signature: Signature) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    inputs = [(each.name, str(each.dtype)) for each in signature.inputs]
    return inputs, [(each.name, str(each.dtype)) for each in signature.outputs]


def _parameters(model: onnx.ModelProto) -> int:
    return sum(elements(tensor) for tensor in model.graph.initializer)
