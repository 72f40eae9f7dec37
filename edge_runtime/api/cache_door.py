"""The prediction cache on the admin door: how it does, and clearing it."""

import logging

import msgspec

from edge_runtime.api.exchange import Exchange
from edge_runtime.api.handlers import Handlers, Names
from edge_runtime.cache.predictions import PredictionCache
from edge_runtime.cache.status import ClearRequest
from edge_runtime.errors import InvalidRequestError, UnsupportedError

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
        """Remove every answer of a model, or of all; answered when nothing is left of them."""
        try:
            wanted = msgspec.json.decode(exchange.body or b"{}", type=ClearRequest)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequestError(f"the body is not what this takes: {error}") from error
        caller = exchange.connection.peer.describe()
        _log.info("clearing the cache of %s, asked by %s", wanted.model or "all models", caller)
        self._cache().clear(wanted.model, lambda: exchange.send(200, [b"{}"]))

    def _cache(self) -> PredictionCache:
        cache = self._handlers.cache
        if cache is None:
            raise UnsupportedError("this daemon has no prediction cache")
        return cache
