"""What the daemon and the process that tries a candidate out say to each other, and how.

A message is a head of fixed size, a header (msgpack) and the raw bytes of tensors. Only the daemon
sends tensors. It believes nothing of what comes back but that it is of this form and small: a
model may have taken the other process over.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeVar

import msgspec

from edge_runtime.datatypes import ALL, BYTES
from edge_runtime.errors import InvalidTensorError, ProtocolError
from edge_runtime.hardware import CpuFacts
from edge_runtime.manifest import Manifest, TensorDescription
from edge_runtime.release.compare import Comparison
from edge_runtime.settings import Batching, Engine, Model
from edge_runtime.tensors import Array, Signature, element_count, from_buffer, to_buffer

_Message = TypeVar("_Message")

Side = Literal["active", "candidate"]
ACTIVE: Final[Side] = "active"
CANDIDATE: Final[Side] = "candidate"
"""First words of what the child says that it does, to tell whose fault a death was."""

HEAD: Final = struct.Struct("<IQ")
"""Lengths of the header and of the tensors, in bytes."""
ORDER_BYTES_MAX: Final = 8 * 2**20
"""Largest header to the child: it holds two manifests."""
ANSWER_BYTES_MAX: Final = 4 * 2**20
"""Largest header from the child: it may name many tensors."""
TENSORS_BYTES_MAX: Final = 2**30
"""Most bytes of tensors in one message."""


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a message."""


class Device(_Part, frozen=True, kw_only=True):
    """What the daemon loads every model with.

    Attributes:
        engine: How models run.
        batching: Which requests may share runs.
        providers: Execution providers that are installed, in order.
        cpu: This one.
        cpus: CPUs the daemon may use.
    """

    engine: Engine
    batching: Batching
    providers: tuple[str, ...]
    cpu: CpuFacts
    cpus: int


class Subject(_Part, frozen=True, kw_only=True):
    """One version to be tried out.

    Attributes:
        manifest: What it is.
        directory: Absolute path of the bundle's folder.
        variant: Name of the variant; empty: to be chosen.
        digest: Of what must be loaded; empty: whatever the files are.
        settings: What the configuration says of the model.
    """

    manifest: Manifest
    directory: str
    variant: str = ""
    digest: str = ""
    settings: Model = Model()

    @property
    def shown(self) -> str:
        """How messages call it."""
        return f"{self.manifest.name} version {self.manifest.version}"


class Try(_Part, frozen=True, kw_only=True, tag=True):
    """Order: test one variant.

    Attributes:
        subject: With its variant.
        device: As the daemon would load it.
        runs: Runs after which it counts as stable.
        runs_cpu_s: CPU seconds after which fewer are enough.
    """

    subject: Subject
    device: Device
    runs: int
    runs_cpu_s: float


class Pair(_Part, frozen=True, kw_only=True, tag=True):
    """Order: load two versions, to compare them."""

    active: Subject
    candidate: Subject
    device: Device


class TensorHead(_Part, frozen=True, kw_only=True):
    """One tensor: its bytes follow those of the ones before it."""

    name: str
    shape: tuple[int, ...]
    size_bytes: int


class Ask(_Part, frozen=True, kw_only=True, tag=True):
    """Order: run both versions on the tensors that follow."""

    tensors: tuple[TensorHead, ...]
    candidate_first: bool


class Tried(_Part, frozen=True, kw_only=True, tag=True):
    """Answer: what a test of one variant found.

    Attributes:
        digest: Of what was loaded; empty: it could not be loaded.
        problems: Why it must not be served, a sentence each; empty: it passes.
        notes: What else somebody should know.
        is_loaded: Whether it could be loaded at all.
        latency_s: Median time of one run in seconds, undisturbed by others as far as can be
            known; 0: not measured.
        wall_s: Median time of one run as it passed here, others included.
        memory_bytes: Most resident memory that loading and running added; 0: not measured.
        goldens: How many golden files were compared.
        runs: How often it ran.
        cpu_s: CPU time of everything.
        inputs: What it takes.
        outputs: What it gives.
    """

    digest: str = ""
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    is_loaded: bool = True
    latency_s: float = 0.0
    wall_s: float = 0.0
    memory_bytes: int = 0
    goldens: int = 0
    runs: int = 0
    cpu_s: float = 0.0
    inputs: tuple[TensorDescription, ...] = ()
    outputs: tuple[TensorDescription, ...] = ()


class Ready(_Part, frozen=True, kw_only=True, tag=True):
    """Answer: both versions are loaded, or not.

    Attributes:
        side: Which one could not be loaded; empty: both are there.
        why: Why it could not.
        active_digest: Of what was loaded.
        candidate_digest: Of what was loaded.
    """

    side: Side | Literal[""] = ""
    why: str = ""
    active_digest: str = ""
    candidate_digest: str = ""


class Compared(_Part, frozen=True, kw_only=True, tag=True):
    """Answer: what both versions did with the same inputs.

    Attributes:
        skipped: Why there is nothing to learn from it, in words that may be logged; empty: there
            is.
        active_error: Why the active version failed; empty: it answered.
        candidate_error: Why the candidate failed; empty: it answered.
        crashed: Which of them ended its process, or had to be ended.
        comparison: Their outputs beside each other; ``None``: one of them has none.
        active_s: Time of the active version's run in seconds; 0: not measured.
        candidate_s: Time of the candidate's run in seconds; 0: not measured.
        cpu_s: CPU time that the comparison took.
    """

    skipped: str = ""
    active_error: str = ""
    candidate_error: str = ""
    crashed: Side | Literal[""] = ""
    comparison: Comparison | None = None
    active_s: float = 0.0
    candidate_s: float = 0.0
    cpu_s: float = 0.0


Order = Try | Pair | Ask
Answer = Tried | Ready | Compared

_orders: Final[msgspec.msgpack.Decoder[Order]] = msgspec.msgpack.Decoder(Order)
_answers: Final[msgspec.msgpack.Decoder[Answer]] = msgspec.msgpack.Decoder(Answer)


def frame(message: Order | Answer, tensors_bytes: int = 0) -> bytes:
    """Give a message's head and header, to be followed by its tensors."""
    header = msgspec.msgpack.encode(message)
    return HEAD.pack(len(header), tensors_bytes) + header


def lengths(head: bytes | bytearray, header_max: int, tensors_max: int) -> tuple[int, int]:
    """Read a head.

    Args:
        head: ``HEAD.size`` bytes.
        header_max: Most bytes of a header.
        tensors_max: Most bytes of tensors.

    Returns:
        Bytes of the header and of the tensors.

    Raises:
        ProtocolError: More than is allowed.
    """
    header_bytes, tensors_bytes = HEAD.unpack(head)
    if header_bytes > header_max or tensors_bytes > tensors_max:
        raise ProtocolError(
            f"a message of {header_bytes} and {tensors_bytes} bytes, at most {header_max} and "
            f"{tensors_max} are allowed"
        )
    return header_bytes, tensors_bytes


def read_order(header: bytes | bytearray) -> Order:
    """Read the header of an order.

    Raises:
        ProtocolError: It is none.
    """
    return _read(_orders, header)


def read_answer(header: bytes) -> Answer:
    """Read the header of an answer.

    Raises:
        ProtocolError: It is none.
    """
    return _read(_answers, header)


def split(feeds: Mapping[str, Array]) -> tuple[tuple[TensorHead, ...], list[bytes | memoryview]]:
    """Take feeds apart.

    Args:
        feeds: Arrays by input name, as a signature's ``check`` gives them.

    Returns:
        What to say of each, and its bytes; large arrays are not copied.

    Raises:
        InvalidTensorError: They are more than ``TENSORS_BYTES_MAX`` together.
    """
    heads, parts = [], []
    for name, array in feeds.items():
        # For everything but text the bytes are the bytes, whatever they are called.
        part = to_buffer(BYTES if array.dtype == object else ALL[0], array)
        parts.append(part)
        heads.append(TensorHead(name=name, shape=array.shape, size_bytes=len(part)))
    total = sum(head.size_bytes for head in heads)
    if total > TENSORS_BYTES_MAX:
        raise InvalidTensorError(f"inputs of {total} bytes are not tried out; too large")
    return tuple(heads), parts


def join(heads: Sequence[TensorHead], data: memoryview, signature: Signature) -> dict[str, Array]:
    """Put feeds together again.

    Args:
        heads: What there is.
        data: The bytes of all of them.
        signature: Says which datatypes they have.

    Returns:
        Arrays by input name; views of ``data`` where it is aligned.

    Raises:
        InvalidTensorError: They are not what the model takes.
    """
    specs = {spec.name: spec for spec in signature.inputs}
    if specs.keys() != {head.name for head in heads}:
        raise InvalidTensorError(
            f"the inputs are {sorted(head.name for head in heads)}, the model takes {sorted(specs)}"
        )
    feeds, place = {}, 0
    for head in heads:
        part = data[place : place + head.size_bytes]
        place += head.size_bytes
        element_count(head.shape, head.name)
        feeds[head.name] = from_buffer(head.name, specs[head.name].datatype, head.shape, part)
    return feeds


def _read(decoder: "msgspec.msgpack.Decoder[_Message]", header: bytes | bytearray) -> _Message:
    try:
        return decoder.decode(header)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a message of a trial: {error}") from error
