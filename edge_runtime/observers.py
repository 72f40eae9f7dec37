"""What looks at answers in this daemon: the journal, if the owner wants one.

A daemon that keeps no predictions does not import what keeps them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.inference import Inference
from edge_runtime.locations import PREDICTIONS_NAME
from edge_runtime.metrics import ServerStatistics
from edge_runtime.settings import Config, Model

if TYPE_CHECKING:
    from edge_runtime.observation.journal_writer import JournalWriter
    from edge_runtime.observation.prediction_journal import PredictionJournal


class Observers:
    """Puts observers before the answers of an engine, as the settings say.

    Args:
        state: The state directory.
        statistics: Counts what is not kept.
    """

    def __init__(self, state: Path, statistics: ServerStatistics) -> None:
        self._state = state
        self._statistics = statistics
        self._writer: JournalWriter | None = None
        self._journal: PredictionJournal | None = None

    def check(self, settings: Config) -> Mapping[str, Any]:
        """Load the owner's functions, and refuse what cannot be used.

        Returns:
            Functions that may change or drop a record, by model.

        Raises:
            ConfigError: There is no such function, or no such key.
        """
        kept = _kept(settings)
        if not kept:
            return {}
        from edge_runtime.observation.prediction_journal import (  # noqa: PLC0415 - imports SQLite
            load_redaction,
            read_key,
        )

        if self._writer is None:
            read_key(settings.journal)
        return {
            name: load_redaction(name, model.journal.redact)
            for name, model in kept.items()
            if model.journal.redact
        }

    def take(self, settings: Config, inference: Inference, redact: Mapping[str, Any]) -> None:
        """Take settings that were checked, at the start and whenever they change."""
        kept = {name: model.journal for name, model in _kept(settings).items()}
        if not kept and self._journal is None:
            return
        journal = self._journal or self._made(settings)
        self._journal = journal
        others = tuple(each for each in inference.observers if each is not journal)
        inference.observers = others
        if journal.configure(kept, redact):
            inference.observers = (*others, journal)

    def close(self, timeout_s: float) -> bool:
        """Write what waits; whether that ended in time."""
        return self._writer is None or self._writer.close(timeout_s)

    def _made(self, settings: Config) -> "PredictionJournal":
        from edge_runtime.observation.journal_writer import JournalWriter  # noqa: PLC0415
        from edge_runtime.observation.prediction_journal import (  # noqa: PLC0415
            PredictionJournal,
            read_key,
        )

        self._writer = JournalWriter(
            self._state / PREDICTIONS_NAME,
            key=read_key(settings.journal),
            queue_bytes=settings.journal.queue_bytes,
            statistics=self._statistics,
        )
        return PredictionJournal(self._writer, settings.journal.record_bytes)


def _kept(settings: Config) -> Mapping[str, Model]:
    return {name: model for name, model in settings.models.items() if model.journal.is_on}
