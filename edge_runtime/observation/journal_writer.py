"""Writes the journal on a thread of its own, in batches, and asleep while there is nothing.

Nothing here fails a prediction. What cannot be written is dropped and counted.
"""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from edge_runtime.errors import ArtifactError, EdgeRuntimeError, StorageError
from edge_runtime.metrics import ServerStatistics
from edge_runtime.observation.journal_file import JournalFile
from edge_runtime.observation.journal_record import Facts, Tensors, encode, encrypt
from edge_runtime.settings.journal import Kept

_log = logging.getLogger(__name__)

GATHER_S: Final = 1.0
"""How long rows are gathered for one transaction: flash wears by transactions."""
PAUSE_S: Final = 30.0  # after the disk refused
_MS: Final = 1000
_ASIDE: Final = ".damaged"

Redact = Callable[[dict[str, object], dict[str, object]], object]
"""An owner's function: inputs and outputs by name to both, changed or not, or to ``None``."""


class Entry(NamedTuple):
    """One prediction on its way to the file.

    Attributes:
        facts: What its row says in the open.
        inputs: Copies of its inputs; none are kept where it is empty.
        outputs: Its outputs.
        size: Bytes of the arrays.
    """

    facts: Facts
    inputs: Tensors
    outputs: Tensors
    size: int


class JournalWriter:
    """Takes entries from the loop's thread and writes them on its own.

    Args:
        path: The file.
        key: Encrypts records; ``None``: they are not.
        queue_bytes: Entries that may wait.
        statistics: Counts what is not kept.
    """

    def __init__(
        self, path: Path, *, key: bytes | None, queue_bytes: int, statistics: ServerStatistics
    ) -> None:
        self._path = path
        self._key = key
        self._room = queue_bytes
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # of _room, which two threads change
        self._kept: Mapping[str, Kept] = {}
        self._redact: Mapping[str, Redact] = {}
        self._file: JournalFile | None = None
        self._thread: threading.Thread | None = None
        self._retry_s = 0.0
        self._statistics = statistics

    def configure(self, kept: Mapping[str, Kept], redact: Mapping[str, Redact]) -> None:
        """Take the settings of each model, now and whenever they change."""
        self._kept, self._redact = kept, redact

    def put(self, entry: Entry) -> None:
        """Have an entry written; never waits."""
        with self._lock:
            if entry.size > self._room:
                self._statistics.predictions_lost += 1
                return
            self._room -= entry.size
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="prediction-journal")
            self._thread.start()
        self._queue.put(entry)

    def close(self, timeout_s: float) -> bool:
        """Write what waits, and end the thread; whether it ended in time."""
        thread = self._thread
        if thread is None:
            return True
        self._queue.put(None)
        thread.join(timeout_s)
        return not thread.is_alive()

    # -- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        is_last = False
        while not is_last:
            entries, is_last = self._gathered()
            try:
                self._write(entries)
            except Exception:  # noqa: BLE001 - logged; the thread must go on
                _log.exception("the journal failed in a way nobody foresaw")
                self._statistics.predictions_lost += len(entries)
            with self._lock:
                self._room += sum(entry.size for entry in entries)
        if self._file is not None:
            self._file.close()

    def _gathered(self) -> tuple[list[Entry], bool]:
        """Wait for an entry, then for those that follow soon."""
        first = self._queue.get()
        if first is None:
            return [], True
        entries, end_s = [first], time.monotonic() + GATHER_S
        while (left_s := end_s - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                entry = self._queue.get(timeout=left_s)
                if entry is None:
                    return entries, True
                entries.append(entry)
        return entries, False

    def _write(self, entries: list[Entry]) -> None:
        rows = [row for entry in entries if (row := self._row(entry)) is not None]
        if not rows:
            return
        if time.monotonic() < self._retry_s:
            self._statistics.predictions_lost += len(rows)
            return
        try:
            file = self._file = self._file or self._opened()
            file.append(rows)
            now_ms = int(time.time() * _MS)
            for model in {facts.model for facts, _, _ in rows}:
                kept = self._kept.get(model, Kept())
                before_ms = now_ms - int(kept.retention_s * _MS)
                file.trim(model, max_bytes=kept.max_bytes, before_ms=before_ms)
        except EdgeRuntimeError as error:
            self._statistics.predictions_lost += len(rows)
            self._retry_s = time.monotonic() + PAUSE_S
            if self._file is not None:
                self._file.close()
                self._file = None
            _log.warning("predictions are not kept for %g s: %s", PAUSE_S, error.message)

    def _opened(self) -> JournalFile:
        try:
            if self._path.exists():
                try:
                    return JournalFile.open(self._path)
                except ArtifactError as error:
                    aside = self._path.with_name(self._path.name + _ASIDE)
                    _log.error("%s; it is set aside as %s", error.message, aside.name)
                    self._path.replace(aside)
        except OSError as error:
            raise StorageError(f"cannot open the journal {self._path}: {error}") from error
        return JournalFile.create(self._path)

    def _row(self, entry: Entry) -> tuple[Facts, bool, bytes] | None:
        inputs, outputs = entry.inputs, entry.outputs
        redact = self._redact.get(entry.facts.model)
        if redact is not None:
            try:
                result = redact(dict(inputs), dict(outputs))
                if result is None:
                    self._statistics.predictions_redacted += 1
                    return None
                inputs, outputs = result  # type: ignore[misc]  # the owner's function; below: is it?
                record = encode(inputs, outputs)
            except Exception:  # noqa: BLE001 - somebody else's code; what it missed must not be kept
                if not self._statistics.predictions_redacted:
                    _log.exception(
                        "the function of models.%s.journal.redact failed", entry.facts.model
                    )
                self._statistics.predictions_redacted += 1
                return None
        else:
            record = encode(inputs, outputs)
        if self._key is not None:
            record = encrypt(record, self._key, entry.facts)
        return entry.facts, self._key is not None, record
