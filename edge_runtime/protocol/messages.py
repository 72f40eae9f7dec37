"""What a prediction is, whichever door it came through."""

from dataclasses import dataclass, field
from typing import NamedTuple

from edge_runtime.access import NOBODY, Peer
from edge_runtime.datatypes import Datatype
from edge_runtime.tensors import Array, Tensor

Parameters = dict[str, str | int | float | bool]


class RequestedOutput(NamedTuple):
    """An output that the caller asked for.

    Attributes:
        name: The model's name of the output.
        binary: Whether it travels as raw bytes.
        classes: If above 0, the highest ``classes`` values as text (classification extension).
    """

    name: str
    binary: bool = False
    classes: int = 0


@dataclass(slots=True)
class InferRequest:
    """One request for a prediction.

    Attributes:
        model_name: Model asked for.
        model_version: Version asked for; empty lets the runtime choose.
        id: The caller's name for the request; given back, and never part of a cache key.
        inputs: Tensors by input name.
        outputs: What to give back; ``None`` means every output.
        binary_outputs: Whether outputs that do not say otherwise are raw bytes.
        raw_input: The whole body as the only input's elements (raw binary request), or ``None``.
        priority: 0 for the default, 1 for the highest, larger is lower (schedule_policy).
        timeout_us: If above 0, microseconds after which it must not be run any more.
        cancelled: Set when the client is gone: what has not started need not start.
        caller: Who asks, as the kernel says.
    """

    model_name: str = ""
    model_version: str = ""
    id: str = ""
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: tuple[RequestedOutput, ...] | None = None
    binary_outputs: bool = False
    raw_input: memoryview | bytes | None = None
    priority: int = 0
    timeout_us: int = 0
    cancelled: bool = False
    caller: Peer = NOBODY


class OutputTensor(NamedTuple):
    """An output on its way to the caller."""

    name: str
    datatype: Datatype
    array: Array
    binary: bool


@dataclass(slots=True)
class InferResponse:
    """One prediction.

    Attributes:
        model_name: Model that answered.
        model_version: Version that answered.
        id: The request's id, empty if it had none.
        outputs: In the order asked for, else in the model's.
        parameters: Response-level parameters (never per output: clients read those otherwise).
    """

    model_name: str
    model_version: str
    id: str
    outputs: list[OutputTensor]
    parameters: Parameters = field(default_factory=dict)
