"""Goldens of a new bundle: what somebody gives, completed by what the model answers here."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from edge_runtime.cli.terminal import say
from edge_runtime.datatypes import BF16, Datatype
from edge_runtime.errors import ConfigError, EdgeRuntimeError, ManifestError
from edge_runtime.goldens import ENDING, LABELS, Golden, checked_feeds, unpack
from edge_runtime.manifest import Tolerance
from edge_runtime.session import Run
from edge_runtime.tensors import Array, Signature

ROUNDING: Final = {"FP64": 1e-3, "FP32": 1e-3, "FP16": 1e-2, "BF16": 3e-2}
"""Relative distance allowed where nobody says: sums in another order, on another CPU. The absolute
part is a tenth of it, of the output's largest value."""
QUANTIZED: Final = 0.05
"""The same for models that compute with integers: where a value lies between two steps of a scale,
CPUs decide differently, and a layer passes on a whole step."""

INTEGER_OPERATORS: Final = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "MatMulNBits",
        "QLinearConv",
        "QLinearMatMul",
    }
)
_ABSOLUTE_SHARE: Final = 0.1
_FILE_BYTES_MAX: Final = 2**30


class Made(NamedTuple):
    """Goldens that are complete.

    Attributes:
        goldens: Every output is there.
        computed: Names of those whose outputs the model gave here.
    """

    goldens: tuple[Golden, ...]
    computed: tuple[str, ...]


def read_given(paths: Sequence[str], signature: Signature) -> tuple[Golden, ...]:
    """Read the files that somebody named.

    Args:
        paths: ``.npz`` files; their names without the ending become the goldens' names.
        signature: What the model takes and gives.

    Returns:
        Goldens whose feeds fit the model; outputs as far as they are there.

    Raises:
        ConfigError: A file cannot be read or does not fit, or two have the same name.
    """
    found: dict[str, Golden] = {}
    for path in map(Path, paths):
        if path.suffix != ENDING:
            raise ConfigError(
                f"{path} is not an {ENDING} file: write one with numpy.savez, an array per input"
            )
        if path.stem in found:
            raise ConfigError(f"two goldens are called {path.stem}; rename one")
        found[path.stem] = _given(path, signature)
    return tuple(found.values())


def completed(goldens: Sequence[Golden], run: Run, signature: Signature) -> Made:
    """Add the outputs that are missing.

    Args:
        goldens: As ``read_given`` gives them.
        run: Of the model's session.
        signature: What the model takes and gives.

    Raises:
        ConfigError: The model fails on them.
    """
    names = [*signature.outputs]
    made, computed = [], []
    for golden in goldens:
        answers = answers_of(golden, run, names)
        missing = [name for name in names if name not in golden.outputs]
        if missing:
            computed.append(golden.name)
        made.append(
            golden._replace(
                outputs={name: golden.outputs.get(name, answers[name]) for name in names}
            )
        )
    return Made(tuple(made), tuple(computed))


def answers_of(golden: Golden, run: Run, names: Sequence[str]) -> dict[str, Array]:
    """Run a model on a golden's inputs.

    Args:
        golden: Fits the model.
        run: Of the model's session.
        names: Outputs to give back.

    Raises:
        ConfigError: The model fails on them.
    """
    try:
        return dict(zip(names, run(names, golden.feeds), strict=True))
    except EdgeRuntimeError as error:
        raise ConfigError(f"{golden.name}: the model fails on it: {error.message}") from error


def tolerances(
    asked: Sequence[tuple[str, float, float]],
    goldens: Sequence[Golden],
    signature: Signature,
    operators: Collection[str],
) -> tuple[Tolerance, ...]:
    """Decide how far each output may be from the goldens.

    Args:
        asked: Output (empty: any), absolute and relative part, as somebody asked for it.
        goldens: Complete.
        signature: What the model gives.
        operators: What it is made of.

    Returns:
        What was asked for, and where nothing was, a little for floats and nothing for the rest.

    Raises:
        ConfigError: An output is unknown or named twice, or there are no goldens.
    """
    if asked and not goldens:
        raise ConfigError("--tolerance needs --goldens: there is nothing to be close to")
    found: dict[str, Tolerance] = {}
    for output, atol, rtol in asked:
        if output and output not in signature.outputs:
            raise ConfigError(
                f"--tolerance: {output!r} is not an output; there are "
                f"{', '.join(signature.outputs)}"
            )
        if output in found:
            raise ConfigError(f"--tolerance: {output or 'any output'} is there twice")
        found[output] = Tolerance(output, atol, rtol)
    least = 0.0 if INTEGER_OPERATORS.isdisjoint(operators) else QUANTIZED
    if goldens and "" not in found:
        for name, spec in signature.outputs.items():
            arrays = [golden.outputs[name] for golden in goldens]
            found.setdefault(name, _usual(name, spec.datatype, arrays, least))
    return tuple(found.values())


def _given(path: Path, signature: Signature) -> Golden:
    """Read one file."""
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        arrays = unpack(data, str(path))
        if arrays is None or len(data) > _FILE_BYTES_MAX:
            raise ConfigError(f"{path} holds more than a golden may: give a few samples")
        feeds = checked_feeds(arrays, signature, str(path))
    except ManifestError as error:
        advice = "; build the bundle again"
        raise ConfigError(error.message.removesuffix(advice)) from error
    outputs = {name: arrays[name] for name in signature.outputs if name in arrays}
    is_tensor = LABELS in signature.outputs or LABELS in signature.input_names
    labels = None if is_tensor else arrays.get(LABELS)
    known = {*feeds, *outputs, LABELS}
    strangers = sorted(arrays.keys() - known)
    if strangers:
        say(f"{path}: left out {', '.join(strangers)}, neither input nor output of the model")
    _check_types(outputs, signature, path)
    return Golden(path.stem, feeds, outputs, labels)


def _check_types(outputs: Mapping[str, Array], signature: Signature, path: Path) -> None:
    for name, array in outputs.items():
        datatype = signature.outputs[name].datatype
        if array.dtype != np.dtype(datatype.numpy):
            raise ConfigError(
                f"{path}: {name!r} is {array.dtype}; the model gives {datatype.name}; leave it out "
                "and it is computed"
            )


def _usual(name: str, datatype: Datatype, arrays: Sequence[Array], least: float) -> Tolerance:
    """Allow what rounding on another CPU may do."""
    if datatype.name not in ROUNDING:
        return Tolerance(name)
    rounding = max(ROUNDING[datatype.name], least)
    largest = 0.0
    for array in arrays:
        numbers = array
        if datatype is BF16:
            numbers = (array.astype("<u4") << np.uint32(16)).view("<f4")
        finite = np.abs(numbers[np.isfinite(numbers)]).astype(np.float64)
        largest = max(largest, float(finite.max(initial=0.0)))
    # Two digits: the exact largest value is no reason for a long number in a manifest.
    return Tolerance(name, float(f"{largest * rounding * _ABSOLUTE_SHARE:.1e}"), rounding)
