"""Bytes to requests and answers to bytes, for HTTP: JSON, the binary extension, raw binary.

Rules: no I/O, no status codes, nothing but our errors leaves, and sizes are known before any
element is read. Each function does one pass over the body; binary tensors are views of it.
"""

from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from edge_runtime.datatypes import BY_NAME, Datatype
from edge_runtime.errors import (
    InvalidRequestError,
    InvalidTensorError,
    RequestTooLargeError,
    UnsupportedError,
)
from edge_runtime.protocol.binary_answers import encode_binary
from edge_runtime.protocol.json_data import decode_data, from_elements, reason
from edge_runtime.protocol.known_json import BYTES_MAX, KnownJsons
from edge_runtime.protocol.messages import InferRequest, InferResponse, RequestedOutput
from edge_runtime.protocol.routing_keys import key_of
from edge_runtime.protocol.schemas import (
    InferInput,
    InferOutput,
    InferRequestBody,
    InferRequestedOutput,
    InferResponseBody,
    ParameterValue,
)
from edge_runtime.tensors import Array, Tensor, from_buffer, to_buffer

JSON_LENGTH_HEADER: Final = "Inference-Header-Content-Length"
JSON_TYPE: Final = "application/json"
BINARY_TYPE: Final = "application/octet-stream"
JSON_DEPTH_DEFAULT: Final = 16
JSON_BYTES_DEFAULT: Final = 16_777_216

Body = bytes | bytearray | memoryview
_Parameters = dict[str, ParameterValue]

_NONE: Final[_Parameters] = {}
_NOTHING: Final = memoryview(b"")
_COUNT_MAX: Final = 2**64 - 1  # JSON knows no limit, clocks and heaps do: fair_queue counts on it
_request_decoder = msgspec.json.Decoder(InferRequestBody)
_known: Final = KnownJsons()
_encode: Final = msgspec.json.Encoder().encode
# Stateful or transport features whose silent loss would give a wrong answer.
_ASK_FOR_BINARY: Final = 'ask for binary ("parameters": {"binary_data": true})'
_REFUSED: Final = frozenset({"sequence_id", "sequence_start", "sequence_end"})


class Encoded(NamedTuple):
    """A body ready to send.

    Attributes:
        parts: Buffers to write one after the other.
        json_length: Bytes of the JSON part where binary tensors follow it, else ``None``.
    """

    parts: list[bytes | memoryview]
    json_length: int | None


def decode_request(
    body: Body,
    json_length: int | None = None,
    *,
    json_depth: int = JSON_DEPTH_DEFAULT,
    json_bytes: int = JSON_BYTES_DEFAULT,
) -> InferRequest:
    """Decode the body of an ``infer`` request.

    Args:
        body: The whole body.
        json_length: Value of ``Inference-Header-Content-Length``: bytes of JSON before the binary
            tensors; 0 makes the body the raw elements of the model's only input; ``None`` where
            the header is absent and all is JSON.
        json_depth: Deepest nesting of a tensor's ``data``.
        json_bytes: Largest JSON part, in bytes: decoding it holds up everybody else, about 50 ms
            a megabyte.

    Returns:
        The request, without a model name (that is in the URL).

    Raises:
        InvalidRequestError: The JSON is malformed or a field is missing or of the wrong type.
        InvalidTensorError: A tensor contradicts its own shape or datatype.
        UnsupportedError: Sequences or shared memory were asked for.
        RequestTooLargeError: The JSON part is over its limit.

    Source:
        Open Inference Protocol, inference request; Triton, binary tensor data extension.
    """
    if json_length == 0:
        return InferRequest(raw_input=memoryview(body), binary_outputs=True)
    head, binary = _split(body, json_length)
    if len(head) > json_bytes:
        raise RequestTooLargeError(
            f"the request has {len(head)} bytes of JSON; at most {json_bytes} are accepted "
            "(limits.json_bytes): send large tensors as binary"
        )
    if binary and len(head) <= BYTES_MAX:
        head = bytes(head)
        known = _known.find(head, len(binary))
        if known is not None:
            return known.request(binary)
    try:
        message = _request_decoder.decode(head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error, "request") from error
    request = InferRequest(id=message.id or "")
    request.inputs = _decode_inputs(message.inputs, binary, json_depth)
    if message.parameters:
        _apply_parameters(request, message.parameters)
    if message.outputs:
        request.outputs = _decode_outputs(message.outputs, default=request.binary_outputs)
    if binary and isinstance(head, bytes):
        _known.keep(head, request, message.inputs, len(binary))
    return request


def encode_response(response: InferResponse) -> Encoded:
    """Encode the answer to an ``infer`` request.

    Args:
        response: The answer; each output says whether it is binary.

    Raises:
        InvalidRequestError: A JSON output holds NaN or infinity, or is of a datatype without a
            JSON form; the message says to ask for binary.
    """
    known = encode_binary(response)
    if known is not None:
        return Encoded(*known)
    outputs = []
    parts: list[bytes | memoryview] = []
    for tensor in response.outputs:
        name, datatype, array = tensor.name, tensor.datatype, tensor.array
        output = InferOutput(name, datatype.name, array.shape)
        if tensor.binary:
            data = to_buffer(datatype, array)
            parts.append(data)
            output.parameters = {"binary_data_size": len(data)}
        elif datatype.json == "none":
            raise InvalidRequestError(
                f"output {name!r} is {datatype.name}, which JSON cannot carry: {_ASK_FOR_BINARY}"
            )
        else:
            output.data = (array if array.ndim == 1 else array.ravel()).tolist()
        outputs.append(output)
    text = _encode(
        InferResponseBody(
            response.model_name,
            response.model_version,
            outputs,
            response.id,
            response.parameters or msgspec.UNSET,
        )
    )
    # JSON has no NaN and no infinity; msgspec writes null for both.
    if b"null" in text:
        for tensor in response.outputs:
            if not tensor.binary:
                what = f"output {tensor.name!r}"
                _refuse_non_finite(what, tensor.datatype, tensor.array, _ASK_FOR_BINARY)
    if not parts:
        return Encoded([text], None)
    parts.insert(0, text)
    return Encoded(parts, len(text))


def encode_request(request: InferRequest, *, binary: bool = True) -> Encoded:
    """Encode an ``infer`` request, for clients.

    Args:
        request: Inputs, requested outputs and parameters; the model's name goes into the URL.
        binary: Whether the inputs travel as raw bytes; where not, datatypes without a JSON form
            are refused.

    Raises:
        InvalidRequestError: ``binary`` is false, and an input has no JSON form or holds NaN or
            infinity.
    """
    inputs: list[dict[str, Any]] = []
    parts: list[bytes | memoryview] = []
    for name, (datatype, array) in request.inputs.items():
        entry: dict[str, Any] = {
            "name": name,
            "shape": array.shape,
            "datatype": datatype.name,
        }
        if binary:
            data = to_buffer(datatype, array)
            parts.append(data)
            entry["parameters"] = {"binary_data_size": len(data)}
        elif datatype.json == "none":
            raise InvalidRequestError(f"input {name!r} is {datatype.name}: send it as binary")
        else:
            entry["data"] = array.reshape(-1).tolist()
        inputs.append(entry)
    message: dict[str, Any] = {"inputs": inputs}
    if request.id:
        message["id"] = request.id
    parameters: _Parameters = {}
    if request.binary_outputs:
        parameters["binary_data_output"] = True
    if request.priority:
        parameters["priority"] = request.priority
    if request.timeout_us:
        parameters["timeout"] = request.timeout_us
    if request.routing_key:
        parameters["routing_key"] = request.routing_key
    if parameters:
        message["parameters"] = parameters
    if request.outputs is not None:
        message["outputs"] = [_requested(output) for output in request.outputs]
    text = _encode(message)
    if not binary and b"null" in text:
        for name, (datatype, array) in request.inputs.items():
            _refuse_non_finite(f"input {name!r}", datatype, array, "send it as binary")
    return Encoded([text, *parts], len(text) if parts else None)


def decode_response(body: Body, json_length: int | None) -> tuple[InferResponseBody, list[Tensor]]:
    """Decode the answer to an ``infer`` request, for clients.

    Args:
        body: The whole body.
        json_length: Value of ``Inference-Header-Content-Length``, or ``None``.

    Returns:
        The JSON part, and the tensor of each of its outputs.

    Raises:
        InvalidRequestError: The body is not an answer of the protocol.
        InvalidTensorError: An output contradicts its own shape.
    """
    head, binary = _split(body, json_length)
    try:
        message = msgspec.json.decode(head, type=InferResponseBody)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error, "response") from error
    tensors = []
    position = 0
    for output in message.outputs:
        datatype = _datatype(output.name, output.datatype)
        size = output.parameters.get("binary_data_size") if output.parameters else None
        if size is not None:
            end = position + _size(output.name, size)
            array = from_buffer(output.name, datatype, output.shape, binary[position:end])
            position = end
        elif isinstance(output.data, list):
            array = from_elements(output.name, datatype, list(output.shape), output.data)
        else:
            raise InvalidRequestError(f"output {output.name!r} has no data")
        tensors.append(Tensor(datatype, array))
    return message, tensors


def _split(body: Body, json_length: int | None) -> tuple[Body, memoryview]:
    """Cut a body into its JSON part and the binary tensors behind it."""
    if json_length is None:
        return body, _NOTHING
    if json_length > len(body):
        raise InvalidRequestError(
            f"{JSON_LENGTH_HEADER} is {json_length}, but the body has {len(body)} bytes"
        )
    view = memoryview(body)
    return view[:json_length], view[json_length:]


def _decode_inputs(inputs: list[InferInput], binary: memoryview, depth: int) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    position = 0
    for entry in inputs:
        name = entry.name
        if name in tensors:
            raise InvalidTensorError(f"input {name!r} is given twice")
        datatype = _datatype(name, entry.datatype)
        size = None
        if entry.parameters:
            if "shared_memory_region" in entry.parameters:
                raise UnsupportedError(f"input {name!r}: shared memory is not available here")
            size = entry.parameters.get("binary_data_size")
        if size is None:
            if entry.data is msgspec.UNSET:
                raise InvalidTensorError(f"input {name!r} has neither data nor binary_data_size")
            array = decode_data(name, datatype, entry.shape, entry.data, depth)
        else:
            if entry.data is not msgspec.UNSET:
                raise InvalidTensorError(f"input {name!r} has both data and binary_data_size")
            end = position + _size(name, size)
            if end > len(binary):
                raise InvalidTensorError(
                    f"input {name!r}: binary_data_size {size} reaches beyond the body"
                )
            array = from_buffer(name, datatype, entry.shape, binary[position:end])
            position = end
        tensors[name] = Tensor(datatype, array)
    if position != len(binary):
        raise InvalidRequestError(
            f"{len(binary) - position} bytes after the last binary tensor belong to no input"
        )
    return tensors


def _decode_outputs(
    entries: list[InferRequestedOutput], *, default: bool
) -> tuple[RequestedOutput, ...]:
    outputs = []
    for entry in entries:
        parameters = entry.parameters or _NONE
        if "shared_memory_region" in parameters:
            raise UnsupportedError(f"output {entry.name!r}: shared memory is not available here")
        classes = parameters.get("classification", 0)
        if isinstance(classes, bool) or not isinstance(classes, int) or classes < 0:
            raise InvalidRequestError(
                f"output {entry.name!r}: classification must be a positive integer, not {classes!r}"
            )
        binary = _flag(parameters, "binary_data", f"output {entry.name!r}", default=default)
        outputs.append(RequestedOutput(entry.name, binary, classes))
    names = [output.name for output in outputs]
    if len(set(names)) != len(names):
        raise InvalidRequestError("an output is asked for twice")
    return tuple(outputs)


def _apply_parameters(request: InferRequest, parameters: _Parameters) -> None:
    for name, value in parameters.items():  # one or two as a rule: fewer than what is refused
        if value and name in _REFUSED:
            raise UnsupportedError(f"parameter {name!r}: sequences are not served here")
    request.binary_outputs = _flag(parameters, "binary_data_output", "the request", default=False)
    request.priority = _count(parameters, "priority")
    request.timeout_us = _count(parameters, "timeout")
    if "routing_key" in parameters:
        request.routing_key = key_of(parameters["routing_key"])


def _flag(parameters: _Parameters, key: str, where: str, *, default: bool) -> bool:
    value = parameters.get(key, default)
    if not isinstance(value, bool):
        raise InvalidRequestError(f"{where}: parameter {key!r} must be true or false")
    return value


def _count(parameters: _Parameters, key: str) -> int:
    value = parameters.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _COUNT_MAX:
        raise InvalidRequestError(f"parameter {key!r} must be an integer, 0 or above, of 64 bits")
    return value


def _size(name: str, value: ParameterValue) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidTensorError(
            f"tensor {name!r}: binary_data_size must be an integer, 0 or above"
        )
    return value


def _datatype(name: str, datatype: str) -> Datatype:
    known = BY_NAME.get(datatype)
    if known is None:
        raise InvalidTensorError(
            f"tensor {name!r}: unknown datatype {datatype!r}; known are {', '.join(BY_NAME)}"
        )
    return known


def _requested(output: RequestedOutput) -> dict[str, Any]:
    parameters: _Parameters = {"binary_data": output.binary}
    if output.classes:
        parameters["classification"] = output.classes
    return {"name": output.name, "parameters": parameters}


def _refuse_non_finite(what: str, datatype: Datatype, array: Array, advice: str) -> None:
    if datatype.json == "float" and not np.isfinite(array).all():
        raise InvalidRequestError(
            f"{what} holds NaN or infinity, which JSON cannot carry: {advice}"
        )


def _malformed(error: Exception, what: str) -> InvalidRequestError:
    return InvalidRequestError(f"the {what} is not what the protocol says: {reason(error)}")
