"""Golden files of a bundle: inputs, what the float model answers to them, and how far others are.

Needs numpy and the daemon's contracts only: ``verify`` runs it on a device. A golden ``.npz`` file
holds an array per input and per output, by their names; ``labels`` is there where the samples have
labels and no tensor has that name. The daemon warms models up with the same files.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np

from quantize.errors import VerificationError
from quantize.execution import Runner
from quantize.signature import Array, Signature

LABELS: Final = "labels"
UNPACKED_BYTES_MAX: Final = 2**30
"""Bytes of one golden file in memory; ours hold a hundredth of it."""


class Golden(NamedTuple):
    """Inputs of one run, and the float model's answers.

    Attributes:
        name: File name without its ending, for example ``samples-00``.
        feeds: Arrays by input name.
        outputs: The float model's arrays by output name.
        labels: What is right for each row, from the first one on; ``None``: not known.
    """

    name: str
    feeds: dict[str, Array]
    outputs: dict[str, Array]
    labels: Array | None = None


class Distance(NamedTuple):
    """How far an output is from the golden one.

    Attributes:
        beyond: Largest ``|found - expected| - rtol * |expected|``, in the output's unit; infinite
            where shapes differ or only one of both is a number.
        row: Where that is, along the first axis.
        problem: What is wrong besides numbers, in words; empty: nothing.
    """

    beyond: float
    row: int = 0
    problem: str = ""


def encode(golden: Golden) -> bytes:
    """Write a golden as a compressed ``.npz`` file, the same bytes for the same arrays."""
    arrays = {**golden.outputs, **golden.feeds}
    if golden.labels is not None and LABELS not in arrays:
        arrays[LABELS] = golden.labels
    file = io.BytesIO()
    with ZipFile(file, "w") as archive:
        # Not numpy.savez: it takes a tensor called `file` for its own argument.
        for name, array in arrays.items():
            plain = array.astype("U") if array.dtype == object else array
            entry = io.BytesIO()
            np.lib.format.write_array(entry, np.asanyarray(plain), allow_pickle=False)
            archive.writestr(_entry(name), entry.getvalue())
    return file.getvalue()


def read(path: Path, signature: Signature, shown: str) -> Golden:
    """Read a golden file whose digest was checked.

    Args:
        path: The ``.npz`` file.
        signature: Of the model: which arrays are inputs and outputs.
        shown: How messages call the file.

    Raises:
        VerificationError: It cannot be read, or has no array for an input.
    """
    try:
        with ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        arrays: dict[str, Array] = {}
        if unpacked <= UNPACKED_BYTES_MAX:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
    except Exception as error:  # zipfile and numpy have no base for what they say of bad files
        raise VerificationError(
            f"{shown} is not an .npz file of plain arrays: {error}; build the bundle again"
        ) from error
    if unpacked > UNPACKED_BYTES_MAX:
        raise VerificationError(
            f"{shown} unpacks to more than {UNPACKED_BYTES_MAX} bytes; build the bundle again"
        )
    inputs = [tensor.name for tensor in signature.inputs]
    outputs = [tensor.name for tensor in signature.outputs]
    missing = [name for name in inputs if name not in arrays]
    if missing:
        raise VerificationError(
            f"{shown} has no array for input {missing[0]!r}, only {sorted(arrays)}; build the "
            "bundle again"
        )
    return Golden(
        path.stem,
        {name: arrays[name] for name in inputs},
        {name: arrays[name] for name in outputs if name in arrays},
        None if LABELS in {*inputs, *outputs} else arrays.get(LABELS),
    )


def answered(runner: Runner, feeds: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
    """Run a model on each golden's inputs.

    Args:
        runner: The model.
        feeds: Inputs, one mapping a run.

    Raises:
        StepFailedError: A run failed.
    """
    return [runner.run(each) for each in feeds]


def distance(found: Array, expected: Array, rtol: float = 0.0) -> Distance:
    """Measure how far an output is from the golden one.

    Args:
        found: What the model gave, of any number type.
        expected: What the golden holds.
        rtol: Relative part that is allowed anyway, a ratio.

    Returns:
        Where it is farthest off. Places where both are not a number, or the same infinity, are
        equal.
    """
    if found.dtype != expected.dtype:
        return Distance(np.inf, 0, f"is {found.dtype}, the golden {expected.dtype}")
    if found.shape != expected.shape:
        return Distance(
            np.inf, 0, f"has shape {list(found.shape)}, the golden {list(expected.shape)}"
        )
    if not found.size:
        return Distance(0.0)
    if found.dtype.kind not in "biuf":
        return Distance(0.0 if np.array_equal(found, expected) else np.inf)
    ours, theirs = found.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinity less infinity: decided in the next line
        gap = np.abs(ours - theirs) - rtol * np.abs(theirs)
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    gap = np.where(same, 0.0, np.where(np.isnan(gap), np.inf, gap))
    place = int(np.argmax(gap))
    row = int(np.unravel_index(place, gap.shape)[0]) if gap.ndim else 0
    return Distance(max(0.0, float(gap.reshape(-1)[place])), row)


def _entry(name: str) -> ZipInfo:
    """Name an entry; its date is the same every day."""
    entry = ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry
