"""A prediction on both sides of its run: what a request wants, and its answer's outputs.

Pure: no catalog, no scheduler, no clock.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from edge_runtime.datatypes import BF16, BOOL, BYTES
from edge_runtime.errors import (
    DeadlineExceededError,
    EdgeRuntimeError,
    InvalidRequestError,
    InvalidTensorError,
    ModelNotReadyError,
    OverloadedError,
    RequestError,
    UnavailableError,
)
from edge_runtime.protocol.classification import top_classes
from edge_runtime.protocol.messages import (
    InferRequest,
    InferResponse,
    OutputTensor,
    RequestedOutput,
)
from edge_runtime.tensors import VARIABLE, Array, Signature, Tensor, from_buffer

#: Gives back the error that was answered instead, where an answer could not be encoded.
Reply = Callable[[InferResponse | EdgeRuntimeError], EdgeRuntimeError | None]

_NOT_RANKED: Final = (BYTES, BF16, BOOL)


def feeds_of(signature: Signature, request: InferRequest) -> dict[str, Array]:
    """Give the arrays to run on.

    Args:
        signature: What the model takes.
        request: What is asked; the input of a raw binary request is made here.

    Raises:
        InvalidTensorError: The tensors are not what the model takes.
    """
    if request.raw_input is not None:
        request.inputs = _raw_input(signature, request.raw_input)
    return signature.check(request.inputs)


def wanted_of(
    signature: Signature, request: InferRequest
) -> tuple[Sequence[RequestedOutput], Sequence[str]]:
    """Say which outputs to give and in what form, and the names to run for.

    Raises:
        InvalidRequestError: The model has no such output, or it cannot be ranked.
    """
    if request.outputs is None:
        return _every_output(signature, request.binary_outputs)
    for output in request.outputs:
        if output.name not in signature.outputs:
            raise InvalidRequestError(
                f"there is no output {output.name!r}; the model gives {list(signature.outputs)}"
            )
        if output.classes and signature.outputs[output.name].datatype in _NOT_RANKED:
            raise InvalidRequestError(
                f"output {output.name!r} is {signature.outputs[output.name].datatype.name}: "
                "classification needs numbers that can be ranked"
            )
    return request.outputs, tuple([output.name for output in request.outputs])


@lru_cache(maxsize=1024)
def _every_output(
    signature: Signature,
    binary: bool,  # noqa: FBT001 - a cache key
) -> tuple[tuple[RequestedOutput, ...], tuple[str, ...]]:
    """Ask for every output of a model; the same few tuples serve every request."""
    return tuple(RequestedOutput(name, binary) for name in signature.outputs), tuple(
        signature.outputs
    )


def outputs_of(
    signature: Signature, wanted: Sequence[RequestedOutput], arrays: Sequence[Array]
) -> list[OutputTensor]:
    """Bring the outputs into the form asked for.

    Args:
        signature: Of the version that answers.
        wanted: Outputs and their forms.
        arrays: The outputs, in that order.
    """
    declared = signature.outputs
    outputs = []
    for (name, binary, classes), array in zip(wanted, arrays, strict=True):
        if classes:
            text = top_classes(array, classes, declared[name].labels)
            outputs.append(OutputTensor(name, BYTES, text, binary))
        else:
            outputs.append(OutputTensor(name, declared[name].datatype, array, binary))
    return outputs


def _raw_input(signature: Signature, data: memoryview | bytes) -> dict[str, Tensor]:
    """Make the only input of a raw binary request; its one varying axis follows from the size.

    Source:
        Triton, binary tensor data extension, "raw binary request".
    """
    if len(signature.inputs) != 1:
        raise InvalidTensorError(
            f"a raw binary request needs a model with one input, this one has "
            f"{len(signature.inputs)}"
        )
    spec = signature.inputs[0]
    shape = list(spec.shape)
    if spec.datatype is BYTES:
        if any(size not in {1, VARIABLE} for size in shape):
            raise InvalidTensorError(
                f"a raw binary request is one BYTES element, {spec.name!r} has shape {shape}"
            )
        element = len(data).to_bytes(4, "little") + bytes(data)
        shape = [1] * len(shape)
        return {spec.name: Tensor(BYTES, from_buffer(spec.name, BYTES, shape, element))}
    varying = [axis for axis, size in enumerate(shape) if size == VARIABLE]
    if len(varying) > 1:
        raise InvalidTensorError(
            f"a raw binary request needs at most one varying axis, {spec.name!r} has shape {shape}"
        )
    if varying:
        row_bytes = spec.datatype.size_bytes
        for size in shape:
            row_bytes *= abs(size)
        shape[varying[0]] = len(data) // row_bytes if row_bytes else 0
    return {spec.name: Tensor(spec.datatype, from_buffer(spec.name, spec.datatype, shape, data))}


def reason_of(error: EdgeRuntimeError) -> str:
    """Name a failure as the metrics do (Triton's words)."""
    if isinstance(error, OverloadedError | DeadlineExceededError | ModelNotReadyError):
        return "REJECTED"
    if isinstance(error, UnavailableError):
        return "CANCELED"
    return "OTHER" if isinstance(error, RequestError) else "BACKEND"
