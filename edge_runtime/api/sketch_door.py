"""How outputs spread, on the admin door; nothing is counted before somebody asks for it."""

from edge_runtime.api.exchange import Exchange
from edge_runtime.api.handlers import Handlers, Names
from edge_runtime.observation.drift import Drift
from edge_runtime.protocol.sketch_schemas import Sketches


class SketchDoor:
    """What the route of sketches calls.

    Args:
        handlers: Know what answers.
    """

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers
        self._drift: Drift | None = None

    def sketches(self, exchange: Exchange, _: Names) -> None:
        """Tell what was counted since somebody asked first."""
        if self._drift is None:
            self._drift = Drift()
            self._handlers.inference.observers += (self._drift,)
        exchange.json(Sketches(versions=list(self._drift.told())))
