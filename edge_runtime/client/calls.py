"""Every call of the API as data: what to send, and how to read the answer. No I/O."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from urllib.parse import quote

import msgspec
import numpy as np

from edge_runtime.client.arrays import Input, refuse_non_finite, to_array, to_tensor
from edge_runtime.client.endpoint import Endpoint
from edge_runtime.client.wire import Answer, Buffer, Buffers, request_buffers
from edge_runtime.datatypes import BF16, BY_NAME
from edge_runtime.errors import (
    EdgeRuntimeError,
    InvalidRequestError,
    InvalidTensorError,
    ModelNotFoundError,
    ProtocolError,
    RequestError,
    TransportError,
    UnavailableError,
)
from edge_runtime.protocol import schemas
from edge_runtime.protocol.codec import decode_response, encode_request
from edge_runtime.protocol.messages import InferRequest, Parameters, RequestedOutput
from edge_runtime.protocol.routing_keys import key_of
from edge_runtime.protocol.status import error_of
from edge_runtime.tensors import Array

T = TypeVar("T")

Version = str | int  # empty: the daemon chooses

OK: Final = 200
NOT_AVAILABLE: Final = 503
NOT_READY: Final = (400, NOT_AVAILABLE)  # Triton answers 400 to a probe, a proxy 503
EXCERPT_BYTES: Final = 200
_US_PER_S: Final = 1_000_000
_OTHER_DATATYPE: Final = re.compile(r"input .+ is [A-Z0-9]+; the model takes (\w+)")
_NUMPY_KINDS: Final = ("bool", "int", "uint", "float")


@dataclass(frozen=True, slots=True)
class Prediction:
    """One prediction with all that the answer says.

    Attributes:
        outputs: Arrays by output name; yours to keep and to write to.
        datatypes: The protocol's name of each output's datatype.
        model_name: Model that answered.
        model_version: Version that answered.
        id: The request's id, empty if it had none.
        parameters: Parameters of the answer.
    """

    outputs: dict[str, Array]
    datatypes: dict[str, str]
    model_name: str
    model_version: str
    id: str
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and what its answer means.

    Attributes:
        method: HTTP method.
        target: Path, percent-encoded, without the endpoint's base.
        decode: Turns the answer into a result, or raises one of our errors.
        parts: Body.
        json_length: Bytes of JSON before binary tensors; ``None``: all is JSON.
    """

    method: str
    target: str
    decode: Callable[[Answer], T]
    parts: Sequence[Buffer] = ()
    json_length: int | None = None

    def buffers(self, endpoint: Endpoint) -> Buffers:
        """Put the request together, as buffers to write one after the other."""
        return request_buffers(endpoint, self.method, self.target, self.parts, self.json_length)


def infer(
    model: str,
    inputs: Mapping[str, Input],
    *,
    version: Version = "",
    outputs: Sequence[str] | None = None,
    classes: int = 0,
    request_id: str = "",
    priority: int = 0,
    server_timeout_s: float | None = None,
    routing_key: str | int = "",
    binary: bool = True,
) -> Call[Prediction]:
    """Ask for a prediction; the arguments are those of ``Client.predict``.

    Raises:
        InvalidRequestError: A name, number or combination is not acceptable.
        InvalidTensorError: An input cannot be sent.
    """
    if classes and outputs is None:
        raise InvalidRequestError("classes needs outputs: name those that are to be ranked")
    if isinstance(outputs, str):
        raise InvalidRequestError(f"outputs is a list of names: [{outputs!r}]")
    tensors = {name: to_tensor(name, value) for name, value in inputs.items()}
    if not binary:
        refuse_non_finite(tensors)
    request = InferRequest(
        id=request_id,
        inputs=tensors,
        priority=priority,
        timeout_us=_microseconds(server_timeout_s),
        routing_key=key_of(routing_key),
        binary_outputs=binary,
    )
    if outputs is not None:
        request.outputs = tuple(RequestedOutput(name, binary, classes) for name in outputs)
    parts, json_length = encode(request, binary=binary)
    return Call("POST", f"{_model(model, version)}/infer", _prediction, parts, json_length)


def encode(request: InferRequest, *, binary: bool) -> tuple[Sequence[Buffer], int | None]:
    """Encode a request, as ``encode_request`` does, whatever its texts are.

    Args:
        request: What to ask.
        binary: Whether tensors travel as raw bytes.

    Raises:
        InvalidTensorError: A text holds half a surrogate pair, which no encoding has.
    """
    try:
        return encode_request(request, binary=binary)
    except UnicodeEncodeError as error:
        raise InvalidTensorError(
            f"an input holds text that UTF-8 cannot write ({error.reason} at {error.start}); "
            "texts read with errors='surrogateescape' are bytes: send those"
        ) from error


def infer_raw(
    model: str, body: Buffer, *, json_length: int | None = None, version: Version = ""
) -> Call[Answer]:
    """Send the body of an ``infer`` request as it is.

    Raises:
        InvalidRequestError: The name or version is not acceptable.
    """
    return Call("POST", f"{_model(model, version)}/infer", _success, (body,), json_length)


def live() -> Call[bool]:
    """Ask whether the daemon runs."""
    return Call("GET", "/v2/health/live", _yes_or_no)


def ready() -> Call[bool]:
    """Ask whether the daemon can answer."""
    return Call("GET", "/v2/health/ready", _yes_or_no)


def model_ready(model: str, version: Version = "") -> Call[bool]:
    """Ask whether a model can answer.

    Raises:
        InvalidRequestError: The name or version is not acceptable.
    """
    return Call("GET", f"{_model(model, version)}/ready", _yes_or_no)


def metadata() -> Call[schemas.ServerMetadata]:
    """Ask what the server is."""
    return Call("GET", "/v2", _struct(schemas.ServerMetadata))


def model_metadata(model: str, version: Version = "") -> Call[schemas.ModelMetadata]:
    """Ask what a model takes and gives.

    Raises:
        InvalidRequestError: The name or version is not acceptable.
    """
    return Call("GET", _model(model, version), _struct(schemas.ModelMetadata))


def statistics(model: str = "", version: Version = "") -> Call[schemas.Statistics]:
    """Ask what a model, or every model, did.

    Raises:
        InvalidRequestError: The name or version is not acceptable.
    """
    path = _model(model, version) if model or version != "" else "/v2/models"
    return Call("GET", f"{path}/stats", _struct(schemas.Statistics))


def metrics() -> Call[str]:
    """Ask for the metrics."""
    return Call("GET", "/metrics", _text)


def index(*, only_ready: bool) -> Call[list[schemas.IndexEntry]]:
    """Ask for every version known."""
    body = msgspec.json.encode(schemas.IndexRequest(ready=only_ready))
    return Call("POST", "/v2/repository/index", _struct(list[schemas.IndexEntry]), (body,))


def load(model: str) -> Call[None]:
    """Have a model loaded, or its new files.

    Raises:
        InvalidRequestError: The name is not acceptable.
    """
    return Call("POST", f"/v2/repository/models/{_quoted(model)}/load", _nothing)


def unload(model: str) -> Call[None]:
    """Have a model unloaded.

    Raises:
        InvalidRequestError: The name is not acceptable.
    """
    return Call("POST", f"/v2/repository/models/{_quoted(model)}/unload", _nothing)


def document(target: str, kind: type[T]) -> Call[T]:
    """Ask for JSON of a known form at a path that this module has no name for."""
    return Call("GET", target, _struct(kind))


def change(target: str, body: bytes) -> Call[None]:
    """Ask for a change at a path that this module has no name for."""
    return Call("POST", target, _nothing, (body,))


def order(target: str, body: Buffer, kind: type[T]) -> Call[T]:
    """Ask for a change that answers with JSON of a known form, at a path without a name here."""
    return Call("POST", target, _struct(kind), (body,))


def prediction(answer: Answer) -> Prediction:
    """Decode a successful answer to ``infer``.

    Args:
        answer: With status 200.

    Raises:
        ProtocolError: The body is not an answer of the protocol.
    """
    try:
        message, tensors = decode_response(answer.body, answer.json_length)
    except (RequestError, ValueError) as error:  # ValueError: more axes than numpy has
        raise ProtocolError(f"the server's answer cannot be read: {error}") from error
    outputs = {}
    datatypes = {}
    for output, tensor in zip(message.outputs, tensors, strict=True):
        outputs[output.name] = to_array(tensor)
        datatypes[output.name] = output.datatype
    return Prediction(
        outputs,
        datatypes,
        message.model_name,
        message.model_version,
        message.id,
        message.parameters or {},
    )


def _prediction(answer: Answer) -> Prediction:
    try:
        return prediction(_success(answer))
    except RequestError as error:
        cure = _conversion(error.message)
        if cure:
            raise type(error)(f"{error.message}; {cure}") from error
        raise


def _conversion(message: str) -> str:
    """Say in numpy's words how an input gets the datatype that the daemon asks for."""
    found = _OTHER_DATATYPE.search(message)
    datatype = BY_NAME.get(found[1]) if found else None
    name = np.dtype(datatype.numpy).name if datatype else ""
    if not name.startswith(_NUMPY_KINDS) or datatype is BF16:
        return ""
    return f"convert it: array.astype({name!r})"


def _success(answer: Answer) -> Answer:
    if answer.status != OK:
        raise _refusal(answer)
    return answer


def _nothing(answer: Answer) -> None:
    _success(answer)


def _text(answer: Answer) -> str:
    try:
        return bytes(_success(answer).body).decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"the server's answer cannot be read: {error}") from error


def _yes_or_no(answer: Answer) -> bool:
    if answer.status in NOT_READY:
        return False
    _success(answer)
    return True


def _struct(kind: type[T]) -> Callable[[Answer], T]:
    def decode(answer: Answer) -> T:
        try:
            return msgspec.json.decode(_success(answer).body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(f"the server's answer cannot be read: {error}") from error

    return decode


def _refusal(answer: Answer) -> EdgeRuntimeError:
    """Make the error that an answer stands for."""
    body = bytes(answer.body)
    try:
        message = msgspec.json.decode(body, type=schemas.ErrorBody).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        text = body[:EXCERPT_BYTES].decode(errors="replace").strip()
        message = f"the server answered {answer.status}: {text!r}; is it an edge-runtime?"
        if error_of(answer.status, message).__class__ is ModelNotFoundError:
            # Our 404s are JSON; another server's say nothing about models.
            return ProtocolError(message)
        if answer.status == NOT_AVAILABLE:
            # Our 503s say that nothing was run; a proxy's may come after the daemon went away.
            gone = TransportError(message, request_sent=True)
            gone.retry_after_s = answer.retry_after_s
            return gone
    error = error_of(answer.status, message)
    if isinstance(error, UnavailableError):
        error.retry_after_s = answer.retry_after_s
    return error


def _model(name: str, version: Version) -> str:
    path = f"/v2/models/{_quoted(name)}"
    digits = str(version)
    if not digits:
        return path
    if not (digits.isascii() and digits.isdecimal()):
        raise InvalidRequestError(f"version {version!r} is not a number; leave it empty for any")
    return f"{path}/versions/{digits}"


def _quoted(name: object) -> str:
    if not isinstance(name, str):
        raise InvalidRequestError(f"the model's name is text, not {type(name).__name__}: {name!r}")
    if not name:
        raise InvalidRequestError("the model's name is empty; `edge-runtime models` lists names")
    try:
        return quote(name, safe="")
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"the model's name {name!r} is not text") from error


def _microseconds(timeout_s: float | None) -> int:
    if timeout_s is None:
        return 0
    if not 0 < timeout_s < math.inf:
        raise InvalidRequestError(
            f"server_timeout_s must be above 0, or None for none: {timeout_s}"
        )
    # Zero would mean no timeout at all.
    return max(1, round(timeout_s * _US_PER_S))
