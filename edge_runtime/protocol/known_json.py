"""The JSON before binary tensors, when it is the same as in a request before.

A program that asks one model again and again sends the same JSON to the byte: only the tensors
behind it change. Equal bytes mean the same tensors at the same places, so that what was checked
once need not be decoded and checked again (a tenth of a small prediction's time).
"""

from typing import Final, NamedTuple

import numpy as np

from edge_runtime.datatypes import BOOL, BYTES, Datatype
from edge_runtime.protocol.messages import InferRequest, RequestedOutput
from edge_runtime.protocol.schemas import InferInput
from edge_runtime.tensors import Array, Tensor

BYTES_MAX: Final = 1024
"""Longer JSON is not remembered."""

_ENTRIES_MAX: Final = 128  # beyond, everything is forgotten: bounded without keeping an order


class _Place(NamedTuple):
    """Where an input's elements lie in the binary part."""

    name: str
    datatype: Datatype
    numpy: np.dtype[np.generic]
    shape: tuple[int, ...]
    start: int


class KnownJson:
    """What an accepted request said, apart from its tensors' elements.

    Args:
        request: The request, decoded and checked.
        inputs: Its inputs as the JSON describes them, in that order; all of them binary.
        binary_bytes: Length of the binary part.
    """

    __slots__ = (
        "_binary",
        "_outputs",
        "_places",
        "_priority",
        "_routing_key",
        "_timeout_us",
        "binary_bytes",
    )

    def __init__(self, request: InferRequest, inputs: list[InferInput], binary_bytes: int) -> None:
        self.binary_bytes = binary_bytes
        self._outputs: tuple[RequestedOutput, ...] | None = request.outputs
        self._binary = request.binary_outputs
        self._priority = request.priority
        self._timeout_us = request.timeout_us
        self._routing_key = request.routing_key
        self._places: list[_Place] = []
        start = 0
        for entry in inputs:
            datatype, array = request.inputs[entry.name]
            self._places.append(_Place(entry.name, datatype, array.dtype, array.shape, start))
            start += array.nbytes

    def request(self, binary: memoryview) -> InferRequest:
        """Make the same request of other elements.

        Args:
            binary: The binary part, of the length it had.
        """
        inputs: dict[str, Tensor] = {}
        for name, datatype, numpy, shape, start in self._places:
            array: Array = np.ndarray(shape, numpy, binary, start)
            # As in ``tensors.from_buffer``: vector loads may fault on misaligned memory.
            inputs[name] = Tensor(datatype, array if array.flags.aligned else array.copy())
        return InferRequest(
            inputs=inputs,
            outputs=self._outputs,
            binary_outputs=self._binary,
            priority=self._priority,
            timeout_us=self._timeout_us,
            routing_key=self._routing_key,
        )


class KnownJsons:
    """The ones that were seen lately."""

    def __init__(self) -> None:
        self._known: dict[bytes, KnownJson] = {}

    def find(self, text: bytes, binary_bytes: int) -> KnownJson | None:
        """Give what is known of a JSON part.

        Args:
            text: Its bytes.
            binary_bytes: Length of the binary part behind it; another one has to be looked at.
        """
        known = self._known.get(text)
        return known if known is not None and known.binary_bytes == binary_bytes else None

    def keep(
        self, text: bytes, request: InferRequest, inputs: list[InferInput], binary_bytes: int
    ) -> None:
        """Remember a JSON part whose request was accepted, if another one can be made of it.

        Args:
            text: Its bytes.
            request: What it was decoded to.
            inputs: Its inputs, as decoded from it.
            binary_bytes: Length of the binary part.
        """
        if request.id:  # it is not likely to come again
            return
        for entry in inputs:
            datatype = request.inputs[entry.name].datatype
            is_binary = bool(entry.parameters and "binary_data_size" in entry.parameters)
            # The elements themselves say how long a text is, and whether a byte is a truth value.
            if not is_binary or datatype in {BYTES, BOOL}:
                return
        if len(self._known) >= _ENTRIES_MAX:
            self._known.clear()
        self._known[text] = KnownJson(request, inputs, binary_bytes)
