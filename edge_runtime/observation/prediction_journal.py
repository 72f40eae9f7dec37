"""Chooses which answers are kept for retraining; an ``observer.Observer`` for all models."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

import numpy as np

from edge_runtime.errors import ConfigError
from edge_runtime.observation.journal_record import KEY_BYTES, Facts
from edge_runtime.observation.journal_writer import Entry, JournalWriter, Redact
from edge_runtime.observation.sketch import best_share
from edge_runtime.routing import LoadedVersion
from edge_runtime.settings.journal import Journal, Kept
from edge_runtime.tensors import Array

_MS: Final = 1000


class PredictionJournal:
    """Looks at answers, and has some kept.

    Args:
        writer: Keeps them.
        record_bytes: Largest answer, inputs with it, that is kept.
        clock: Seconds of a clock that only goes forward.
        wall: Seconds since the epoch.
        chance: Gives a number from 0 to 1.
    """

    def __init__(
        self,
        writer: JournalWriter,
        record_bytes: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._writer = writer
        self._record_bytes = record_bytes
        self._clock = clock
        self._wall = wall
        self._chance = chance
        self._kept: dict[str, Kept] = {}
        self._due_s: dict[str, float] = {}

    def configure(self, models: Mapping[str, Kept], redact: Mapping[str, Redact]) -> bool:
        """Take the settings of each model.

        Returns:
            Whether any is to be kept at all.
        """
        self._kept = {name: kept for name, kept in models.items() if kept.is_on}
        self._writer.configure(self._kept, redact)
        return bool(self._kept)

    def wants(self, loaded: LoadedVersion) -> bool:
        """Tell whether to look at the answer that a version is about to give."""
        kept = self._kept.get(loaded.name)
        return kept is not None and self._clock() >= self._due_s.get(loaded.name, 0.0)

    def answered(
        self,
        loaded: LoadedVersion,
        feeds: Mapping[str, Array],
        names: Sequence[str],
        outputs: Sequence[Array],
    ) -> None:
        """Keep an answer, if chance or its low score says so."""
        kept = self._kept[loaded.name]
        is_unsure = kept.inputs_below > 0 and _is_below(outputs, kept.inputs_below)
        if not is_unsure and self._chance() >= kept.share:
            return
        with_inputs = is_unsure or self._chance() < kept.inputs_share
        size = sum(each.nbytes for each in outputs)
        inputs: Mapping[str, Array] = {}
        if with_inputs:
            size += sum(each.nbytes for each in feeds.values())
            inputs = feeds
        if size > self._record_bytes:
            return
        self._due_s[loaded.name] = self._clock() + 1 / kept.per_s_max
        reason = "low-confidence" if is_unsure else "inputs" if with_inputs else "share"
        at_ms = int(self._wall() * _MS)
        facts = Facts(loaded.name, loaded.version, loaded.digest, at_ms, reason)
        self._writer.put(
            Entry(
                facts,
                {name: np.array(array, order="C") for name, array in inputs.items()},
                {
                    name: np.array(each, order="C")
                    for name, each in zip(names, outputs, strict=True)
                },
                size,
            )
        )


def read_key(settings: Journal) -> bytes | None:
    """Read the key that encrypts records; ``None``: they are not encrypted.

    Raises:
        ConfigError: The file cannot be read, or holds no key.
    """
    if not settings.key_file:
        return None
    try:
        key = bytes.fromhex(Path(settings.key_file).read_text("ascii").strip())
    except (OSError, ValueError) as error:
        raise ConfigError(f"journal.key_file: cannot read {settings.key_file}: {error}") from error
    if len(key) != KEY_BYTES:
        raise ConfigError(
            f"journal.key_file: {settings.key_file} holds {len(key)} bytes, not {KEY_BYTES}; make "
            "one with `openssl rand -hex 32`"
        )
    return key


def load_redaction(model: str, named: str) -> Redact:
    """Import an owner's function.

    Raises:
        ConfigError: There is no such function.
    """
    module, _, function = named.partition(":")
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"models.{model}.journal.redact: {named!r} is no `module:function`: {error}"
        ) from error
    if not callable(found):
        raise ConfigError(f"models.{model}.journal.redact: {named!r} cannot be called")
    redact: Redact = found
    return redact


def _is_below(outputs: Sequence[Array], score: float) -> bool:
    """Tell whether the best class of any row has a score below one."""
    return any((share := best_share(each)) is not None and share < score for each in outputs)
