"""The whole request path, top to bottom: lease, check, run, answer.

Callback style: ``submit(request, reply)`` costs no Task and no Future; short runs of one turn of
the loop are executed together. ``execute`` is the seam where batching and the cache sit: anything
that takes a ``Run`` and calls its ``done``.
"""

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from time import perf_counter_ns
from typing import Final

from edge_runtime.catalog import Catalog
from edge_runtime.datatypes import BF16, BOOL, BYTES
from edge_runtime.errors import (
    DeadlineExceededError,
    EdgeRuntimeError,
    InvalidRequestError,
    InvalidTensorError,
    ModelFailedError,
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
from edge_runtime.routing import LoadedVersion
from edge_runtime.scheduling import Run
from edge_runtime.tensors import (
    VARIABLE,
    Array,
    Signature,
    Tensor,
    from_buffer,
)

_log = logging.getLogger(__name__)

_NOT_RANKED: Final = (BYTES, BF16, BOOL)

#: Gives back the error that was answered instead, where an answer could not be encoded.
Reply = Callable[[InferResponse | EdgeRuntimeError], EdgeRuntimeError | None]
Execute = Callable[[Run], None]


class Inference:
    """Answers requests for predictions.

    Args:
        catalog: The models.
        execute: What runs them: the scheduler, or something in front of it.
    """

    def __init__(self, catalog: Catalog, execute: Execute) -> None:
        self._catalog = catalog
        self._execute = execute

    def submit(self, request: InferRequest, reply: Reply) -> None:
        """Answer one request.

        Args:
            request: What is asked; setting ``cancelled`` on it later drops it if it still waits.
            reply: Called once with the answer or the error, perhaps before this returns.
        """
        received = perf_counter_ns()
        try:
            version = self._catalog.lease(request.model_name, request.model_version)
        except EdgeRuntimeError as error:
            reply(error)
            return
        signature = version.signature
        try:
            if request.raw_input is not None:
                request.inputs = _raw_input(signature, request.raw_input)
            feeds = signature.check(request.inputs)
            wanted = _wanted(signature, request)
        except RequestError as error:
            version.statistics.failed(_reason(error), perf_counter_ns() - received)
            self._catalog.release(version)
            reply(error)
            return
        except BaseException:
            self._catalog.release(version)
            raise

        def done(run: Run) -> None:
            try:
                try:
                    answer = run.error or _response(version, request, wanted, run.outputs)
                    error = reply(answer) or run.error
                except Exception:  # noqa: BLE001 - it is logged
                    # A run in the pool has no caller that could answer: without this, none would.
                    _log.exception("an answer failed in a way nobody foresaw")
                    error = ModelFailedError(
                        "the daemon failed to answer this request; its log says why"
                    )
                    reply(error)
                if error is None:
                    version.statistics.succeeded(
                        run.rows, received, run.queued, run.started, run.ended, perf_counter_ns()
                    )
                else:
                    version.statistics.failed(_reason(error), perf_counter_ns() - received)
            finally:
                self._catalog.release(version)

        self._execute(
            Run(
                session=version.session,
                cost=version.cost,
                names=[output.name for output in wanted],
                feeds=feeds,
                rows=signature.rows(feeds),
                size=sum([array.size for array in feeds.values()]),
                request=request,
                done=done,
                received=received,
                priority=request.priority,
                deadline_ns=received + request.timeout_us * 1000 if request.timeout_us else 0,
            )
        )


def _wanted(signature: Signature, request: InferRequest) -> Sequence[RequestedOutput]:
    if request.outputs is None:
        return _every_output(signature, binary=request.binary_outputs)
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
    return request.outputs


@lru_cache(maxsize=1024)
def _every_output(signature: Signature, *, binary: bool) -> tuple[RequestedOutput, ...]:
    """Ask for every output of a model; the same few tuples serve every request."""
    return tuple(RequestedOutput(name, binary) for name in signature.outputs)


def _response(
    version: LoadedVersion,
    request: InferRequest,
    wanted: Sequence[RequestedOutput],
    arrays: Sequence[Array],
) -> InferResponse:
    declared = version.signature.outputs
    outputs = []
    for (name, binary, classes), array in zip(wanted, arrays, strict=True):
        if classes:
            text = top_classes(array, classes, declared[name].labels)
            outputs.append(OutputTensor(name, BYTES, text, binary))
        else:
            outputs.append(OutputTensor(name, declared[name].datatype, array, binary))
    return InferResponse(version.name, version.version, request.id, outputs)


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


def _reason(error: EdgeRuntimeError) -> str:
    """Name a failure as the metrics do (Triton's words)."""
    if isinstance(error, OverloadedError | DeadlineExceededError):
        return "REJECTED"
    if isinstance(error, UnavailableError):
        return "CANCELED"
    return "OTHER" if isinstance(error, RequestError) else "BACKEND"
