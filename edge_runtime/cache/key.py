"""The name of a question: equal questions get equal keys, all others get another one.

A key is a SHA-256 over everything that an answer depends on, every part behind its length, so that
no two questions share the hashed text. Equal means equal in every bit: 0.0 and -0.0, or two NaNs
with other payloads, are different questions, which costs a run and never a wrong answer.

SHA-256 and not BLAKE2, by measurement: from 64 bytes to a megabyte it takes 45 to 85 % of the time
where the CPU has instructions for it, as most have by now.
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from edge_runtime.datatypes import BYTES, Datatype
from edge_runtime.errors import InvalidTensorError
from edge_runtime.hardware import CpuFacts
from edge_runtime.tensors import Array, Signature, to_buffer

if TYPE_CHECKING:
    from hashlib import _Hash

# Part of the hashed text: another encoding must never give a key of this one.
ENCODING: Final = b"edge-runtime cache key 1"
HEADS_MAX: Final = 256  # combinations of shapes, outputs and callers whose start is remembered
FLAGS_DIGITS: Final = 16
STRING_WORK: Final = 16  # a string's place in an array has 8 bytes; encoding it takes longer

Parameters = Mapping[str, str | int | float | bool]
_NONE: Final[Parameters] = {}


def engine(runtime_version: str, providers: Sequence[str], cpu: CpuFacts) -> str:
    """Name what computes: two engines may round the same model's answers differently.

    Args:
        runtime_version: Of ONNX Runtime.
        providers: Execution providers that run the model, in order.
        cpu: Kernels and vector widths are chosen by its instruction sets.
    """
    flags = hashlib.sha256(_texts(sorted(cpu.flags))).hexdigest()[:FLAGS_DIGITS]
    return json.dumps([runtime_version, list(providers), cpu.arch, flags])


def is_same_machine(left: str, right: str) -> bool:
    """Say whether two engines differ in nothing but their execution providers."""
    return _machine(left) == _machine(right)


def _machine(text: str) -> list[str] | None:
    try:
        runtime_version, _, arch, flags = json.loads(text)
    except ValueError:
        return None
    return [runtime_version, arch, flags]


class Keys:
    """Names the questions asked of one model version.

    Args:
        identity: Model, version, digest of what runs, and engine that runs it. The digest alone
            would do for right answers; with the names, two models of the same content are kept,
            cleared and shared out apart.
        signature: Names and datatypes of the inputs.
    """

    __slots__ = ("_has_strings", "_heads", "_identity", "_inputs")

    def __init__(self, identity: Sequence[str], signature: Signature) -> None:
        self._inputs = [
            (spec.name, spec.datatype, np.dtype(spec.datatype.numpy))
            for spec in sorted(signature.inputs, key=lambda spec: spec.name)
        ]
        self._has_strings = any(datatype is BYTES for _, datatype, _ in self._inputs)
        inputs = [text for name, datatype, _ in self._inputs for text in (name, datatype.name)]
        said = (_field(ENCODING), _texts(identity), _texts(inputs))
        self._identity = hashlib.sha256(b"".join(said))
        self._heads: dict[tuple[object, ...], _Hash] = {}

    def work_bytes(self, feeds: Mapping[str, Array]) -> int:
        """Say roughly how much there is to hash."""
        size = sum([array.nbytes for array in feeds.values()])
        return size * STRING_WORK if self._has_strings else size

    def of(
        self,
        feeds: Mapping[str, Array],
        names: Sequence[str],
        uid: int | None = None,
        parameters: Parameters = _NONE,
    ) -> bytes:
        """Name one question.

        Args:
            feeds: Arrays by input name, of the signature's datatypes; any layout and byte order.
            names: Outputs asked for; neither order nor repetition matters.
            uid: Whose question it is; ``None``: everybody's.
            parameters: Of the request, those that can change the answer.

        Returns:
            32 bytes.

        Raises:
            KeyError: An input is missing.
            InvalidTensorError: An array has another datatype than the signature says.
        """
        arrays = [feeds[name] for name, _, _ in self._inputs]
        said = _parameters(parameters) if parameters else b""
        # What comes in front of the elements repeats: a model is asked with few shapes.
        start = (uid, said, *names, *[array.shape for array in arrays])
        head = self._heads.get(start)
        if head is None:
            head = self._head(start, arrays, names, uid, said)
        digest = head.copy()
        for array, (name, datatype, dtype) in zip(arrays, self._inputs, strict=True):
            if array.dtype is dtype and datatype is not BYTES:
                digest.update(array.ravel().data)
            else:
                digest.update(_elements(name, datatype, dtype, array))
        return digest.digest()

    def _head(
        self,
        start: tuple[object, ...],
        arrays: Sequence[Array],
        names: Sequence[str],
        uid: int | None,
        said: bytes,
    ) -> "_Hash":
        head = self._identity.copy()
        head.update(b"\0" if uid is None else b"\1" + _number(uid))
        head.update(_texts(sorted(set(names))))
        head.update(_field(said))
        # The number of elements follows from a shape, and strings are behind their lengths: so
        # the elements of all inputs can follow each other.
        for array in arrays:
            head.update(_number(array.ndim))
            head.update(struct.pack(f"<{array.ndim}Q", *array.shape))
        if len(self._heads) >= HEADS_MAX:
            self._heads.clear()
        self._heads[start] = head
        return head


def _elements(
    name: str, datatype: Datatype, dtype: np.dtype[np.generic], array: Array
) -> bytes | memoryview:
    """Give an array's elements row by row, little-endian, whatever its layout in memory."""
    if array.dtype != dtype:
        if array.dtype.newbyteorder("<") != dtype:
            raise InvalidTensorError(f"input {name!r} is {array.dtype}, not {datatype.name}")
        array = array.astype(dtype)
    return to_buffer(BYTES, array) if datatype is BYTES else array.ravel().data


def _parameters(parameters: Parameters) -> bytes:
    """Encode parameters with their types: true, 1 and 1.0 are three different values."""
    parts = []
    for name, value in sorted(parameters.items()):
        data = struct.pack("<d", value) if isinstance(value, float) else str(value).encode()
        parts += [_field(name.encode()), _field(type(value).__name__.encode()), _field(data)]
    return b"".join(parts)


def _texts(texts: Iterable[str]) -> bytes:
    fields = [_field(text.encode()) for text in texts]
    return _number(len(fields)) + b"".join(fields)


def _field(data: bytes) -> bytes:
    return _number(len(data)) + data


def _number(number: int) -> bytes:
    return number.to_bytes(8, "little")
