"""A model version as the cache knows it: enough to name questions while it is not loaded."""

from dataclasses import dataclass
from typing import Final

import msgspec

from edge_runtime.datatypes import BY_NAME
from edge_runtime.tensors import Signature, TensorSpec

Identity = tuple[str, str, str, str]
"""Model, version, digest and engine."""


class _Spec(msgspec.Struct, array_like=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    symbols: tuple[str | None, ...]
    labels: tuple[str, ...]


class _Description(msgspec.Struct, array_like=True):
    inputs: list[_Spec]
    outputs: list[_Spec]
    ttl_max_s: float
    max_bytes: int


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Description)


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What answers belong to.

    Attributes:
        model: The model's name.
        version: As on the wire.
        digest: Of what ran.
        engine: What ran it, see ``key.engine``.
        signature: What it takes and gives.
        ttl_max_s: Most seconds that its bundle lets an answer be given again; 0: not stated.
        max_bytes: Most that its bundle lets its answers take; 0: not stated.
    """

    model: str
    version: str
    digest: str
    engine: str
    signature: Signature
    ttl_max_s: float = 0
    max_bytes: int = 0

    @property
    def identity(self) -> Identity:
        """What tells it from others."""
        return self.model, self.version, self.digest, self.engine

    def describe(self) -> bytes:
        """Write down what is not in the identity, for ``described``."""
        outputs = self.signature.outputs.values()
        return _encoder.encode(
            _Description(
                [_spec(spec) for spec in self.signature.inputs],
                [_spec(spec) for spec in outputs],
                self.ttl_max_s,
                self.max_bytes,
            )
        )


def described(model: str, version: str, digest: str, engine: str, description: bytes) -> Subject:
    """Read a subject back.

    Args:
        model: The model's name.
        version: As on the wire.
        digest: Of what ran.
        engine: What ran it.
        description: What ``describe`` wrote.

    Raises:
        ValueError: The description is not one.
    """
    try:
        found = _decoder.decode(description)
        signature = Signature(
            [_tensor(spec) for spec in found.inputs], [_tensor(spec) for spec in found.outputs]
        )
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise ValueError(f"no description of a model version: {error}") from error
    return Subject(model, version, digest, engine, signature, found.ttl_max_s, found.max_bytes)


def _spec(spec: TensorSpec) -> _Spec:
    return _Spec(spec.name, spec.datatype.name, spec.shape, spec.symbols, spec.labels)


def _tensor(spec: _Spec) -> TensorSpec:
    return TensorSpec(spec.name, BY_NAME[spec.datatype], spec.shape, spec.symbols, spec.labels)
