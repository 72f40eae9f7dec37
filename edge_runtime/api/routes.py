"""Which method and path is answered by what. Two tables: the data door and the admin door."""

import logging
import re
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import unquote

from edge_runtime.api.exchange import Exchange
from edge_runtime.errors import EdgeRuntimeError, InvalidRequestError
from edge_runtime.protocol.messages import InferRequest

_log = logging.getLogger(__name__)

Handler = Callable[[Exchange, dict[str, str]], None]

REMEMBERED_MAX: Final = 1024  # targets whose route is remembered; clients repeat a handful


class Route(NamedTuple):
    """One row of a table.

    Attributes:
        method: Upper case; GET answers HEAD too.
        path: With ``{name}`` for one percent-encoded segment, ``{version}`` for a number.
        handler: Answers.
        summary: One line for ``openapi.json``.
        request: Struct of the JSON body, or ``None``; ``bytes``: a tar.
        response: Struct of the JSON answer, or ``None`` for another media type.
        query: Struct of the query, or ``None``.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    request: type | None = None
    response: type | None = None
    query: type | None = None


class Match(NamedTuple):
    """Where a target leads."""

    handler: Handler
    names: dict[str, str]


class Router:
    """Finds the handler of an exchange, and turns what it raises into an answer.

    Args:
        routes: The table; the first row that matches wins.
    """

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self.routes = routes
        self._patterns = [(_pattern(route.path), route) for route in routes]
        self._remembered: dict[tuple[bytes, bytes], Match] = {}

    def dispatch(self, exchange: Exchange) -> None:
        """Answer an exchange, now or later."""
        key = (exchange.method, exchange.target)
        match = self._remembered.get(key)
        try:
            if match is None:
                found = self._find(exchange)
                if found is None:
                    return
                match = found
                if len(self._remembered) >= REMEMBERED_MAX:
                    self._remembered.clear()
                self._remembered[key] = match
            match.handler(exchange, match.names)
        except EdgeRuntimeError as error:
            if exchange.infer is None and match is not None and "name" in match.names:
                names = match.names  # refused before it was decoded: the log names the model
                exchange.infer = InferRequest(names["name"], names.get("version", ""))
            exchange.refused(error)
        except Exception:  # noqa: BLE001 - the outermost frame; it is logged
            # A defect of ours must not take the daemon down, and its traceback is not for clients.
            _log.exception("a request failed in a way nobody foresaw")
            if exchange.answer is None:
                exchange.error(500, "the daemon failed to answer this request; its log says why")

    def _find(self, exchange: Exchange) -> Match | None:
        """Look a target up; ``None`` if it was answered here (404, 405)."""
        path = exchange.target.partition(b"?")[0]
        if path[:7].lower() == b"http://":  # absolute form: RFC 9112 3.2.2
            path = b"/" + path[7:].partition(b"/")[2]
        text = path.decode("latin-1")
        method = exchange.method.decode()
        wanted = "GET" if method == "HEAD" else method
        allowed: set[str] = set()
        for pattern, route in self._patterns:
            found = pattern.fullmatch(text)
            if found is None:
                continue
            if route.method == wanted:
                return Match(route.handler, _decoded(found.groupdict()))
            allowed |= {"GET", "HEAD"} if route.method == "GET" else {route.method}
        if allowed:
            allow = ", ".join(sorted(allowed))
            exchange.error(405, f"{method} is not for this path; use {allow}", (("Allow", allow),))
        else:
            exchange.error(404, f"there is nothing at {text[:200]!r}; GET /openapi.json lists all")
        return None


def _decoded(segments: dict[str, str | None]) -> dict[str, str]:
    try:
        return {
            key: unquote(value, errors="strict")
            for key, value in segments.items()
            if value is not None
        }
    except UnicodeDecodeError as error:
        raise InvalidRequestError("the path is not percent-encoded UTF-8") from error


def _pattern(path: str) -> re.Pattern[str]:
    text = re.escape(path)
    text = text.replace(r"\{name\}", "(?P<name>[^/]+)")
    text = text.replace(r"\{repository\}", "(?P<repository>[^/]+)")
    text = text.replace(r"\{region\}", "(?P<region>[^/]+)")
    text = text.replace(r"\{version\}", "(?P<version>[0-9]+|[A-Za-z][A-Za-z0-9_.-]*)")
    text = text.replace(r"\{label\}", "(?P<label>[^/:]+)")
    text = text.replace(r"\{verb\}", "(?P<verb>classify|regress)")
    return re.compile(text)
