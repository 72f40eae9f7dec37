"""Finds the files that an ONNX model reads besides itself, without the onnx package.

A walk over the protobuf wire format of the mapped file: it descends only into the messages that
can hold a tensor and steps over every payload, so a model with gigabytes of weights costs what its
graph costs. Field numbers are those of ``onnx.proto``; a test compares them with the package.
"""

import contextlib
import mmap
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from edge_runtime.errors import ManifestError, ModelLoadError
from edge_runtime.manifest import check_file_name

MAX_DEPTH: Final = 100
"""Messages inside each other; protobuf's own parsers stop there as well."""
MAX_FIELDS: Final = 10_000_000
"""Fields looked at in one model, about ten seconds; large real graphs have under a million."""

_MAX_VARINT_BYTES: Final = 10
_TAG_LIMIT: Final = 1 << 32
_LENGTH_DELIMITED: Final = 2
_FIXED_BYTES: Final = {1: 8, 5: 4}
_VARINT: Final = 0

# Message -> field number -> message. What is not here cannot hold external data.
CHILDREN: Final[dict[str, dict[int, str]]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {13: "StringStringEntryProto"},
    "StringStringEntryProto": {},
}
_KEY: Final = 1
_VALUE: Final = 2
_OP_TYPE: Final = 4  # of NodeProto
_OPSET_IMPORT: Final = 8  # of ModelProto
_DOMAIN: Final = 1  # of OperatorSetIdProto
_VERSION: Final = 2
_DEFAULT_DOMAINS: Final = {b"", b"ai.onnx"}
# ONNX Runtime's mark for weights at a memory address: a file that says so lies.
_MEMORY_MARK: Final = "_ORT_MEM_ADDR_"


class _NotProtobufError(Exception):
    """The bytes are not a protobuf message of the expected shape; the text says why."""


def external_files(model_path: Path, shown: str = "") -> tuple[str, ...]:
    """List the files a model names as external data.

    Every tensor's ``external_data`` counts, also where ``data_location`` does not ask for it: a
    model cannot hide a file from this list by the order or the splitting of its fields.

    Args:
        model_path: The ONNX file.
        shown: How messages call it; empty: the path.

    Returns:
        Sorted names relative to the model's folder, each once. They may be missing on disk.

    Raises:
        ModelLoadError: The file cannot be read or is not an ONNX model, or a name in it is
            absolute, holds ``..`` or leads out of the model's folder.
    """
    name = shown or str(model_path)
    try:
        locations = _with_mapped(model_path).locations
    except _NotProtobufError as error:
        raise ModelLoadError(
            f"{name} is not an ONNX model: {error}; export the model again or copy it completely"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"cannot read {name}: {error}; check its permissions") from error
    return tuple(sorted({_checked(location, model_path, name) for location in locations}))


def operators(model_path: Path) -> frozenset[str]:
    """List the operators that a model uses, in subgraphs and functions too.

    Args:
        model_path: The ONNX file; ``external_files`` has accepted it.

    Returns:
        Their types, without the domain.

    Raises:
        ModelLoadError: The file cannot be read or is not an ONNX model.
    """
    try:
        return frozenset(_with_mapped(model_path).operators)
    except (_NotProtobufError, OSError, ValueError) as error:
        raise ModelLoadError(f"cannot read {model_path.name}: {error}") from error


def opset(model_path: Path) -> int:
    """Tell the version of ONNX's own operators that a model is written in.

    Args:
        model_path: The ONNX file; ``external_files`` has accepted it.

    Returns:
        The version; 0 if the model does not state it.

    Raises:
        ModelLoadError: The file cannot be read or is not an ONNX model.
    """
    try:
        return _with_mapped(model_path).opset
    except (_NotProtobufError, OSError, ValueError) as error:
        raise ModelLoadError(f"cannot read {model_path.name}: {error}") from error


def _with_mapped(path: Path) -> "_Walk":
    """Map a file and walk it."""
    with path.open("rb") as file:
        if not file.seek(0, 2):
            raise _NotProtobufError("it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
            return _Walk(buffer)


def _checked(location: bytes, model_path: Path, shown: str) -> str:
    """Return a location as a relative name, if it stays in the model's folder."""
    text = location.decode("utf-8", errors="replace")
    problem = f"{shown} keeps weights in {text!r}, which"
    remedy = "save the model again with its weights beside it"
    if "\N{REPLACEMENT CHARACTER}" in text:
        raise ModelLoadError(f"{problem} is not UTF-8; {remedy}")
    if _MEMORY_MARK in text:
        raise ModelLoadError(f"{problem} is a memory address, not a file; {remedy}")
    # "./weights.bin" is a common spelling of "weights.bin"; "." alone stays and is refused.
    relative = str(PurePosixPath(text)) if text else ""
    try:
        check_file_name(relative)
    except ManifestError as error:
        raise ModelLoadError(f"{problem} is not a file name within its folder; {remedy}") from error
    folder = model_path.parent
    try:
        with contextlib.suppress(FileNotFoundError):  # said later, by whoever needs the file
            (folder / relative).stat()  # from Python 3.13 on, resolve() takes a loop for a file
        inside = (folder / relative).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:
        raise ModelLoadError(f"{problem} cannot be followed: {error}; {remedy}") from error
    if not inside:
        raise ModelLoadError(f"{problem} is a link that leaves the model's folder; {remedy}")
    return relative


class _Walk:
    """One pass over one message; counts its fields.

    Attributes:
        locations: Every ``location`` value of external data.
        operators: The type of every node.
        opset: Version of ONNX's own operators; 0: not stated, or not understood.
    """

    def __init__(self, buffer: mmap.mmap) -> None:
        self._buffer = buffer
        self._fields_left = MAX_FIELDS
        self.locations: set[bytes] = set()
        self.operators: set[str] = set()
        self.opset = 0
        self._collect()

    def _collect(self) -> None:
        """Look at every message, and make sure that there is a graph."""
        found = self.locations
        has_graph = False
        # A stack of our own: depth is data here, and must not become Python's recursion.
        stack = [("ModelProto", 0, len(self._buffer), 0)]
        while stack:
            message, start, end, depth = stack.pop()
            if depth > MAX_DEPTH:
                raise _NotProtobufError(f"its messages are nested deeper than {MAX_DEPTH}")
            if message == "StringStringEntryProto":
                found.update(self._entry(start, end))
                continue
            children = CHILDREN[message]
            for number, first, last in self._parts(start, end):
                if number == _OP_TYPE and message == "NodeProto":
                    self.operators.add(self._buffer[first:last].decode("utf-8", "replace"))
                elif number == _OPSET_IMPORT and message == "ModelProto":
                    with contextlib.suppress(_NotProtobufError):
                        self.opset = max(self.opset, self._default_opset(first, last))
                child = children.get(number)
                if child is None:
                    continue
                has_graph = has_graph or (depth == 0 and child == "GraphProto")
                stack.append((child, first, last, depth + 1))
        if not has_graph:
            raise _NotProtobufError("it holds no graph")

    def _default_opset(self, start: int, end: int) -> int:
        """Return the version in an operator set's entry; 0 if it is of another domain."""
        domain, version, position = b"", 0, start
        while position < end:
            tag, position = self._varint(position, end)
            number, wire = tag >> 3, tag & 7
            if wire in _FIXED_BYTES:
                position += _FIXED_BYTES[wire]
                continue
            value, position = self._varint(position, end)
            if wire == _LENGTH_DELIMITED:
                if number == _DOMAIN:
                    domain = self._buffer[position : position + value]
                position += value
            elif number == _VERSION:
                version = value
        return version if domain in _DEFAULT_DOMAINS else 0

    def _entry(self, start: int, end: int) -> list[bytes]:
        """Return the values of one entry if its key is ``location``."""
        keys: list[bytes] = []
        values: list[bytes] = []
        for number, first, last in self._parts(start, end):
            if number == _KEY:
                keys.append(self._buffer[first:last])
            elif number == _VALUE:
                values.append(self._buffer[first:last])
        if b"location" not in keys:
            return []
        return values or [b""]

    def _parts(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield number, first and end position of each length-delimited field."""
        position = start
        while position < end:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise _NotProtobufError(f"it has more than {MAX_FIELDS} fields")
            tag, position = self._varint(position, end)
            number, wire = tag >> 3, tag & 7
            if number == 0 or tag >= _TAG_LIMIT:
                raise _NotProtobufError(f"there is no field at byte {position}")
            if wire == _VARINT:
                _, position = self._varint(position, end)
                continue
            if wire == _LENGTH_DELIMITED:
                length, position = self._varint(position, end)
            elif wire in _FIXED_BYTES:
                length = _FIXED_BYTES[wire]
            else:
                raise _NotProtobufError(f"the field before byte {position} has no known form")
            if length > end - position:
                raise _NotProtobufError(f"it ends within the field at byte {position}")
            if wire == _LENGTH_DELIMITED:
                yield number, position, position + length
            position += length

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        """Read one variable-length integer; return it and the position after it."""
        value = 0
        for index in range(min(_MAX_VARINT_BYTES, end - position)):
            byte = self._buffer[position + index]
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:  # noqa: PLR2004 (the format's continuation bit)
                return value, position + index + 1
        raise _NotProtobufError(f"the number at byte {position} does not end")
