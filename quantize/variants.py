"""Which models a bundle holds for which CPUs, in the order in which devices look at them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from edge_runtime.hardware import CpuFacts
from edge_runtime.manifest import Requires
from quantize.errors import StepFailedError
from quantize.execution import SATURATION_SAFE, open_runner
from quantize.records import BASELINE, Trial
from quantize.signature import Shape, Signature, TensorInfo

_ANY_CPU: Final = Requires()


class ShippedVariant(NamedTuple):
    """A model that goes into the bundle.

    Attributes:
        name: Of the variant and of its folder, for example ``int8-vnni``.
        file: The model file; its external weights are beside it.
        trial: What is known of it.
        requires: What a CPU must have to run it, and to run it well.
        session_options: ONNX Runtime's, for this variant.
    """

    name: str
    file: Path
    trial: Trial
    requires: Requires = _ANY_CPU
    session_options: Mapping[str, str] = {}


def in_order_of_preference(
    chosen: Trial | None,
    portable: Trial | None,
    baseline: Trial,
    requires: Requires,
    workspace: Path,
) -> tuple[ShippedVariant, ...]:
    """Decide which models a bundle holds, so that every CPU finds one that is right for it.

    Args:
        chosen: What the goal prefers; ``None``: nothing was accepted, the float model is all.
        portable: The best accepted trial whose results do not depend on the CPU; ``None``: none.
        baseline: The optimised float model.
        requires: What the chosen trial needs where it is not portable.
        workspace: Folder that the trials' files are relative to.

    Returns:
        The chosen one first; alone where it is portable. Else it is never for an x86 CPU without
        VNNI, and behind it stands one for any CPU: the portable trial, else the float model.
    """
    last = _variant(baseline, BASELINE, _ANY_CPU, workspace)
    if chosen is None or chosen.name == baseline.name:
        return (last,)
    kind = _kind(chosen)
    if chosen.portable:
        return (_variant(chosen, f"{kind}-portable", _ANY_CPU, workspace),)
    if requires.arch in {"", "x86_64"} and "vnni" not in requires.cpu_flags:
        # Whatever was asked for: on x86 without VNNI its sums could saturate.
        requires = Requires(requires.arch, (*requires.cpu_flags, "vnni"))
    first = _variant(chosen, f"{kind}-{_class(requires)}", requires, workspace)
    if portable is not None and portable.name != chosen.name:
        last = _variant(portable, f"{_kind(portable)}-portable", _ANY_CPU, workspace)
    return first, last


def as_served(options: Mapping[str, str], cpu: CpuFacts) -> dict[str, str]:
    """Give the session options a daemon runs a variant with on some CPU.

    Args:
        options: The variant's own.
        cpu: x86-64 without VNNI is told to compute sums that do not saturate.
    """
    safe = SATURATION_SAFE if cpu.arch == "x86_64" and not cpu.vnni else {}
    return {**options, **safe}


def common_signature(files: Sequence[Path]) -> Signature:
    """Find what several models all take and give: an axis is fixed where one of them fixes it.

    Args:
        files: Model files, at least one.

    Raises:
        StepFailedError: One cannot be loaded, or two contradict each other.
    """
    found: list[Signature] = []
    for file in files:
        with open_runner(file, optimize="none") as runner:
            found.append(runner.signature)
    first, *others = found
    for other in others:
        first = Signature(
            _merged(first.inputs, other.inputs), _merged(first.outputs, other.outputs)
        )
    return first


def _merged(
    first: tuple[TensorInfo, ...], second: tuple[TensorInfo, ...]
) -> tuple[TensorInfo, ...]:
    others = {tensor.name: tensor for tensor in second}
    if others.keys() != {tensor.name for tensor in first}:
        raise StepFailedError(
            f"two variants do not have the same tensors: {sorted(others)} and "
            f"{sorted(tensor.name for tensor in first)}"
        )
    return tuple(_narrowed(tensor, others[tensor.name]) for tensor in first)


def _narrowed(mine: TensorInfo, other: TensorInfo) -> TensorInfo:
    pairs = list(zip(mine.shape, other.shape, strict=False))
    agree = all(None in pair or pair[0] == pair[1] for pair in pairs)
    if mine.dtype != other.dtype or len(mine.shape) != len(other.shape) or not agree:
        raise StepFailedError(f"two variants contradict each other: {mine} and {other}")
    shape: Shape = tuple(b if a is None else a for a, b in pairs)
    return TensorInfo(mine.name, mine.dtype, shape)


def _variant(trial: Trial, name: str, requires: Requires, workspace: Path) -> ShippedVariant:
    return ShippedVariant(name, workspace / trial.file, trial, requires)


def _class(requires: Requires) -> str:
    """Name a class of CPUs; the manifest's ``vnni`` is the dot product on ARM."""
    if requires.arch == "aarch64":
        return "arm64-dotprod" if requires.cpu_flags else "arm64"
    return "-".join(requires.cpu_flags) or requires.arch


def _kind(trial: Trial) -> str:
    """Name what a trial is made of, as it stands in a variant's name."""
    match trial.recipe.kind:
        case "static" | "dynamic":
            return "int8"
        case "matmul-nbits":
            return f"int{trial.recipe.bits}"
        case "float16":
            return "fp16"
        case "float32":
            return "fp32-pruned"
