"""Read samples from files and check every array against the model it is for."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from quantize.data.dataset import Dataset
from quantize.data.files import LABELS, Arrays, read_folder, read_npz
from quantize.errors import BadInputError
from quantize.signature import Array, Signature, TensorInfo, listed

_FLOATS: Final = "fc"
_CHECKED_AT_ONCE: Final = 1 << 20  # numbers


def read_data(path: Path, signature: Signature) -> Dataset:
    """Read samples for a model.

    A ``.npz`` file has an array for every input, and ``labels`` where there are any (unless an
    input is called so). An array with as many axes as the model's input has a sample in every
    row; with one axis more, each sample is everything that one run takes.

    A folder holds ``test_data_set_*`` folders with ``input_0.pb``, ``input_1.pb`` and so on, in
    the order of the model's inputs, or is one itself; ``labels.npy`` beside them is optional,
    ``output_*.pb`` are not read.

    Args:
        path: File or folder.
        signature: Of the model.

    Returns:
        All samples; arrays have the model's dtypes and only finite numbers.

    Raises:
        BadInputError: It cannot be read, or an array is missing, is not the model's, or has the
            wrong dtype, shape, number of samples, or NaN or infinite values.
    """
    if not signature.inputs:
        raise BadInputError("the model has no input, so no data can be given to it")
    if path.is_dir():
        arrays = read_folder(path, signature.inputs)
    elif path.exists():
        arrays = read_npz(path)
    else:
        raise BadInputError(f"{path}: no such file or folder; give a .npz file with samples")
    return check(arrays, signature, str(path))


def check(arrays: Arrays, signature: Signature, origin: str) -> Dataset:
    """Make a data set of arrays that are in memory, or refuse them.

    Args:
        arrays: As in a ``.npz`` file.
        signature: Of the model.
        origin: Where they come from, for messages.

    Raises:
        BadInputError: See ``read_data``.
    """
    names = [info.name for info in signature.inputs]
    labels = None if LABELS in names else arrays.get(LABELS)
    _check_names(arrays.keys() - ({LABELS} if LABELS not in names else set()), names, origin)
    inputs = {info.name: _typed(arrays[info.name], info, origin) for info in signature.inputs}
    whole = frozenset(
        info.name for info in signature.inputs if _is_whole(inputs[info.name], info, origin)
    )
    _check_counts(inputs, labels, origin)
    for name, array in inputs.items():
        _check_finite(name, array, origin)
    if labels is not None:
        _check_finite(LABELS, labels, origin)
    return Dataset(inputs, labels, origin, whole, _run_rows(signature.inputs, whole, origin))


def _check_names(found: Iterable[str], wanted: list[str], origin: str) -> None:
    found = set(found)
    missing = [name for name in wanted if name not in found]
    extra = sorted(found - set(wanted))
    if not missing and not extra:
        return
    problem = " and ".join(
        ([f"has no array {listed(missing)}"] if missing else [])
        + ([f"has {listed(extra)}, which the model does not take"] if extra else [])
    )
    raise BadInputError(
        f"{origin} {problem}; the model's inputs are {listed(wanted)}: give one array for each, "
        f"and {LABELS!r} for labels"
    )


def _typed(array: Array, info: TensorInfo, origin: str) -> Array:
    """Give the array in the machine's byte order, if its dtype is the model's."""
    found = array.dtype
    if info.dtype == object:
        if found.kind == "U":
            return array
    elif found.newbyteorder("=") == info.dtype.newbyteorder("="):
        return array.astype(info.dtype, copy=False)
    wanted = "str" if info.dtype == object else info.dtype.name
    raise BadInputError(
        f"{origin}: array {info.name!r} is {found.name}, the model takes {wanted}; convert it "
        f"before it is saved: {info.name}.astype({wanted!r})"
    )


def _is_whole(array: Array, info: TensorInfo, origin: str) -> bool:
    """Say whether a sample is a whole input, or refuse the shape."""
    # ONNX Runtime says () of a scalar, and of an input whose file does not declare a shape.
    if not info.shape and array.ndim != 1:
        if array.ndim:
            return False
    elif array.ndim == len(info.shape) and _fits(array.shape[1:], info.shape[1:]):
        return False
    elif array.ndim == len(info.shape) + 1 and _fits(array.shape[1:], info.shape):
        return True
    rows = _shown(("samples", *info.shape[1:])) if info.shape else ""
    whole = _shown(("samples", *info.shape))
    raise BadInputError(
        f"{origin}: array {info.name!r} has shape {_shown(array.shape)}, the model's input is "
        f"{info}; expected {rows}{' (a sample in each row) or ' if rows else ''}{whole} (a whole "
        "input for each sample); ? is any size"
    )


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return all(size in (found, None) for found, size in zip(shape, wanted, strict=True))


def _shown(shape: Iterable[int | str | None]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def _check_counts(inputs: Mapping[str, Array], labels: Array | None, origin: str) -> None:
    first, *others = inputs
    count = len(inputs[first])
    if not count:
        raise BadInputError(
            f"{origin}: array {first!r} holds no sample (its first axis is 0); give samples that "
            "are like those the model will see"
        )
    counts = {name: len(inputs[name]) for name in others}
    if labels is not None:
        counts[LABELS] = len(labels) if labels.ndim else 0
    for name, found in counts.items():
        if found != count:
            raise BadInputError(
                f"{origin}: array {name!r} holds {found} samples and {first!r} holds {count}; the "
                "first axis of all arrays counts the same samples"
            )


def _check_finite(name: str, array: Array, origin: str) -> None:
    if array.dtype.kind not in _FLOATS:
        return
    step = max(1, _CHECKED_AT_ONCE // max(1, array[0].size))  # no mask as large as the data
    for start in range(0, len(array), step):
        finite = np.isfinite(array[start : start + step])
        if not finite.all():
            index = start + int(np.argwhere(~finite)[0][0])
            what = "NaN" if np.isnan(array[index]).any() else "infinity"
            raise BadInputError(
                f"{origin}: array {name!r} holds {what} in sample {index} (counted from 0); take "
                "such samples out, or mend what wrote them"
            )


def _run_rows(inputs: tuple[TensorInfo, ...], whole: frozenset[str], origin: str) -> int | None:
    """Find how many rows a model takes in every run; ``None`` where it takes any number."""
    fixed = {
        info.name: info.shape[0]
        for info in inputs
        if info.name not in whole and info.shape and info.shape[0] is not None
    }
    sizes = set(fixed.values()) | ({1} if whole and len(whole) < len(inputs) else set())
    if len(sizes) > 1:
        rows = ", ".join(f"{name!r} {size}" for name, size in fixed.items())
        raise BadInputError(
            f"{origin}: the model's inputs do not take the same number of rows ({rows}), so a "
            "sample cannot be a row; give whole inputs: arrays with one axis more in front, which "
            "counts samples"
        )
    return sizes.pop() if sizes and not whole else None
