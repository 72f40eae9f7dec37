"""What a prediction is, whichever door it came through."""

from typing import Final, NamedTuple

import msgspec

from edge_runtime.access import NOBODY, Peer
from edge_runtime.datatypes import Datatype
from edge_runtime.tensors import Array, Tensor

Parameters = dict[str, str | int | float | bool]

ROUTING_KEY_BYTES_MAX: Final = 256
"""Longest key of a request, in UTF-8: a split looks at it each time."""


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


class Spent(NamedTuple):
    """What a prediction took, for the log; only where somebody will read it.

    Attributes:
        version: The version that it was; empty: it came to none.
        received: When it was here, in monotonic nanoseconds.
        rows: Its rows; ``None``: it was never to run.
        queue_ns: Time that it waited for its run, in nanoseconds.
        compute_ns: Time of its run, which others may have shared.
    """

    version: str
    received: int
    rows: int | None = None
    queue_ns: int = 0
    compute_ns: int = 0


class InferRequest(msgspec.Struct):
    """One request for a prediction. A struct, because one is made for every request.

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
        routing_key: What a split of the model's traffic goes by; empty: its connection.
        is_version_ours: Whether ``model_version`` was chosen here, so that another version may
            answer in its place.
        cancelled: Set when the client is gone: what has not started need not start.
        caller: Who asks, as the kernel says.
        spent: What it took, once it is about to be answered with an error, or if that is wanted.
    """

    model_name: str = ""
    model_version: str = ""
    id: str = ""
    inputs: dict[str, Tensor] = {}
    outputs: tuple[RequestedOutput, ...] | None = None
    binary_outputs: bool = False
    raw_input: memoryview | bytes | None = None
    priority: int = 0
    timeout_us: int = 0
    routing_key: str = ""
    is_version_ours: bool = False
    cancelled: bool = False
    caller: Peer = NOBODY
    spent: Spent | None = None

    @property
    def split_key(self) -> str:
        """What a split of the model's traffic goes by; asked only where there is one."""
        return self.routing_key or str(self.caller.connection)


class OutputTensor(msgspec.Struct):
    """An output on its way to the caller."""

    name: str
    datatype: Datatype
    array: Array
    binary: bool


class InferResponse(msgspec.Struct):
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
    parameters: Parameters = {}
