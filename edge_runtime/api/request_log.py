"""One record for a request that was answered: who asked what, and how it ended. No tensor data.

The request path compares a status with ``from_status`` and calls nothing else for a request that
gets no record.
"""

import asyncio
import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any, Final

from edge_runtime.api.exchange import Exchange
from edge_runtime.metrics import ServerStatistics
from edge_runtime.protocol.messages import InferRequest
from edge_runtime.settings import Log

_log = logging.getLogger(__name__)

LOGGER: Final = "edge_runtime.requests"
NEVER: Final = 1000  # above every status
TEXT_CHARS_MAX: Final = 200  # of a text that the caller chose
_FAILED: Final = 400
_OURS: Final = 500
_UNAVAILABLE: Final = 503
_LEFT_OUT: Final = "records left out (log.failures_per_minute, or a log read too slowly)"
_MINUTE_S: Final = 60.0
_NS_PER_MS: Final = 1e6
_END_OF_HEAD: Final = b"\r\n\r\n"

Write = Callable[[logging.LogRecord], bool]


class NoLog:
    """A log that wants nothing.

    Attributes:
        from_status: Answers with this HTTP status or a higher one are to be noted.
    """

    from_status = NEVER

    def note(self, exchange: Exchange) -> None:
        """Note a request that was just answered."""


class RequestLog(NoLog):
    """Writes the records.

    Args:
        loop: The event loop, whose thread everything is called on.
        statistics: Counts what is left out.
        write: Takes a record, or says that it cannot.

    Attributes:
        wants_all: Whether answered requests are noted too.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, statistics: ServerStatistics, write: Write
    ) -> None:
        self._loop = loop
        self._statistics = statistics
        self._write = write
        self._level = logging.INFO
        self._most = 0  # failures of one status in a minute
        self._written: Counter[int] = Counter()  # in this minute, by status
        self._left_out: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self._begin_s = -_MINUTE_S
        self._prefix = os.urandom(2).hex()
        self._number = 0
        self.wants_all = False

    def configure(self, settings: Log) -> None:
        """Take the settings, at the start and whenever they change."""
        self._level = logging.getLevelNamesMapping()[settings.level.upper()]
        self._most = settings.failures_per_minute
        self.wants_all = settings.requests == "all" and self._level <= logging.INFO
        if settings.requests == "off":
            self.from_status = NEVER
        else:
            self.from_status = 0 if self.wants_all else _FAILED

    def note(self, exchange: Exchange) -> None:
        """Write the record of a request that was just answered."""
        try:
            self._note(exchange)
        except Exception:  # noqa: BLE001 - whatever it is, the request's answer comes first
            _log.exception("the record of a request failed in a way nobody foresaw")

    def _note(self, exchange: Exchange) -> None:
        status = exchange.status
        failed = bool(exchange.problem)  # a probe that is told "not ready" has not
        level = _level(status) if failed else logging.INFO
        if level < self._level or not (failed or self.wants_all):
            return
        if not self.wants_all and not self._may_write(status):
            self._statistics.records_limited += 1
            self._leave_out(str(status))
            return
        text = "request failed" if failed else "request answered"
        if not self._write(_record(level, text, self._fields(exchange))):
            self._dropped()

    def lost(self) -> None:
        """Count a record of something else that had no place. May be called on any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody counts any more
            self._loop.call_soon_threadsafe(self._dropped)

    def close(self) -> None:
        """Say what was left out, and write nothing more."""
        self.from_status = NEVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            told = self._left_out_record()
            # Nothing is tried again after this: a logger's records have places of their own.
            if not self._write(told):
                logging.getLogger(LOGGER).handle(told)

    def _fields(self, exchange: Exchange) -> dict[str, Any]:
        """Say what is known of a request; what is not is left out."""
        peer = exchange.connection.peer
        asked = exchange.infer
        fields: dict[str, Any] = {"request_id": self._id(asked), "status": exchange.status}
        if exchange.target:
            path = exchange.target.partition(b"?")[0]
            fields["method"] = exchange.method.decode("latin-1")
            fields["path"] = _short(path.decode("latin-1"))
        if asked is not None:
            fields["model"] = _short(asked.model_name)
            fields |= _spent(asked)
        fields["caller"] = peer.address
        fields |= {
            name: value
            for name, value in (("uid", peer.uid), ("gid", peer.gid), ("pid", peer.pid))
            if value is not None
        }
        fields["bytes_in"] = len(exchange.body)
        fields["bytes_out"] = _body_bytes(exchange)
        if exchange.problem:
            fields["error"] = _short(exchange.problem, 2 * TEXT_CHARS_MAX)
        return fields

    def _id(self, asked: InferRequest | None) -> str:
        """Give the caller's name for the request, else one of our own."""
        if asked is not None and asked.id:
            return _short(asked.id)
        self._number += 1
        return f"{self._prefix}-{self._number}"

    # -- what is left out ----------------------------------------------------------------------

    def _may_write(self, status: int) -> bool:
        now_s = self._loop.time()
        if now_s >= self._begin_s + _MINUTE_S:
            self._begin_s = now_s
            self._written.clear()
        self._written[status] += 1
        return self._written[status] <= self._most

    def _dropped(self) -> None:
        self._statistics.records_dropped += 1
        self._leave_out("queue")

    def _leave_out(self, why: str) -> None:
        self._left_out[why] += 1
        self._tell_later()

    def _tell_later(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(_MINUTE_S, self._tell_left_out)

    def _tell_left_out(self) -> None:
        """Say how many got no record; if even that cannot be written, in a minute."""
        self._timer = None
        if self._write(self._left_out_record()):
            self._left_out.clear()
        else:
            self._tell_later()

    def _left_out_record(self) -> logging.LogRecord:
        count = self._left_out.total()
        fields: dict[str, Any] = {"left_out": count, "left_out_by": dict(self._left_out)}
        return _record(logging.WARNING, _LEFT_OUT, fields)


def _record(level: int, text: str, fields: dict[str, Any]) -> logging.LogRecord:
    record = logging.LogRecord(LOGGER, level, __file__, 0, text, None, None)
    record.fields = fields
    return record


def _level(status: int) -> int:
    """Say how bad an error is: what the caller or time can mend is a warning."""
    return logging.WARNING if status < _OURS or status == _UNAVAILABLE else logging.ERROR


def _spent(asked: InferRequest) -> dict[str, Any]:
    """Say which version it was and what it took, as far as it came."""
    spent = asked.spent
    if spent is None:
        return {"version": _short(asked.model_version)} if asked.model_version else {}
    known: dict[str, Any] = {"version": spent.version or asked.model_version}
    if spent.rows is not None:
        known["rows"] = spent.rows
        known["queue_ms"] = round(spent.queue_ns / _NS_PER_MS, 3)
        known["compute_ms"] = round(spent.compute_ns / _NS_PER_MS, 3)
    known["duration_ms"] = round((perf_counter_ns() - spent.received) / _NS_PER_MS, 3)
    return known


def _body_bytes(exchange: Exchange) -> int:
    answer = exchange.answer
    if isinstance(answer, bytes):
        return len(answer) - answer.index(_END_OF_HEAD) - len(_END_OF_HEAD)
    return sum(map(len, answer[1:])) if answer else 0


def _short(text: str, most: int = TEXT_CHARS_MAX) -> str:
    """Cut a text, and write what is no print as an escape: a caller must not make up lines."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    if cut.isprintable():
        return cut
    escaped = "".join(each if each.isprintable() else _escape(each) for each in cut)
    return escaped if len(escaped) <= most else escaped[: most - 1] + "…"


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
