"""The log on standard error: one line a record, readable or JSON. No tensor data, ever.

What the daemon says of itself is written at once. Records of requests go through a bounded queue
and a thread of their own, so that a log that is read slowly holds nobody up.
"""

import json
import logging
import os
import queue
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from threading import Thread
from typing import Any, Final

from edge_runtime.settings import Log

QUEUED_MAX: Final = 1024  # records of requests that wait to be written
CLOSE_S: Final = 1.0
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
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
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


class RecordQueue:
    """Hands records to their loggers on a thread of its own, started with the first one.

    Args:
        most: Records that may wait.
    """

    def __init__(self, most: int = QUEUED_MAX) -> None:
        self._queue: queue.Queue[logging.LogRecord | None] = queue.Queue(most)
        self._thread: Thread | None = None

    def put(self, record: logging.LogRecord) -> bool:
        """Have a record written soon; ``False`` if too many wait already, and it is not."""
        if self._thread is None:
            # A daemon: whoever does not read our standard error must not keep us from ending.
            self._thread = Thread(target=self._write, name="request-log", daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            return False
        return True

    def close(self, within_s: float = CLOSE_S) -> None:
        """Write what waits, as far as that takes no longer than ``within_s`` seconds."""
        if self._thread is None:
            return
        try:
            self._queue.put(None, timeout=within_s)
        except queue.Full:
            return
        self._thread.join(within_s)

    def _write(self) -> None:
        while (record := self._queue.get()) is not None:
            logging.getLogger(record.name).handle(record)


def configure(settings: Log) -> None:
    """Write the root logger's records to standard error as the configuration says."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(settings, in_journal=is_journal(sys.stderr.fileno())))
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)


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
