"""The log on standard error: one line a record, readable or JSON. No tensor data, ever.

Before the daemon runs, records are written at once. From then on all of them go through one bounded
queue to one thread: whoever logs never touches the stream, which blocks when nobody reads it.
"""

import contextlib
import copy
import json
import logging
import os
import queue
import select
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from logging.handlers import QueueHandler
from threading import Thread
from time import monotonic
from typing import Any, Final

from edge_runtime.settings import Log

QUEUED_MAX: Final = 1024  # records of requests that wait to be written
RESERVED: Final = 128  # places beside those, for what requests must not crowd out
CLOSE_S: Final = 5.0  # for a reader that is there and slow; one that reads nothing costs as much
_TEXT: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_TEXT_JOURNAL: Final = "%(name)s: %(message)s"  # the journal knows when, and how bad
#: syslog's numbers, as sd-daemon(3) wants them in front of a line.
_PRIORITY: Final = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}


def fields_of(record: logging.LogRecord) -> Mapping[str, Any]:
    """Give what a record says in fields beside its sentence; the log of requests sets them."""
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return fields


class TextFormatter(logging.Formatter):
    """For people: the sentence, then ``key=value``, quoted where that is needed."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base's name
        """Render a record without its exception."""
        pairs = [f"{key}={_plain(value)}" for key, value in fields_of(record).items()]
        return " ".join([super().formatMessage(record), *pairs])


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time`` (RFC 3339, UTC), ``level``, ``logger``, ``message``."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a record."""
        entry = {
            "time": datetime.fromtimestamp(record.created, tz=UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        exception = record.exc_text or (
            self.formatException(record.exc_info) if record.exc_info else ""
        )
        if exception:
            entry["exception"] = exception
        return json.dumps(entry, ensure_ascii=False)


class JournalFormatter(logging.Formatter):
    """Puts syslog's priority in front of every line; systemd takes it off again.

    Args:
        inner: Renders the record.

    Source:
        sd-daemon(3); ``SyslogLevelPrefix=`` is on by default.
    """

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Render a record."""
        prefix = f"<{_PRIORITY.get(record.levelno, _PRIORITY[logging.INFO])}>"
        lines = self._inner.format(record).split("\n")
        return "\n".join(f"{prefix}{line}" for line in lines)


class RecordQueue(QueueHandler):
    """The one handler of a running daemon: takes every record, and writes them on its thread.

    The thread writes to the descriptor itself. Were it to block in ``sys.stderr``, it would hold a
    lock that the interpreter wants at its end.

    Args:
        descriptor: Where to write.
        settings: How.
        most: Records of requests that may wait.

    Attributes:
        settings: How it writes now.
        lost: Called, on any thread, for each record that came through a logger and had no place.
    """

    def __init__(self, descriptor: int, settings: Log, most: int = QUEUED_MAX) -> None:
        self._waiting: queue.Queue[logging.LogRecord | None] = queue.Queue(most + RESERVED)
        super().__init__(self._waiting)
        self.lost: Callable[[], None] = lambda: None
        self._most = most
        self._descriptor = descriptor
        self.settings = settings
        self._thread = Thread(target=self._write_all, name="log", daemon=True)
        self.setFormatter(formatter(settings, in_journal=is_journal(descriptor)))

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def configure(self, settings: Log) -> None:
        """Take settings that may have changed; what waits is already written in the new format."""
        self.settings = settings
        self.setFormatter(formatter(settings, in_journal=is_journal(self._descriptor)))
        logging.getLogger().setLevel(settings.level.upper())

    def put(self, record: logging.LogRecord) -> bool:
        """Have the record of a request written soon.

        Returns:
            ``False`` if too many wait already, and it is not.
        """
        return self._waiting.qsize() < self._most and self._put(record)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Make a record that refers to nothing which changes, or which should be freed."""
        made = copy.copy(record)
        try:
            made.msg, made.args = record.getMessage(), None
            if record.exc_info and not record.exc_text:
                made.exc_text = logging.Formatter().formatException(record.exc_info)
        except Exception:  # noqa: BLE001 - the thread finds out too, and may write what is wrong
            return record
        made.exc_info = None
        return made

    def enqueue(self, record: logging.LogRecord) -> None:
        """Take a record of a logger's, if there is a place."""
        if not self._put(record):
            self.lost()

    def finish(self, within_s: float = CLOSE_S) -> bool:
        """Write what waits, as far as that takes no longer than ``within_s`` seconds.

        Returns:
            Whether that was enough.
        """
        until = monotonic() + within_s
        try:
            self._waiting.put(None, timeout=within_s)
        except queue.Full:
            return False
        self._thread.join(max(0.0, until - monotonic()))
        return not self._thread.is_alive()

    def _put(self, record: logging.LogRecord) -> bool:
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            return False
        return True

    def _write_all(self) -> None:
        while (record := self._waiting.get()) is not None:
            try:
                text = self.format(record)
            except Exception:  # noqa: BLE001 - whatever is wrong with it, others wait
                place = f"{record.name}, {record.pathname}:{record.lineno}"
                text = f"{traceback.format_exc()}in a record of {place}"
            _write(self._descriptor, f"{text}\n".encode("utf-8", "backslashreplace"))


def _write(descriptor: int, data: bytes) -> None:
    """Write all of it, however long that takes; or nothing more, if nobody can read it."""
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:  # whoever opened it did not want to wait; this thread may
            ready = select.poll()
            ready.register(descriptor, select.POLLOUT)
            ready.poll()
        except OSError:
            return


def configure(settings: Log) -> None:
    """Write the root logger's records to standard error, each at once."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(settings, in_journal=is_journal(sys.stderr.fileno())))
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)


@contextlib.contextmanager
def queued(settings: Log) -> Iterator[RecordQueue]:
    """Write the root logger's records on a thread for the length of a block, then at once again.

    At the end what waits is written; if nobody reads it, it and all that follows is dropped.
    """
    records = RecordQueue(sys.stderr.fileno(), settings)
    records.start()
    logging.basicConfig(level=settings.level.upper(), handlers=[records], force=True)
    try:
        yield records
    finally:
        if records.finish():
            configure(records.settings)


def formatter(settings: Log, *, in_journal: bool) -> logging.Formatter:
    """Make what renders records.

    Args:
        settings: The format asked for.
        in_journal: Whether systemd's journal reads the lines.
    """
    inner: logging.Formatter
    if settings.format == "json":
        inner = JsonFormatter()
    else:
        inner = TextFormatter(_TEXT_JOURNAL if in_journal else _TEXT)
    return JournalFormatter(inner) if in_journal else inner


def is_journal(descriptor: int, environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether the journal reads what is written to a descriptor.

    Source:
        systemd.exec(5), ``$JOURNAL_STREAM``: its device and inode, both decimal.
    """
    stream = environment.get("JOURNAL_STREAM", "")
    if not stream:
        return False
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"


def _plain(value: Any) -> str:  # noqa: ANN401 - a field's value
    """Write a value so that a line stays one line and says where the value ends."""
    text = str(value)
    if text and text.isprintable() and not any(letter in text for letter in ' "='):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())
