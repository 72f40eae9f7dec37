"""What can be known of the runs that wait, before one more is made."""

from typing import Protocol

from edge_runtime.batching import Lane
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.fairness import User


class Backlog(Protocol):
    """What waits to be executed, as those see it who bring more.

    Attributes:
        is_full: Whether it may be full, so that ``refusal`` is worth a call.
    """

    is_full: bool

    def refusal(self, lane: Lane, client: User) -> EdgeRuntimeError | None:
        """Say what a request would be told if it came now; ``None``: it would be taken."""
        ...


class NoBacklog:
    """Stands for a backlog that never fills."""

    is_full = False

    def refusal(self, lane: Lane, client: User) -> EdgeRuntimeError | None:  # noqa: ARG002
        """Refuse nothing."""
        return None
