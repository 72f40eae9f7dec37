"""Between the doors of this package and the engine: read a body, find a version, predict."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from edge_runtime.api.exchange import Exchange
from edge_runtime.api.handlers import Handlers
from edge_runtime.errors import (
    EdgeRuntimeError,
    InvalidRequestError,
    RequestTooLargeError,
    UnavailableError,
)
from edge_runtime.protocol.json_data import reason
from edge_runtime.protocol.messages import InferRequest, InferResponse, RequestedOutput
from edge_runtime.protocol.routing_keys import key_of
from edge_runtime.routing import LoadedVersion, route
from edge_runtime.tensors import Tensor

_Body = TypeVar("_Body")


class Bridge:
    """What the doors share.

    Args:
        handlers: The v2 door, whose models, engine and limits serve these doors too.
    """

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    @property
    def json_depth(self) -> int:
        """Deepest nesting of a tensor's JSON (``limits.json_depth``)."""
        return self._handlers.limits.json_depth

    def body(self, exchange: Exchange, decoder: msgspec.json.Decoder[_Body]) -> _Body:
        """Decode a JSON body.

        Raises:
            RequestTooLargeError: It is over ``limits.json_bytes``.
            InvalidRequestError: It is malformed, or a field is missing or of the wrong type.
        """
        size, most = len(exchange.body), self._handlers.limits.json_bytes
        if size > most:
            raise RequestTooLargeError(
                f"the request has {size} bytes of JSON; at most {most} are accepted "
                "(limits.json_bytes): send large tensors as binary to /v2"
            )
        try:
            return decoder.decode(exchange.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequestError(
                f"the body is not what this takes: {reason(error)}"
            ) from error

    def take_key(self, exchange: Exchange, key: str | int) -> None:
        """Let a split go by the key of a body; without one it goes by the header's.

        Raises:
            InvalidRequestError: It is too long.
        """
        if key != "":
            exchange.body_key = key_of(key)  # not the header's, which is remembered

    def when_loaded(
        self,
        exchange: Exchange,
        name: str,
        version: str,
        then: Callable[[LoadedVersion], None],
        *,
        is_split: bool = False,
        may_be_stale: bool = False,
    ) -> None:
        """Go on with the version that answers; the one place where a door needs a signature.

        One that was in memory before is described by what it was; one that never was is loaded.

        Args:
            exchange: What is to be answered.
            name: The model.
            version: A number or an alias; empty leaves the choice to the runtime.
            then: Called once with it, now or when it is loaded.
            is_split: Whether the version may be another than the default one, if the model's
                traffic is split.
            may_be_stale: Whether what is known of a version that cannot answer is enough: the
                engine may have an older answer of it, and else says why not.

        Raises:
            ForbiddenError: The caller may not ask this model.
            ModelNotFoundError: No such model or version is known.
            UnavailableError: It is known, but cannot be loaded now.
        """
        self._handlers.inference.check_caller(name, exchange.connection.peer)
        catalog = self._handlers.catalog
        loaded = route(catalog.table, name, version, exchange if is_split else None)
        if loaded is not None:
            then(loaded)
            return
        waiting = exchange.infer = InferRequest(name, version)  # is told if the client leaves

        def go_on(found: LoadedVersion | EdgeRuntimeError) -> None:
            if waiting.cancelled:
                found = UnavailableError("nobody waits for this answer any more")
            if isinstance(found, EdgeRuntimeError):
                exchange.refused(found)
                return
            try:
                then(found)
            except EdgeRuntimeError as error:
                exchange.refused(error)
            except Exception:
                # Whoever calls this logs it; after a load there is nobody who would answer.
                exchange.error(500, "the daemon failed to answer this request; its log says why")
                raise

        user = exchange.connection.peer.uid
        try:
            catalog.describe(name, version, go_on, lambda: waiting.cancelled, user=user)
        except UnavailableError:
            known = catalog.last_known(name, version) if may_be_stale else None
            if known is None:
                raise
            then(known)

    def predict(
        self,
        exchange: Exchange,
        loaded: LoadedVersion,
        inputs: dict[str, Tensor],
        encode: Callable[[InferResponse], bytes],
        outputs: Sequence[RequestedOutput] | None = None,
        *,
        is_ours: bool,
    ) -> None:
        """Submit a prediction, and answer when it is there.

        Args:
            exchange: What to answer.
            loaded: The version whose signature the inputs were made for; that very one is asked.
            inputs: Tensors by input name.
            encode: Makes the JSON of the answer; may raise our errors.
            outputs: What is wanted; ``None`` means every output.
            is_ours: Whether the version was chosen here: then another may answer in its place.
        """
        request = InferRequest(
            model_name=loaded.name,
            model_version=loaded.version,
            inputs=inputs,
            outputs=None if outputs is None else tuple(outputs),
            is_version_ours=is_ours,
            caller=exchange.connection.peer,
        )
        exchange.infer = request

        def reply(response: InferResponse | EdgeRuntimeError) -> EdgeRuntimeError | None:
            if isinstance(response, EdgeRuntimeError):
                exchange.refused(response)
                return None
            try:
                body = _marked(encode(response), response)
            except EdgeRuntimeError as error:  # an answer that JSON cannot carry
                exchange.refused(error)
                return error
            exchange.send(200, [body])
            return None

        self._handlers.inference.submit(request, reply)


def _marked(body: bytes, response: InferResponse) -> bytes:
    """Say in an answer, which is a JSON object, what ``/v2`` says of it: that it is stale."""
    if not response.parameters:
        return body
    return b'%b,"parameters":%b}' % (body[:-1], msgspec.json.encode(response.parameters))
