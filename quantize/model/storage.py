"""Reads and writes model files, in one place: what one protobuf message cannot hold goes beside it.

Weights kept in files of their own are never read to look at a graph. Models in one folder share
them, so that a step that rewrites the graph of a model of many gigabytes costs what its graph
costs.
"""

import shutil
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper

from edge_runtime.errors import ModelLoadError
from edge_runtime.external_data import external_files
from quantize.errors import BadInputError
from quantize.model.operators import tensors

MESSAGE_BYTES_MAX: Final = (1 << 31) - 1
"""Protobuf's limit for one file."""
ONE_FILE_BYTES_MAX: Final = 3 << 29
"""1.5 GB: a larger model is saved with its weights beside it, as a rewritten graph may grow."""
WEIGHTS_SUFFIX: Final = ".data"
"""What stands behind a model file's name in the name of the file of its weights."""

_WEIGHT_BYTES_LEAST: Final = 1024  # smaller tensors steer shapes and are wanted in the graph


def load_graph(path: Path) -> onnx.ModelProto:
    """Read a model without the weights that are kept in other files.

    Raises:
        BadInputError: It is not an ONNX model, or cannot be read.
    """
    try:
        return onnx.load_model(path, format="protobuf", load_external_data=False)
    except Exception as error:  # protobuf is not a dependency whose errors may be named
        raise BadInputError(
            f"{path.name} cannot be read as an ONNX model: {error}; export it again or copy it "
            "completely"
        ) from error


def load_whole(path: Path) -> onnx.ModelProto:
    """Read a model with all its weights.

    Raises:
        BadInputError: It cannot be read, or its weights are missing.
    """
    model = load_graph(path)
    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise BadInputError(f"the weights of {path.name} cannot be read: {error}") from error
    return model


def stored_bytes(path: Path) -> int:
    """Add up the bytes of a model file and of the files that it reads.

    Raises:
        OSError: One of them is missing.
        ModelLoadError: It is not an ONNX model.
    """
    names = external_files(path, path.name)
    return sum(file.stat().st_size for file in (path, *(path.parent / name for name in names)))


def save(model: onnx.ModelProto, path: Path, *, weights_in: Path | None = None) -> None:
    """Write a model; large weights in memory go beside it where one file cannot hold them.

    Args:
        model: Is changed: tensors that go beside it lose their payload.
        path: File to write. Its folder is made; files of weights there are replaced.
        weights_in: Folder of the files that the model's external tensors name; they are copied,
            unless it is the folder of ``path``. ``None``: it names none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    names = {entry.value for entry in _locations(model)}
    for name in sorted(names) if weights_in is not None else ():
        _bring(weights_in / name, path.parent / name)
    if _payload_bytes(model) > ONE_FILE_BYTES_MAX:
        name = path.name + WEIGHTS_SUFFIX
        while name in names:  # never append to the weights of another model
            name += WEIGHTS_SUFFIX
        _put_beside(model, path.parent / name)
    path.write_bytes(model.SerializeToString())


def copy_model(source: Path, destination: Path) -> None:
    """Copy a model file, and the files that it reads unless they are in that folder already.

    Args:
        source: Model file.
        destination: File to write; its folder is made.

    Raises:
        BadInputError: A file is missing.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        for name in external_files(source, source.name):
            _bring(source.parent / name, destination.parent / name)
        shutil.copyfile(source, destination)
    except (OSError, ModelLoadError) as error:
        raise BadInputError(f"cannot copy {source.name}: {error}") from error


def remove(path: Path) -> None:
    """Remove a model that ``save`` wrote, with the weights it put beside it, if it is there."""
    path.unlink(missing_ok=True)
    path.with_name(path.name + WEIGHTS_SUFFIX).unlink(missing_ok=True)


def supersede(old: Path, new: Path, *, spare: Path) -> None:
    """Remove a model that another one in its folder replaces, and weights nobody reads any more.

    Args:
        old: The model to remove.
        new: What replaces it.
        spare: A model whose files stay, wherever it is.
    """
    kept = {(each.parent / name).resolve() for each in (new, spare) for name in _read_by(each)}
    unread = [old.parent / name for name in _read_by(old)]
    for path in (old, *unread):
        if path.resolve() not in kept:
            path.unlink(missing_ok=True)


def _read_by(path: Path) -> tuple[str, ...]:
    return (path.name, *external_files(path, path.name))


def _bring(source: Path, destination: Path) -> None:
    # A copy, never a link: onnx refuses weights with more than one name.
    if destination.exists() and destination.samefile(source):
        return
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, destination)


def _locations(model: onnx.ModelProto) -> list[onnx.StringStringEntryProto]:
    return [
        entry
        for tensor in tensors(model)
        if tensor.data_location == TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    ]


def _payload_bytes(model: onnx.ModelProto) -> int:
    return int(sum(tensor.ByteSize() for tensor in tensors(model)))


def _put_beside(model: onnx.ModelProto, path: Path) -> None:
    with path.open("wb") as file:
        for tensor in model.graph.initializer:
            held = tensor.data_location != TensorProto.EXTERNAL
            if not held or tensor.data_type == TensorProto.STRING:
                continue
            if tensor.ByteSize() < _WEIGHT_BYTES_LEAST:
                continue
            payload = tensor.raw_data or _as_bytes(tensor)
            offset = file.tell()
            file.write(payload)
            emptied = TensorProto(
                name=tensor.name,
                data_type=tensor.data_type,
                dims=tensor.dims,
                data_location=TensorProto.EXTERNAL,
            )
            facts = {"location": path.name, "offset": offset, "length": len(payload)}
            for key, value in facts.items():
                emptied.external_data.add(key=key, value=str(value))
            tensor.CopyFrom(emptied)


def _as_bytes(tensor: onnx.TensorProto) -> bytes:
    array = onnx.numpy_helper.to_array(tensor)
    return bytes(onnx.numpy_helper.from_array(np.ascontiguousarray(array)).raw_data)
