"""The two tables of routes: the data door's, and the admin door's."""

from typing import Any, Final

from edge_runtime.api.cache_door import CacheDoor
from edge_runtime.api.compat import schemas as compat
from edge_runtime.api.compat.plain import Plain
from edge_runtime.api.compat.tensorflow_serving import TensorFlowServing
from edge_runtime.api.exchange import Exchange
from edge_runtime.api.handlers import Handlers
from edge_runtime.api.openapi import document
from edge_runtime.api.routes import Handler, Route
from edge_runtime.cache import status
from edge_runtime.protocol import schemas

_MODEL: Final = "/v2/models/{name}"
_VERSION: Final = "/v2/models/{name}/versions/{version}"
_REPOSITORY: Final = "/v2/repository/models/{name}"
_V1: Final = "/v1/models/{name}"


def data_routes(handlers: Handlers) -> tuple[Route, ...]:
    """For programs that want predictions."""
    every = _get("/v2/models/stats", handlers.statistics, "Count all", schemas.Statistics)
    return (
        every,
        *_model_routes(handlers, _MODEL),
        *_model_routes(handlers, _VERSION),
        *_shared_routes(handlers, handlers.metrics),
        _post(f"{_REPOSITORY}/load", handlers.only_admin, "Refused here: see the admin socket"),
        _post(f"{_REPOSITORY}/unload", handlers.only_admin, "Refused here: see the admin socket"),
        # perf_analyzer begins by clearing regions, and insists on 200.
        _post("/v2/cudasharedmemory/unregister", handlers.nothing, "Clear what is never there"),
        *_tensorflow_routes(TensorFlowServing(handlers)),
        *_plain_routes(Plain(handlers)),
    )


def admin_routes(handlers: Handlers) -> tuple[Route, ...]:
    """For those who change what is served."""
    load, unload = "Load a model, or its new files", "Unload a model"
    cache = CacheDoor(handlers)
    return (
        *_shared_routes(handlers, handlers.every_metric),
        _post(f"{_REPOSITORY}/load", handlers.load, load, schemas.LoadRequest),
        _post(f"{_REPOSITORY}/unload", handlers.unload, unload, schemas.LoadRequest),
        _get("/v2/cache/stats", cache.stats, "How the prediction cache does", status.Status),
        _post("/v2/cache/clear", cache.clear, "Clear the prediction cache", status.ClearRequest),
    )


def _model_routes(handlers: Handlers, path: str) -> tuple[Route, ...]:
    infer = (schemas.InferRequestBody, schemas.InferResponseBody)
    return (
        _post(f"{path}/infer", handlers.infer, "Predict", *infer),
        _get(path, handlers.metadata, "Describe a model", schemas.ModelMetadata),
        _get(f"{path}/ready", handlers.model_ready, "Can it answer?", schemas.ModelReady),
        _get(f"{path}/config", handlers.config, "Describe it as Triton does", schemas.ModelConfig),
        _get(f"{path}/stats", handlers.statistics, "Count what it did", schemas.Statistics),
    )


def _shared_routes(handlers: Handlers, metrics: Handler) -> tuple[Route, ...]:
    def openapi(exchange: Exchange, _: dict[str, str]) -> None:
        exchange.json(document(data_routes(handlers), admin_routes(handlers)))

    index = (handlers.index, "List versions", schemas.IndexRequest, list[schemas.IndexEntry])
    return (
        _get("/v2/health/live", handlers.live, "The daemon runs", schemas.Live),
        _get("/v2/health/ready", handlers.ready, "Models are in place", schemas.Ready),
        _get("/v2", handlers.server, "Describe the server", schemas.ServerMetadata),
        _get("/v2/", handlers.server, "The same", schemas.ServerMetadata),
        _post("/v2/repository/index", *index),
        _post("/v2/repository/{repository}/index", *index),
        _get("/metrics", metrics, "Prometheus metrics"),
        _get("/openapi.json", openapi, "This interface, for machines"),
    )


def _tensorflow_routes(door: TensorFlowServing) -> tuple[Route, ...]:
    predict = (compat.TensorFlowPredictRequest, compat.TensorFlowPredictAnswer)
    return tuple(
        route
        for path in (_V1, f"{_V1}/versions/{{version}}", f"{_V1}/labels/{{label}}")
        for route in (
            _post(f"{path}:predict", door.predict, "Predict, as TensorFlow Serving", *predict),
            _post(f"{path}:{{verb}}", door.unsupported, "Not here: classify and regress"),
            _get(path, door.status, "State of versions", compat.TensorFlowModelStatus),
            _get(f"{path}/metadata", door.metadata, "Signature", compat.TensorFlowModelMetadata),
        )
    )


def _plain_routes(door: Plain) -> tuple[Route, ...]:
    predict = (compat.PlainRequest, compat.PlainAnswer)
    return (
        _post("/predict", door.predict, "Predict from a row of features", *predict),
        _get("/health", door.health, "Models are in place", compat.PlainHealth),
        _get("/model-info", door.model_info, "Describe the default model", compat.PlainModelInfo),
    )


def _get(path: str, handler: Handler, summary: str, response: Any = None) -> Route:  # noqa: ANN401
    return Route("GET", path, handler, summary, None, response)


def _post(
    path: str,
    handler: Handler,
    summary: str,
    request: Any = None,  # noqa: ANN401 - a struct, or a list of one
    response: Any = None,  # noqa: ANN401
) -> Route:
    return Route("POST", path, handler, summary, request, response)
