"""Tensors in memory, and the signature they must fit. numpy, and nothing that runs a model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_runtime.datatypes import BOOL, BYTES, Datatype
from edge_runtime.errors import InvalidTensorError

Array = NDArray[Any]

VARIABLE: Final = -1
ALIGNMENT_BYTES: Final = 64  # a cache line; covers every vector width ONNX Runtime loads with
ELEMENTS_MAX: Final = 2**40  # above any body that fits a limit; keeps products far from overflow
RANK_MAX: Final = 64  # numpy's own limit; also bounds the work of multiplying a shape out


class Tensor(NamedTuple):
    """A tensor of a request: what it says it is, and the data.

    Attributes:
        datatype: As the request names it.
        array: C-contiguous, little-endian, in ``datatype.numpy``; ``BYTES`` is an object array
            of ``str`` and ``BF16`` is ``<u2`` holding the raw bits.
    """

    datatype: Datatype
    array: Array


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output as the model declares it.

    Attributes:
        name: The model's name for it.
        datatype: Element type.
        shape: One element count per axis; -1 where it varies.
        symbols: The model's name of each varying axis, or ``None``; two axes of one name must
            have one size within a request.
        labels: Names of the classes along the last axis, for the classification extension.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    symbols: tuple[str | None, ...] = ()
    labels: tuple[str, ...] = ()


class Signature:
    """What a model takes and gives.

    Args:
        inputs: In the model's order.
        outputs: In the model's order.
    """

    __slots__ = ("_repeated_symbols", "batchable", "input_names", "inputs", "outputs")

    def __init__(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        self.inputs = tuple(inputs)
        self.outputs = {spec.name: spec for spec in outputs}
        self.input_names = frozenset(spec.name for spec in inputs)
        symbols = [symbol for spec in inputs for symbol in spec.symbols if symbol]
        self._repeated_symbols = len(symbols) != len(set(symbols))
        every = (*self.inputs, *outputs)
        #: Whether every input and output has a varying first axis, so that rows could be merged.
        self.batchable = all(spec.shape[:1] == (VARIABLE,) for spec in every)

    def check(self, tensors: Mapping[str, Tensor]) -> dict[str, Array]:
        """Check that a request's tensors are exactly what the model takes.

        Args:
            tensors: By input name.

        Returns:
            The arrays by input name, ready to feed.

        Raises:
            InvalidTensorError: A tensor is missing or unknown, or has another datatype, rank or
                size than the model declares.
        """
        if tensors.keys() != self.input_names:
            raise _wrong_names(tensors, self.input_names)
        feeds = {}
        for spec in self.inputs:
            datatype, array = tensors[spec.name]
            if datatype is not spec.datatype:
                raise InvalidTensorError(
                    f"input {spec.name!r} is {datatype.name}; the model takes {spec.datatype.name}"
                )
            if not fits(array.shape, spec.shape):
                raise InvalidTensorError(
                    f"input {spec.name!r} has shape {list(array.shape)}; "
                    f"the model takes {list(spec.shape)} (-1: any size)"
                )
            feeds[spec.name] = array
        if self._repeated_symbols:
            self._check_symbols(feeds)
        return feeds

    def rows(self, feeds: Mapping[str, Array]) -> int:
        """Count the rows of a request: its first axis where that varies, else 1."""
        spec = self.inputs[0] if self.inputs else None
        if spec is None or spec.shape[:1] != (VARIABLE,):
            return 1
        return int(feeds[spec.name].shape[0])

    def _check_symbols(self, feeds: Mapping[str, Array]) -> None:
        sizes: dict[str, tuple[int, str]] = {}
        for spec in self.inputs:
            for size, symbol in zip(feeds[spec.name].shape, spec.symbols, strict=False):
                if symbol is None:
                    continue
                known, where = sizes.setdefault(symbol, (size, spec.name))
                if known != size:
                    raise InvalidTensorError(
                        f"inputs {where!r} and {spec.name!r} must agree on axis {symbol!r}: "
                        f"they have {known} and {size}"
                    )


def fits(shape: tuple[int, ...], declared: tuple[int, ...]) -> bool:
    """Tell whether a shape meets a declared one (-1: any size)."""
    if len(shape) != len(declared):
        return False
    if shape[1:] == declared[1:]:  # most models vary in the first axis only
        return not shape or declared[0] in (shape[0], VARIABLE)
    for size, wanted in zip(shape, declared, strict=True):  # noqa: SIM110 - half a generator's time
        if wanted not in (size, VARIABLE):
            return False
    return True


def element_count(shape: Sequence[int], name: str) -> int:
    """Multiply out a claimed shape, or refuse it.

    Args:
        shape: Element counts per axis, as the request claims them.
        name: The tensor's name, for the message.

    Returns:
        The product; 1 for a scalar's empty shape.

    Raises:
        InvalidTensorError: An axis is negative, there are too many, or the product is beyond any
            body's size.
    """
    if not shape:
        return 1
    if len(shape) > RANK_MAX:
        raise InvalidTensorError(
            f"tensor {name!r}: its shape has {len(shape)} axes; at most {RANK_MAX} are possible"
        )
    if min(shape) < 0:
        raise InvalidTensorError(
            f"tensor {name!r}: shape {list(shape)} has a negative axis; give the real size"
        )
    count = math.prod(shape)
    # numpy counts the other axes of an empty tensor too.
    if count > ELEMENTS_MAX or (not count and math.prod(filter(None, shape)) > ELEMENTS_MAX):
        raise InvalidTensorError(f"tensor {name!r}: shape {list(shape)} is larger than any request")
    return count


def from_buffer(
    name: str, datatype: Datatype, shape: Sequence[int], data: memoryview | bytes
) -> Array:
    """View raw bytes as a tensor, without a copy where the memory allows it.

    Args:
        name: The tensor's name, for messages.
        datatype: Element type.
        shape: Element counts per axis.
        data: Row-major little-endian elements without padding; for ``BYTES`` each element is a
            4-byte length and UTF-8 text (ONNX strings are UTF-8).

    Returns:
        An array of that shape. Misaligned memory is copied, since vector loads may fault on it.

    Raises:
        InvalidTensorError: ``data`` is not exactly as long as the shape needs, or is not UTF-8.

    Source:
        Open Inference Protocol, binary tensor data extension.
    """
    count = element_count(shape, name)
    if datatype is BYTES:
        elements = _split_bytes(name, data, count)  # first: only now is the count to be believed
        array: Array = np.empty(count, object)
        array[:] = elements
        return array.reshape(shape)
    if count * datatype.size_bytes != len(data):
        raise InvalidTensorError(
            f"tensor {name!r}: shape {list(shape)} of {datatype.name} needs "
            f"{count * datatype.size_bytes} bytes, the request has {len(data)}"
        )
    array = np.ndarray(shape, datatype.numpy, data)
    if datatype is BOOL and array.view(np.uint8).max(initial=0) > 1:
        raise InvalidTensorError(f"tensor {name!r}: a BOOL element is one byte, 0 or 1")
    if not array.flags.aligned:
        return array.copy()
    return array


def to_buffer(datatype: Datatype, array: Array) -> bytes | memoryview:
    """Give a tensor's raw bytes: the opposite of ``from_buffer``; large arrays are not copied."""
    if datatype is BYTES:
        parts: list[bytes] = []
        for element in array.reshape(-1).tolist():
            text = element.encode() if isinstance(element, str) else bytes(element)
            parts.append(len(text).to_bytes(4, "little"))
            parts.append(text)
        return b"".join(parts)
    if array.nbytes < _COPY_BELOW_BYTES:
        return array.tobytes()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


_COPY_BELOW_BYTES: Final = 16_384  # below this one joined write is cheaper than a second buffer


def receive_buffer(size_bytes: int, aligned_from: int) -> memoryview:
    """Allocate memory for a body so that the byte at ``aligned_from`` is aligned.

    The memory is not cleared and the system commits it page by page as it is written, so a peer
    that announces a large body and sends none costs no memory.

    Args:
        size_bytes: Length of the body.
        aligned_from: Offset where the first binary tensor will begin (the JSON header's length).
    """
    room = np.empty(size_bytes + ALIGNMENT_BYTES, np.uint8)
    address: int = room.ctypes.data
    start = -(address + aligned_from) % ALIGNMENT_BYTES
    return room.data[start : start + size_bytes]


def _split_bytes(name: str, data: memoryview | bytes, count: int) -> list[str]:
    elements: list[str] = []
    position, end = 0, len(data)
    for _ in range(count):
        start = position + 4
        if start > end:
            break
        position = start + int.from_bytes(data[start - 4 : start], "little")
        if position > end:
            break
        try:
            elements.append(str(data[start:position], "utf-8"))
        except UnicodeDecodeError as error:
            raise InvalidTensorError(
                f"tensor {name!r}: element {len(elements)} is not UTF-8; ONNX strings are text"
            ) from error
    if len(elements) != count or position != end:
        raise InvalidTensorError(
            f"tensor {name!r}: its {end} bytes do not hold exactly {count} length-prefixed elements"
        )
    return elements


def _wrong_names(tensors: Mapping[str, Tensor], wanted: frozenset[str]) -> InvalidTensorError:
    missing = sorted(wanted - tensors.keys())
    unknown = sorted(tensors.keys() - wanted)
    parts = []
    if missing:
        parts.append(f"missing {', '.join(map(repr, missing))}")
    if unknown:
        parts.append(f"unknown {', '.join(map(repr, unknown))}")
    return InvalidTensorError(
        f"the inputs do not match: {'; '.join(parts)}; the model takes {sorted(wanted)}"
    )
