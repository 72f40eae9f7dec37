"""One kept answer: outputs that nobody can change, and how they are written down.

The written form is a 4-byte length, a MessagePack list of ``[name, datatype, shape, bytes]``, and
the elements of each output as the protocol has them in binary, each starting at a multiple of 16.
"""

import hashlib
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from edge_runtime.datatypes import BY_NAME, BYTES, Datatype
from edge_runtime.errors import InvalidTensorError
from edge_runtime.tensors import Array, Tensor, from_buffer, to_buffer

ALIGNMENT_BYTES: Final = 16  # what the memory of a bytes object can promise
ENTRY_BYTES: Final = 700  # measured: what an entry takes in memory beside its outputs, all told
TENSOR_BYTES: Final = 300  # measured: what one output takes beside its elements

CHECKSUM_BYTES: Final = 16
_times: Final = struct.Struct("<qq")

_Described = list[tuple[str, str, list[int], int]]
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Described)


class CorruptEntryError(ValueError):
    """A written answer is not what ``encode`` wrote."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One kept answer.

    Attributes:
        tensors: Outputs by name; their arrays cannot be written to.
        created_s: When it was computed, in seconds since the epoch.
        run_ns: How long its run took, in nanoseconds.
        size_bytes: What it takes in memory, roughly.
    """

    tensors: Mapping[str, Tensor]
    created_s: float
    run_ns: int
    size_bytes: int

    def outputs(self, names: Sequence[str]) -> list[Array]:
        """Give the outputs in the order asked for."""
        return [self.tensors[name].array for name in names]


def entry(tensors: Mapping[str, Tensor], created_s: float, run_ns: int) -> Entry:
    """Make an entry of outputs, which nobody may write to from here on.

    Args:
        tensors: Outputs by name.
        created_s: When they were computed, in seconds since the epoch.
        run_ns: How long the run took, in nanoseconds.
    """
    frozen = {name: Tensor(datatype, _frozen(array)) for name, (datatype, array) in tensors.items()}
    return Entry(frozen, created_s, run_ns, in_memory_bytes(frozen))


def in_memory_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Say what an entry of these outputs takes in memory, roughly."""
    size = ENTRY_BYTES
    for datatype, array in tensors.values():
        size += TENSOR_BYTES + array.nbytes
        if datatype is BYTES:
            size += sum(map(sys.getsizeof, array.reshape(-1).tolist()))
    return size


def _frozen(array: Array) -> Array:
    """Make an array immutable; a part of a larger one is copied, or it would keep all of that."""
    whole = array.base
    if not array.flags.c_contiguous or (
        isinstance(whole, np.ndarray) and whole.nbytes > array.nbytes
    ):
        array = array.copy()
    array.flags.writeable = False
    return array


def encode(tensors: Mapping[str, Tensor]) -> bytes:
    """Write outputs down.

    Args:
        tensors: Outputs by name.

    Raises:
        UnicodeEncodeError: A string holds a lone surrogate.
    """
    data = [to_buffer(datatype, array) for datatype, array in tensors.values()]
    described: _Described = [
        (name, tensor.datatype.name, list(tensor.array.shape), len(elements))
        for (name, tensor), elements in zip(tensors.items(), data, strict=True)
    ]
    head = _encoder.encode(described)
    parts: list[bytes | memoryview] = [len(head).to_bytes(4, "little"), head]
    parts.append(bytes(-(4 + len(head)) % ALIGNMENT_BYTES))
    for elements in data:
        parts += [elements, bytes(-len(elements) % ALIGNMENT_BYTES)]
    return b"".join(parts)


def decode(payload: bytes) -> dict[str, Tensor]:
    """Read outputs back; their arrays are views of ``payload`` and cannot be written to.

    Args:
        payload: What ``encode`` wrote.

    Raises:
        CorruptEntryError: It is not.
    """
    end = 4 + int.from_bytes(payload[:4], "little")
    try:
        described = _decoder.decode(payload[4:end])
        view = memoryview(payload)
        position = end + -end % ALIGNMENT_BYTES
        tensors = {}
        for name, word, shape, size in described:
            if size < 0 or position + size > len(payload):
                raise CorruptEntryError(f"output {name!r} lies beyond the end")
            datatype = BY_NAME[word]
            array = _read(name, datatype, shape, view[position : position + size])
            tensors[name] = Tensor(datatype, array)
            position += size + -size % ALIGNMENT_BYTES
    except (msgspec.MsgspecError, UnicodeDecodeError, InvalidTensorError, KeyError) as error:
        raise CorruptEntryError(str(error)) from error
    if position != len(payload) or len(tensors) != len(described):
        raise CorruptEntryError(f"{len(payload)} bytes where {position} were to be")
    return tensors


def checksum(key: bytes, created_ms: int, run_ns: int, payload: bytes) -> bytes:
    """Make what tells that a written answer is whole, and in its place.

    Args:
        key: Its question.
        created_ms: When it was computed, in milliseconds since the epoch.
        run_ns: How long its run took, in nanoseconds.
        payload: What ``encode`` wrote.
    """
    digest = hashlib.sha256(key)
    digest.update(_times.pack(created_ms, run_ns))
    digest.update(payload)
    return digest.digest()[:CHECKSUM_BYTES]


def decode_checked(
    key: bytes,
    created_ms: Any,  # noqa: ANN401 - a broken file can hold values of any type
    run_ns: Any,  # noqa: ANN401
    made: Any,  # noqa: ANN401
    payload: Any,  # noqa: ANN401
) -> dict[str, Tensor]:
    """Read outputs back if the checksum fits.

    Args:
        key: The question.
        created_ms: As for ``checksum``.
        run_ns: As for ``checksum``.
        made: What ``checksum`` had made.
        payload: What ``encode`` wrote.

    Raises:
        CorruptEntryError: It does not fit.
    """
    try:
        fits = made == checksum(key, created_ms, run_ns, payload)
    except (TypeError, struct.error):
        fits = False
    if not fits:
        raise CorruptEntryError("the checksum of a kept answer does not fit")
    return decode(payload)


def _read(name: str, datatype: Datatype, shape: Sequence[int], data: memoryview) -> Array:
    array = from_buffer(name, datatype, shape, data)
    array.flags.writeable = False
    return array
