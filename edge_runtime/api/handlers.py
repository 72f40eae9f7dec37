"""The handlers behind the routes: from an exchange to the engine, and back.

``tables`` says which method and path leads to which.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from edge_runtime.api import answers
from edge_runtime.api.exchange import Exchange
from edge_runtime.api.metric_sources import Sources
from edge_runtime.api.scraping import scrape
from edge_runtime.catalog import Catalog
from edge_runtime.errors import (
    EdgeRuntimeError,
    ForbiddenError,
    InvalidRequestError,
    ModelNotFoundError,
    UnsupportedError,
)
from edge_runtime.inference import Inference
from edge_runtime.metrics import ServerStatistics
from edge_runtime.protocol import schemas
from edge_runtime.protocol.codec import decode_request, encode_response
from edge_runtime.protocol.messages import InferRequest, InferResponse
from edge_runtime.routing import LoadedVersion
from edge_runtime.settings import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from edge_runtime.cache.predictions import PredictionCache
    from edge_runtime.callers import Callers
    from edge_runtime.release_orders import Answers, Orders

_log = logging.getLogger(__name__)

Names = dict[str, str]
Reload = Callable[[str], Awaitable[None]]


class Handlers:
    """What the routes call.

    Args:
        catalog: The models.
        inference: Answers predictions.
        statistics: Counters of the daemon.
        reload: Reads one model's files anew and swaps it in; raises our errors.
        limits: What a caller may ask; may be replaced.
    """

    def __init__(
        self,
        catalog: Catalog,
        inference: Inference,
        statistics: ServerStatistics,
        reload: Reload,
        limits: Limits,
    ) -> None:
        self._catalog = catalog
        self._inference = inference
        #: The prediction cache, for ``cache_door``.
        self.cache: PredictionCache | None = None
        #: The file of the prediction journal, for ``journal_door``; it need not be there.
        self.journal: Path | None = None
        #: Gives what takes orders of releases, for ``release_door``; the first call may make it.
        self.open_orders: Callable[[], Awaitable[Orders]] | None = None
        #: Gives what answers questions about releases; ``None``: what takes orders does.
        self.open_answers: Callable[[], Awaitable[Answers]] | None = None
        #: Who may change what is served; ``None``: whoever may open the admin socket.
        self.admins: Callers | None = None
        #: Who always counts as the fleet; ``None``: nobody does.
        self.fleet: Callers | None = None
        #: Where the metrics are read.
        self.sources = Sources(catalog, statistics)
        self._reload = reload
        self.limits = limits
        #: The model of requests that name none (``api/compat``); empty: the only one.
        self.default_model = ""
        self._tasks: set[asyncio.Task[None]] = set()
        #: Whether models are in place; before that ``ready`` says no.
        self.is_ready = False

    @property
    def catalog(self) -> Catalog:
        """The models, for the doors in ``api/compat``."""
        return self._catalog

    @property
    def inference(self) -> Inference:
        """What answers predictions, for the doors in ``api/compat``."""
        return self._inference

    # -- predictions ---------------------------------------------------------------------------

    def infer(self, exchange: Exchange, names: Names) -> None:
        """Predict."""
        inference = self._inference
        if inference.backlog.is_full:
            version, peer = names.get("version", ""), exchange.connection.peer
            error = inference.refusal(names["name"], version, peer)
            if error is not None:
                exchange.infer = InferRequest(names["name"], version)  # for the log
                exchange.refused(error)
                return
        limits = self.limits
        request = decode_request(
            exchange.body,
            exchange.json_length,
            json_depth=limits.json_depth,
            json_bytes=limits.json_bytes,
        )
        request.model_name = names["name"]
        request.model_version = names.get("version", "")
        request.caller = exchange.connection.peer
        if exchange.routing_key and not request.routing_key:
            request.routing_key = exchange.routing_key
        exchange.infer = request

        def reply(response: InferResponse | EdgeRuntimeError) -> EdgeRuntimeError | None:
            if isinstance(response, EdgeRuntimeError):
                exchange.refused(response)
                return None
            try:
                encoded = encode_response(response)
            except EdgeRuntimeError as error:  # an answer that JSON cannot carry
                exchange.refused(error)
                return error
            exchange.encoded(encoded)
            return None

        inference.submit(request, reply)

    # -- facts ---------------------------------------------------------------------------------

    def live(self, exchange: Exchange, _: Names) -> None:
        """Say that the daemon runs."""
        exchange.json(schemas.Live(live=True))

    def ready(self, exchange: Exchange, _: Names) -> None:
        """Say whether models are in place."""
        # 400 and not 503 is what Triton answers; any probe takes both for "no".
        exchange.json(schemas.Ready(ready=self.is_ready), 200 if self.is_ready else 400)

    def server(self, exchange: Exchange, _: Names) -> None:
        """Describe the server."""
        exchange.json(answers.server_metadata())

    def metadata(self, exchange: Exchange, names: Names) -> None:
        """Describe a model."""
        self._described(
            exchange, names, lambda loaded: answers.model_metadata(self._catalog, loaded)
        )

    def model_ready(self, exchange: Exchange, names: Names) -> None:
        """Say whether a model can answer."""
        self._catalog.check_ready(names["name"], names.get("version", ""))
        exchange.json(schemas.ModelReady(names["name"], ready=True))

    def config(self, exchange: Exchange, names: Names) -> None:
        """Describe a model in the words of Triton's configuration."""
        self._described(exchange, names, answers.model_config)

    def _described(
        self, exchange: Exchange, names: Names, answer: Callable[[LoadedVersion], object]
    ) -> None:
        """Answer with what is known of a version; one that was never in memory is loaded."""

        def then(found: LoadedVersion | EdgeRuntimeError) -> None:
            if isinstance(found, EdgeRuntimeError):
                exchange.refused(found)
                return
            try:
                exchange.json(answer(found))
            except Exception:
                # Whoever calls this logs it; after a load there is nobody who would answer.
                exchange.error(500, "the daemon failed to describe this model; its log says why")
                raise

        name, version = names["name"], names.get("version", "")
        self._inference.check_caller(name, exchange.connection.peer)
        waiting = exchange.infer = InferRequest(name, version)  # is told if the client leaves
        user = exchange.connection.peer.uid
        self._catalog.describe(name, version, then, lambda: waiting.cancelled, user=user)

    def statistics(self, exchange: Exchange, names: Names) -> None:
        """Count what one version, one model or every model that the caller may ask did."""
        peer = exchange.connection.peer
        loaded = [
            each for each in self._catalog.counted() if self._inference.admits(each.name, peer)
        ]
        if names:
            name, version = names["name"], names.get("version", "")
            self._inference.check_caller(name, peer)
            self._catalog.check_ready(name, version)
            if version:
                last = self._catalog.last_known(name, version)
                loaded = [] if last is None else [last]
            else:
                loaded = [each for each in loaded if each.name == name]
        exchange.json(schemas.Statistics([self._statistics(each) for each in loaded]))

    def _statistics(self, version: LoadedVersion) -> schemas.ModelStatistics:
        """Count what one version did, which may not be in memory any more."""
        cache = self.sources.cache_counters(version.name, version.version)
        routes = self._catalog.table.get(version.name)
        in_memory = routes is not None and routes.versions.get(version.version) is version
        return answers.model_statistics(version, cache, in_memory=in_memory)

    def index(self, exchange: Exchange, names: Names) -> None:
        """List every version known."""
        if names.get("repository"):
            raise ModelNotFoundError(
                f"there is no repository {names['repository']!r}; POST /v2/repository/index"
            )
        wanted = _body(exchange, schemas.IndexRequest)
        exchange.json(answers.index(self._catalog, only_ready=wanted.ready))

    def metrics(self, exchange: Exchange, _: Names) -> None:
        """Give the counters of every model that the caller may ask, and of the daemon."""
        peer = exchange.connection.peer
        self._scrape(
            exchange, replace(self.sources, shows=lambda name: self._inference.admits(name, peer))
        )

    def every_metric(self, exchange: Exchange, _: Names) -> None:
        """Give the counters of every model, for the admin door."""
        self._scrape(exchange, self.sources)

    def _scrape(self, exchange: Exchange, sources: Sources) -> None:
        """Answer with Prometheus text, or OpenMetrics."""

        async def answer() -> None:
            text, content_type = await scrape(sources, exchange.accept.decode("latin-1"))
            exchange.send(200, [text], content_type)

        self.later(exchange, answer())

    def nothing(self, exchange: Exchange, _: Names) -> None:
        """Answer that all is done."""
        exchange.send(200, [b"{}"])

    # -- changes -------------------------------------------------------------------------------

    def only_admin(self, _exchange: Exchange, _: Names) -> None:
        """Refuse what belongs to the admin door."""
        raise ForbiddenError("this door only answers predictions: load and unload on admin.sock")

    def load(self, exchange: Exchange, names: Names) -> None:
        """Load a model, or its new files."""
        wanted = _body(exchange, schemas.LoadRequest)
        if wanted.parameters:
            raise UnsupportedError(
                f"load takes no parameters here (got {', '.join(sorted(wanted.parameters))}): "
                "models are read from disk, settings from the configuration"
            )
        _log.info("load of %s asked by %s", names["name"], exchange.connection.peer.describe())
        self.later(exchange, self._reload(names["name"]))

    def unload(self, exchange: Exchange, names: Names) -> None:
        """Unload a model."""
        _body(exchange, schemas.LoadRequest)
        _log.info("unload of %s asked by %s", names["name"], exchange.connection.peer.describe())
        self.later(exchange, self._catalog.unload(names["name"]))

    def later(self, exchange: Exchange, work: Awaitable[None]) -> None:
        """Answer when slow work is done, if it has not; it goes on if the client leaves."""

        async def run() -> None:
            try:
                await work
            except EdgeRuntimeError as error:
                exchange.refused(error)
            except Exception:  # noqa: BLE001 - the outermost frame; it is logged
                _log.exception("a change failed in a way nobody foresaw")
                exchange.error(500, "the daemon failed to do this; its log says why")
            else:
                if exchange.answer is None:
                    exchange.send(200, [b"{}"])

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _body(exchange: Exchange, struct: type[Any]) -> Any:  # noqa: ANN401 - an instance of struct
    """Decode a small JSON body; an empty one means every default."""
    if not exchange.body:
        return struct()
    try:
        return msgspec.json.decode(exchange.body, type=struct)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"the body is not what this takes: {error}") from error
