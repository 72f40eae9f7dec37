"""One prediction as bytes: a JSON head that describes the tensors, and their bytes; pure.

::

    4 bytes   size of the head, big endian
    head      {"tensors": [{"role", "name", "datatype", "shape", "size"}, ...]}
    tensors   one after another, as the Open Inference Protocol's binary extension has them

Encrypted: 12 bytes nonce, then the same under AES-256-GCM, with the row's facts as associated data.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np

from edge_runtime.datatypes import BY_NAME, BY_NUMPY
from edge_runtime.errors import ArtifactError, RequestError
from edge_runtime.tensors import Array, from_buffer, to_buffer

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_SIZE_BYTES: Final = 4

Role = Literal["input", "output"]


class _Described(msgspec.Struct, frozen=True):
    role: Role
    name: str
    datatype: str
    shape: tuple[int, ...]
    size: int


class _Head(msgspec.Struct, frozen=True):
    tensors: tuple[_Described, ...]


class Facts(NamedTuple):
    """What a row says in the open.

    Attributes:
        model: The model's name.
        version: The version that answered.
        digest: Of what really ran.
        at_ms: When, in milliseconds since the epoch by the device's clock.
        reason: Why it is kept: ``share``, ``inputs`` or ``low-confidence``.
    """

    model: str
    version: str
    digest: str
    at_ms: int
    reason: str


Tensors = Mapping[str, Array]
"""Arrays by name."""


def encode(inputs: Tensors, outputs: Tensors) -> bytes:
    """Put tensors together; those of a datatype that has no name in the protocol are left out."""
    described, parts = [], []
    for role, name, array in _each(inputs, outputs):
        datatype = BY_NUMPY.get(array.dtype.str)
        if datatype is None:
            continue
        data = bytes(to_buffer(datatype, np.ascontiguousarray(array)))
        described.append(_Described(role, name, datatype.name, array.shape, len(data)))
        parts.append(data)
    head = msgspec.json.encode(_Head(tuple(described)))
    return b"".join([len(head).to_bytes(_SIZE_BYTES, "big"), head, *parts])


def decode(data: bytes) -> tuple[dict[str, Array], dict[str, Array]]:
    """Take tensors apart: the inputs and the outputs.

    Raises:
        ArtifactError: These bytes are no record.
    """
    try:
        at = _SIZE_BYTES + int.from_bytes(data[:_SIZE_BYTES], "big")
        head = msgspec.json.decode(data[_SIZE_BYTES:at], type=_Head)
        found: dict[Role, dict[str, Array]] = {"input": {}, "output": {}}
        for each in head.tensors:
            part = memoryview(data)[at : at + each.size]
            at += each.size
            found[each.role][each.name] = from_buffer(
                each.name, BY_NAME[each.datatype], each.shape, part
            )
    except (RequestError, msgspec.MsgspecError, KeyError, ValueError) as error:
        raise ArtifactError(f"a record of the journal cannot be read: {error}") from error
    return found["input"], found["output"]


def encrypt(data: bytes, key: bytes, facts: Facts) -> bytes:
    """Encrypt a record.

    Args:
        data: The record.
        key: 32 bytes.
        facts: Of its row, which a change would make unreadable.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - megabytes

    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, data, _bound(facts))


def decrypt(data: bytes, key: bytes, facts: Facts) -> bytes:
    """Decrypt a record.

    Raises:
        ArtifactError: Another key encrypted it, or it was changed.
    """
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - megabytes
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - megabytes

    try:
        return AESGCM(key).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], _bound(facts))
    except (InvalidTag, ValueError) as error:
        raise ArtifactError(
            "a record of the journal was encrypted with another key, or was changed"
        ) from error


def _bound(facts: Facts) -> bytes:
    return msgspec.json.encode(tuple(facts))


def _each(inputs: Tensors, outputs: Tensors) -> Iterator[tuple[Role, str, Array]]:
    roles: Iterable[tuple[Role, Tensors]] = (("input", inputs), ("output", outputs))
    for role, tensors in roles:
        for name, array in tensors.items():
            yield role, name, array
