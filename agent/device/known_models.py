"""How the models of this device do, as the runtime said last: kept while it is away, over restarts.

A device whose daemon is away still has its models. To say that it has none would be a lie, and to
say nothing would leave an older one standing.
"""

import contextlib
import logging
from pathlib import Path
from typing import Final

import msgspec

from agent.durable_file import replace_file
from agent.errors import StateError
from agent.messages import Slots

_log = logging.getLogger(__name__)

FILE: Final = "models.json"


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the models.

    Attributes:
        models: By their name.
        known_s: When they were so, in seconds since 1970; ``None``: nothing was ever known.
        is_away: Whether the runtime does not answer now.
    """

    models: dict[str, Slots] = {}
    known_s: float | None = None
    is_away: bool = False


class KnownModels:
    """A file that is written when versions change, which is rare: not when one leaves memory.

    Args:
        state: The agent's folder.
    """

    def __init__(self, state: Path) -> None:
        self._path = state / FILE
        self._known = Known()
        with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeError, RecursionError):
            self._known = msgspec.json.decode(self._path.read_bytes(), type=Known)

    def answered(self, models: dict[str, Slots], at_s: float) -> Known:
        """Take what the runtime says now.

        Args:
            models: By their name.
            at_s: Seconds since 1970.
        """
        is_news = _lasting(models) != _lasting(self._known.models)
        self._known = Known(models=models, known_s=at_s)
        if is_news:
            try:
                replace_file(self._path, msgspec.json.encode(self._known))
            except StateError as error:
                _log.warning("how models do is forgotten at the next start: %s", error.message)
        return self._known

    def away(self) -> Known:
        """Give what was known last: the runtime does not answer."""
        return msgspec.structs.replace(self._known, is_away=True)


def _lasting(models: dict[str, Slots]) -> dict[str, Slots]:
    """Leave out what changes whenever memory is short: flash wears."""
    return {name: msgspec.structs.replace(each, active_digest="") for name, each in models.items()}
