"""The door for programs that know no protocol: ``POST /predict``, ``/health``, ``/model-info``."""

from datetime import UTC, datetime
from functools import partial
from time import perf_counter_ns
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from edge_runtime import __version__
from edge_runtime.api.compat import features, schemas
from edge_runtime.api.compat.bridge import Bridge
from edge_runtime.api.exchange import Exchange
from edge_runtime.api.handlers import Handlers, Names
from edge_runtime.errors import InvalidRequestError, ModelNotFoundError, ModelNotReadyError
from edge_runtime.protocol.messages import InferResponse
from edge_runtime.protocol.schemas import TensorMetadata
from edge_runtime.routing import LoadedVersion
from edge_runtime.tensors import TensorSpec

_NS: Final = 1_000_000_000
_request: Final = msgspec.json.Decoder(schemas.PlainRequest)
_encode: Final = msgspec.json.Encoder().encode


class Plain:
    """What the plain routes call.

    Args:
        handlers: The v2 door, whose models, engine and limits serve this one too.
    """

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers
        self._bridge = Bridge(handlers)

    def predict(self, exchange: Exchange, _: Names) -> None:
        """Predict from a row of features, or a list of rows."""
        received = perf_counter_ns()
        asked = self._bridge.body(exchange, _request)
        self._bridge.take_key(exchange, asked.routing_key)
        self._bridge.when_loaded(
            exchange,
            asked.model or self._default(),
            str(asked.model_version),
            partial(self._predict, exchange, asked, received),
            is_split=True,
            may_be_stale=True,
        )

    def _predict(
        self, exchange: Exchange, asked: schemas.PlainRequest, received: int, loaded: LoadedVersion
    ) -> None:
        how = features.plan(loaded.signature)
        rows = features.decode(how, asked.features, loaded.name)

        def encode(response: InferResponse) -> bytes:
            found = features.predictions(how, rows.given, response)
            prediction, confidence = found if rows.is_list else (found[0][0], found[1][0])
            return _answer(prediction, confidence, response.model_version, received)

        inputs = {how.input.name: rows.tensor}
        is_ours = not str(asked.model_version)
        self._bridge.predict(exchange, loaded, inputs, encode, how.outputs, is_ours=is_ours)

    def health(self, exchange: Exchange, _: Names) -> None:
        """Say whether models are in place."""
        if self._handlers.is_ready:
            exchange.json(schemas.PlainHealth("ok", __version__))
        else:
            exchange.json(schemas.PlainHealth("unavailable", __version__), 503)

    def model_info(self, exchange: Exchange, _: Names) -> None:
        """Describe the model that ``POST /predict`` asks, or that of ``?model=NAME``."""
        query = parse_qs(exchange.target.partition(b"?")[2].decode("latin-1"))
        name = query["model"][0] if "model" in query else self._default()
        self._bridge.when_loaded(
            exchange, name, "", lambda loaded: exchange.json(_model_info(loaded))
        )

    def _default(self) -> str:
        """Choose the model where a request names none.

        Every model that is known counts, loaded or not: the choice must not change with what is
        in memory at the moment.
        """
        if self._handlers.default_model:
            return self._handlers.default_model
        catalog = self._handlers.catalog
        if not catalog.is_settled:
            raise ModelNotReadyError(
                "the daemon is starting, and does not know its models yet", retry_after_s=1
            )
        names = sorted({name for name, _, _ in catalog.index()})
        if not names:
            raise ModelNotFoundError("no model is served yet")
        if len(names) > 1:
            raise InvalidRequestError(
                f'several models are known: name one as "model" ({", ".join(names)}), or have '
                "default_model set in the configuration"
            )
        return names[0]


def _answer(prediction: Any, confidence: Any, version: str, received: int) -> bytes:  # noqa: ANN401
    return _encode(
        schemas.PlainAnswer(
            prediction,
            confidence,
            version,
            (perf_counter_ns() - received) / _NS,
            datetime.now(tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        )
    )


def _model_info(loaded: LoadedVersion) -> schemas.PlainModelInfo:
    signature = loaded.signature
    return schemas.PlainModelInfo(
        name=loaded.name,
        version=loaded.version,
        inputs=[_tensor(spec) for spec in signature.inputs],
        outputs=[_tensor(spec) for spec in signature.outputs.values()],
        digest=loaded.digest,
        variant=loaded.variant.name,
    )


def _tensor(spec: TensorSpec) -> TensorMetadata:
    return TensorMetadata(spec.name, spec.datatype.name, spec.shape)
