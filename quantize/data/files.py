"""The two forms in which samples lie on disk; gives plain arrays, not yet checked."""

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from quantize.errors import BadInputError
from quantize.signature import Array, TensorInfo

Arrays = dict[str, Array]

LABELS: Final = "labels"
"""Name of the array that holds what the metric compares with."""

_SET: Final = re.compile(r"test_data_set_(\d+)")
_INPUT: Final = re.compile(r"input_(\d+)\.pb")


def read_npz(path: Path) -> Arrays:
    """Read every array of a ``.npz`` file.

    Args:
        path: The file.

    Raises:
        BadInputError: It cannot be read, is no ``.npz`` file, or holds Python objects.
    """
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise BadInputError(
                    f"{path} is not a .npz file; write one with numpy.savez({path.stem + '.npz'!r}"
                    ", input_name=array)"
                )
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return {name: _array(archive, name, path) for name in archive.files}
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror or error}") from error
    except (zipfile.BadZipFile, EOFError) as error:
        raise BadInputError(f"{path} is damaged: {error}; write it again") from error


def read_folder(path: Path, inputs: Sequence[TensorInfo]) -> Arrays:
    """Read a folder of ONNX test data: one run's inputs in each ``test_data_set_*``.

    Args:
        path: Holds the sets, or is one.
        inputs: The model's, in its order.

    Returns:
        An array for every input: sets are joined along the first axis where the model lets it
        vary, or has 1 there, in all of its inputs; else each set is one sample. ``labels`` if
        there is a ``labels.npy``.

    Raises:
        BadInputError: There is no set, a file is missing or not a tensor, or the sets have
            different shapes.
    """
    found = {_number(_SET, each): each for each in path.iterdir() if each.is_dir()}
    sets = [found[number] for number in sorted(found.keys() - {None}, key=int)]  # type: ignore[arg-type]
    if not sets and any(_number(_INPUT, each) is not None for each in path.iterdir()):
        sets = [path]
    if not sets:
        raise BadInputError(
            f"{path}: no test_data_set_* folder and no input_0.pb in it; give a folder of ONNX "
            "test data, or a .npz file"
        )
    read = [_read_set(each, inputs) for each in sets]
    in_rows = _are_rows(read, inputs)
    arrays = {
        info.name: _joined([arrays[place] for arrays in read], info, sets, in_rows=in_rows)
        for place, info in enumerate(inputs)
    }
    labels = path / "labels.npy"
    if labels.exists():
        arrays[LABELS] = _read_labels(labels)
    return arrays


def _array(archive: np.lib.npyio.NpzFile, name: str, path: Path) -> Array:
    try:
        array = archive[name]
    except ValueError as error:
        raise BadInputError(
            f"{path}: array {name!r} cannot be read: {error}; save numbers of one shape, no "
            "Python objects"
        ) from error
    if not isinstance(array, np.ndarray):  # a member that is not .npy comes as bytes
        raise BadInputError(f"{path}: {name!r} is not an array; write the file with numpy.savez")
    return array


def _number(pattern: re.Pattern[str], path: Path) -> int | None:
    match = pattern.fullmatch(path.name)
    return int(match[1]) if match else None


def _read_set(folder: Path, inputs: Sequence[TensorInfo]) -> list[Array]:
    files = {_number(_INPUT, each): each for each in folder.iterdir()}
    files.pop(None, None)
    if files.keys() != set(range(len(inputs))):
        there = ", ".join(sorted(each.name for each in files.values())) or "none"
        raise BadInputError(
            f"{folder} has the inputs {there}, the model takes {len(inputs)}: expected "
            f"input_0.pb to input_{len(inputs) - 1}.pb, in the order of the model's inputs"
        )
    return [_read_tensor(files[place]) for place in range(len(inputs))]


def _read_tensor(path: Path) -> Array:
    # verify, which reads samples too, has to work without the onnx package.
    from onnx import TensorProto, numpy_helper  # noqa: PLC0415

    tensor = TensorProto()
    try:
        tensor.ParseFromString(path.read_bytes())
        # to_array would read another file from wherever we are.
        is_elsewhere = tensor.data_location == TensorProto.EXTERNAL
        array: Array = np.zeros(0) if is_elsewhere else numpy_helper.to_array(tensor)
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # protobuf's errors share no base
        raise BadInputError(f"{path} is not an ONNX tensor: {error}; write it again") from error
    if is_elsewhere:
        raise BadInputError(f"{path} keeps its values in another file; save them in this one")
    return array.astype(str) if array.dtype == object else array


def _are_rows(read: list[list[Array]], inputs: Sequence[TensorInfo]) -> bool:
    """Say whether every set is some rows of one batch, the same number in each of its inputs."""
    batched = all(info.shape and info.shape[0] in (None, 1) for info in inputs)
    return batched and all(
        array.ndim and len(array) == len(arrays[0]) for arrays in read for array in arrays
    )


def _joined(arrays: list[Array], info: TensorInfo, sets: list[Path], *, in_rows: bool) -> Array:
    shapes = [array.shape[1:] if in_rows else array.shape for array in arrays]
    for array, shape, folder in zip(arrays, shapes, sets, strict=True):
        if shape != shapes[0]:
            raise BadInputError(
                f"{folder}: {info.name!r} has shape {list(array.shape)}, in {sets[0].name} it is "
                f"{list(arrays[0].shape)}; pad all of them to one shape"
            )
    return np.concatenate(arrays) if in_rows else np.stack(arrays)


def _read_labels(path: Path) -> Array:
    try:
        labels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInputError(f"cannot read {path}: {error}; write it with numpy.save") from error
    if not isinstance(labels, np.ndarray):
        raise BadInputError(f"{path} is not a .npy file; write it with numpy.save")
    return labels
