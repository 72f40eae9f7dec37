"""The door for clients of TensorFlow Serving's REST interface: status, metadata, predict.

Where it differs on purpose, ``docs/predict.md`` says so.

Source: TensorFlow Serving, RESTful API; ``get_model_status.proto``, ``get_model_metadata.proto``.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final

import msgspec

from edge_runtime.api.compat import schemas, tensorflow_formats
from edge_runtime.api.compat.bridge import Bridge
from edge_runtime.api.exchange import Exchange
from edge_runtime.api.handlers import Handlers, Names
from edge_runtime.errors import InvalidRequestError, ModelNotFoundError, UnsupportedError
from edge_runtime.routing import LoadedVersion, State, VersionState
from edge_runtime.tensors import TensorSpec

SIGNATURE: Final = "serving_default"
_METHOD: Final = "tensorflow/serving/predict"
_STATE: Final[dict[State, str]] = {
    "READY": "AVAILABLE",
    "LOADING": "LOADING",
    "UNLOADING": "UNLOADING",
    "UNAVAILABLE": "END",
}
_DTYPE: Final = {
    "BOOL": "DT_BOOL",
    "UINT8": "DT_UINT8",
    "UINT16": "DT_UINT16",
    "UINT32": "DT_UINT32",
    "UINT64": "DT_UINT64",
    "INT8": "DT_INT8",
    "INT16": "DT_INT16",
    "INT32": "DT_INT32",
    "INT64": "DT_INT64",
    "FP16": "DT_HALF",
    "BF16": "DT_BFLOAT16",
    "FP32": "DT_FLOAT",
    "FP64": "DT_DOUBLE",
    "BYTES": "DT_STRING",
}
_request: Final = msgspec.json.Decoder(schemas.TensorFlowPredictRequest)


class TensorFlowServing:
    """What the routes under ``/v1`` call.

    Args:
        handlers: The v2 door, whose models, engine and limits serve this one too.
    """

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers
        self._bridge = Bridge(handlers)

    def predict(self, exchange: Exchange, names: Names) -> None:
        """Predict, in row or column format."""
        asked = self._bridge.body(exchange, _request)
        if asked.signature_name not in {"", SIGNATURE}:
            raise InvalidRequestError(
                f'Serving signature name: "{asked.signature_name}" not found in signature def: '
                f"every model here has one signature, {SIGNATURE!r}"
            )
        self._bridge.take_key(exchange, asked.routing_key)
        is_ours = not (names.get("label") or names.get("version"))
        then = partial(self._predict, exchange, asked, is_ours)
        self._when_loaded(exchange, names, then, is_split=True, may_be_stale=True)

    def _predict(
        self,
        exchange: Exchange,
        asked: schemas.TensorFlowPredictRequest,
        is_ours: bool,  # noqa: FBT001 - bound by position
        loaded: LoadedVersion,
    ) -> None:
        signature, depth = loaded.signature, self._bridge.json_depth
        if isinstance(asked.instances, msgspec.UnsetType):
            if isinstance(asked.inputs, msgspec.UnsetType):
                raise InvalidRequestError("the request has neither 'instances' nor 'inputs'")
            tensors = tensorflow_formats.decode_columns(signature, asked.inputs, depth)
            encode = tensorflow_formats.encode_columns
        elif isinstance(asked.inputs, msgspec.UnsetType):
            tensors = tensorflow_formats.decode_rows(signature, asked.instances, depth)
            encode = tensorflow_formats.encode_rows
        else:
            raise InvalidRequestError(
                "the request has both 'instances' (rows) and 'inputs' (columns): give one"
            )
        self._bridge.predict(exchange, loaded, tensors, encode, is_ours=is_ours)

    def unsupported(self, _exchange: Exchange, names: Names) -> None:
        """Refuse ``classify`` and ``regress``."""
        raise UnsupportedError(
            f"{names['verb']} is not served here (it takes TensorFlow's Example messages): "
            f"send the same features as tensors to /v1/models/{names['name']}:predict"
        )

    def metadata(self, exchange: Exchange, names: Names) -> None:
        """Describe what a model takes and gives."""
        self._when_loaded(exchange, names, lambda loaded: exchange.json(_metadata(loaded)))

    def status(self, exchange: Exchange, names: Names) -> None:
        """Give the state of one version, or of every version of a model."""
        name, version, label = names["name"], names.get("version", ""), names.get("label", "")
        catalog = self._handlers.catalog
        if label:
            _check_label(label)
            version = catalog.number(name, label) or label  # no label is a number
        versions = [
            (number, state)
            for model, number, state in reversed(catalog.index())
            if model == name and number and version in {"", number}
        ]
        if not versions:
            with _unknown_label(label):
                catalog.peek(name, label or version)  # knows best why not
            raise ModelNotFoundError(f"Could not find version {version} of model {name}")
        exchange.json(_status(versions))

    def _when_loaded(
        self,
        exchange: Exchange,
        names: Names,
        then: Callable[[LoadedVersion], None],
        *,
        is_split: bool = False,
        may_be_stale: bool = False,
    ) -> None:
        label = names.get("label", "")
        _check_label(label)
        with _unknown_label(label):
            version = label or names.get("version", "")
            self._bridge.when_loaded(
                exchange,
                names["name"],
                version,
                then,
                is_split=is_split,
                may_be_stale=may_be_stale,
            )


def _check_label(label: str) -> None:
    if label.isdigit():
        raise InvalidRequestError(
            f"{label!r} is a version, not a label: use /versions/{label} in the path"
        )


@contextlib.contextmanager
def _unknown_label(label: str) -> Iterator[None]:
    """An unknown label is a bad argument there; an unknown version is not found."""
    try:
        yield
    except ModelNotFoundError as error:
        if label:
            raise InvalidRequestError(error.message) from error
        raise


def _status(versions: Iterable[tuple[str, VersionState]]) -> schemas.TensorFlowModelStatus:
    return schemas.TensorFlowModelStatus(
        [
            schemas.TensorFlowVersionStatus(number, _STATE[state.state], _reason(state))
            for number, state in versions
        ]
    )


def _reason(state: VersionState) -> schemas.TensorFlowStatus:
    if state.state != "UNAVAILABLE" or state.reason in {"", "unloaded"}:
        return schemas.TensorFlowStatus()
    return schemas.TensorFlowStatus("UNKNOWN", state.reason)


def _metadata(loaded: LoadedVersion) -> schemas.TensorFlowModelMetadata:
    signature = schemas.TensorFlowSignature(
        _tensors(loaded.signature.inputs), _tensors(loaded.signature.outputs.values()), _METHOD
    )
    return schemas.TensorFlowModelMetadata(
        schemas.TensorFlowModelSpec(loaded.name, "", loaded.version),
        schemas.TensorFlowMetadata(schemas.TensorFlowSignatures({SIGNATURE: signature})),
    )


def _tensors(specs: Iterable[TensorSpec]) -> dict[str, schemas.TensorFlowTensor]:
    return {
        spec.name: schemas.TensorFlowTensor(_DTYPE[spec.datatype.name], _shape(spec), spec.name)
        for spec in specs
    }


def _shape(spec: TensorSpec) -> schemas.TensorFlowShape:
    names = spec.symbols or (None,) * len(spec.shape)
    return schemas.TensorFlowShape(
        [
            schemas.TensorFlowDimension(str(size), name or "")
            for size, name in zip(spec.shape, names, strict=True)
        ]
    )
