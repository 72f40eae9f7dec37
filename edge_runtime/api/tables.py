"""The two tables of routes: the data door's, and the admin door's."""

from typing import Any, Final

from edge_runtime.api.admins import only_admins
from edge_runtime.api.cache_door import CacheDoor
from edge_runtime.api.compat import schemas as compat
from edge_runtime.api.compat.plain import Plain
from edge_runtime.api.compat.tensorflow_serving import TensorFlowServing
from edge_runtime.api.exchange import Exchange
from edge_runtime.api.handlers import Handlers
from edge_runtime.api.journal_door import JournalDoor
from edge_runtime.api.openapi import document
from edge_runtime.api.release_door import ReleaseDoor
from edge_runtime.api.routes import Handler, Route
from edge_runtime.api.sketch_door import SketchDoor
from edge_runtime.cache import status
from edge_runtime.protocol import journal_schemas as journal
from edge_runtime.protocol import release_schemas as releases
from edge_runtime.protocol import schemas
from edge_runtime.protocol.sketch_schemas import Sketches

_MODEL: Final = "/v2/models/{name}"
_VERSION: Final = "/v2/models/{name}/versions/{version}"
_REPOSITORY: Final = "/v2/repository/models/{name}"
_RELEASES: Final = "/admin/releases"
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
    """For those who change what is served; those whom ``release.admins`` admits, if it is set."""
    load, unload = "Load a model, or its new files", "Unload a model"
    clear = "Clear the prediction cache"
    cache = CacheDoor(handlers)
    changes = (
        _post(f"{_REPOSITORY}/load", handlers.load, load, schemas.LoadRequest),
        _post(f"{_REPOSITORY}/unload", handlers.unload, unload, schemas.LoadRequest),
        _post("/v2/cache/clear", cache.clear, clear, status.ClearRequest),
        *_people_s_orders(ReleaseDoor(handlers)),
    )
    fleets = (*_fleet_s_orders(ReleaseDoor(handlers)), *_journal(JournalDoor(handlers)))
    return (
        *_shared_routes(handlers, handlers.every_metric),
        _get("/v2/cache/stats", cache.stats, "How the prediction cache does", status.Status),
        _get("/admin/sketches", SketchDoor(handlers).sketches, "How outputs spread", Sketches),
        *_release_questions(ReleaseDoor(handlers)),
        *(row._replace(handler=only_admins(handlers, row.handler)) for row in changes),
        *(
            row._replace(handler=only_admins(handlers, row.handler, fleet_too=True))
            for row in fleets
        ),
    )


def _people_s_orders(door: ReleaseDoor) -> tuple[Route, ...]:
    """Orders that only people at the device give."""
    about_a_model = (
        ("promote", door.promote, "Take the release under way to its next decision"),
        ("hold", door.hold, "Keep the fleet's orders out"),
        ("clear", door.clear, "Let the fleet's orders in again"),
    )
    rollback = "Go back, and keep the fleet's orders out"
    split = (releases.TrafficRequest, releases.ModelReleases)
    return (
        *(_about(*row, releases.ReasonRequest) for row in about_a_model),
        _about("rollback", door.rollback, rollback, releases.RollbackRequest),
        _post("/admin/models/{name}/traffic", door.traffic, "Split a model's traffic", *split),
    )


def _fleet_s_orders(door: ReleaseDoor) -> tuple[Route, ...]:
    """Orders that the fleet gives as well."""
    bundle = _post(
        "/admin/bundles", door.stage_tar, "Stage a bundle sent as tar", bytes, releases.Release
    )
    revert = "Go back as the fleet does: no override is left"
    keyring = _post(
        "/admin/keyring", door.keyring, "Install a newer keyring", bytes, releases.Trust
    )
    return (
        _post(_RELEASES, door.stage, "Stage a bundle", releases.StageRequest, releases.Release),
        bundle._replace(query=releases.StageQuery),
        _about("revert", door.revert, revert, releases.RevertRequest),
        _about("abort", door.abort, "End the release under way", releases.AbortRequest),
        keyring._replace(query=releases.KeyringQuery),
    )


def _about(verb: str, handler: Handler, summary: str, request: Any) -> Route:  # noqa: ANN401
    """Give the route of an order about a model: answered when recorded, it goes on by itself."""
    path = f"{_RELEASES}/{{name}}/{verb}"
    return _post(path, handler, summary, request, releases.ModelReleases)


def _journal(door: JournalDoor) -> tuple[Route, ...]:
    """Not for everybody who may look: the rows hold inputs and outputs."""
    rows = _get("/admin/journal", door.rows, "Predictions that were kept", journal.JournalRows)
    collected = (door.collected, "Let go of what is safe elsewhere")
    bodies = (journal.Collected, journal.Removed)
    return (
        rows._replace(query=journal.JournalQuery),
        _post("/admin/journal/collected", *collected, *bodies),
    )


def _release_questions(door: ReleaseDoor) -> tuple[Route, ...]:
    of_model = f"{_RELEASES}/{{name}}"
    history = (
        _get(f"{of_model}/history", door.history, "What happened to a model", releases.History),
        _get("/admin/history", door.history, "What happened", releases.History),
    )
    return (
        _get(_RELEASES, door.status, "How the releases of every model do", releases.Releases),
        _get(of_model, door.status_of, "How a model's releases do", releases.ModelReleases),
        *(row._replace(query=releases.HistoryQuery) for row in history),
        _get(f"{of_model}/explain", door.explain, "Why it is so", releases.Explanation),
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
