"""What looks at answers in this daemon: the journal, if the owner wants one."""

from collections.abc import Mapping
from pathlib import Path

from edge_runtime.inference import Inference
from edge_runtime.observation.journal_file import NAME
from edge_runtime.observation.journal_writer import JournalWriter, Redact
from edge_runtime.observation.prediction_journal import (
    PredictionJournal,
    is_kept,
    load_redaction,
    read_key,
)
from edge_runtime.settings import Config, Model


class Observers:
    """Puts observers before the answers of an engine, as the settings say.

    Args:
        state: The state directory.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._writer: JournalWriter | None = None
        self._journal: PredictionJournal | None = None

    def check(self, settings: Config) -> Mapping[str, Redact]:
        """Load the owner's functions, and refuse what cannot be used.

        Raises:
            ConfigError: There is no such function, or no such key.
        """
        if self._writer is None:
            read_key(settings.journal)
        return {
            name: load_redaction(name, model.journal.redact)
            for name, model in _kept(settings).items()
            if model.journal.redact
        }

    def take(self, settings: Config, inference: Inference, redact: Mapping[str, Redact]) -> None:
        """Take settings that were checked, at the start and whenever they change."""
        kept = {name: model.journal for name, model in _kept(settings).items()}
        if self._journal is None:
            if not kept:
                return
            self._writer = JournalWriter(
                self._state / NAME,
                key=read_key(settings.journal),
                queue_bytes=settings.journal.queue_bytes,
            )
            self._journal = PredictionJournal(self._writer, settings.journal.record_bytes)
        others = tuple(each for each in inference.observers if each is not self._journal)
        inference.observers = others
        if self._journal.configure(kept, redact):
            inference.observers = (*others, self._journal)

    def close(self, timeout_s: float) -> bool:
        """Write what waits; whether that ended in time."""
        return self._writer is None or self._writer.close(timeout_s)


def _kept(settings: Config) -> Mapping[str, Model]:
    return {name: model for name, model in settings.models.items() if is_kept(model.journal)}
