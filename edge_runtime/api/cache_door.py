"""The prediction cache on the admin door: how it does, and clearing it."""

import logging

import msgspec

from edge_runtime.api.exchange import Exchange
from edge_runtime.api.handlers import Handlers, Names
from edge_runtime.cache.predictions import PredictionCache
from edge_runtime.cache.status import ClearRequest
from edge_runtime.errors import InvalidRequestError, UnavailableError, UnsupportedError

_log = logging.getLogger(__name__)


class CacheDoor:
    """What the cache's routes call.

    Args:
        handlers: Know the cache.
    """

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    def stats(self, exchange: Exchange, _: Names) -> None:
        """Say how the cache does."""
        exchange.json(self._cache().status())

    def clear(self, exchange: Exchange, _: Names) -> None:
        """Remove every answer of a model, or of all; answered when nothing is left of them.

        503 if they are still on disk: none of them is given any more, and it is tried again.
        """
        try:
            wanted = msgspec.json.decode(exchange.body or b"{}", type=ClearRequest)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequestError(f"the body is not what this takes: {error}") from error
        caller = exchange.connection.peer.describe()
        _log.info("clearing the cache of %s, asked by %s", wanted.model or "all models", caller)

        def done(problem: str) -> None:
            if not problem:
                exchange.send(200, [b"{}"])
                return
            _log.warning("clearing the cache failed for now: %s", problem)
            exchange.refused(
                UnavailableError(
                    f"the answers are cleared from memory but not yet from the disk: {problem}; "
                    "this daemon gives none of them any more and tries again until they are gone"
                )
            )

        self._cache().clear(wanted.model, done)

    def _cache(self) -> PredictionCache:
        cache = self._handlers.cache
        if cache is None:
            raise UnsupportedError("this daemon has no prediction cache")
        return cache
