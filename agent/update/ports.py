"""What the update machine needs of the rest of the agent; composition gives it."""

import threading
from pathlib import Path
from typing import Protocol

from agent.errors import AgentError
from agent.messages import JobStatus
from agent.plan.decision import Decision
from agent.records.updates import Update
from agent.update.standing import Standing


class StoppedError(AgentError):
    """A download was asked to stop and did; what it has is kept."""


class LostError(AgentError):
    """What was downloaded is not there any more, or not right."""


class Downloads(Protocol):
    """Brings what the runtime lacks of a release."""

    def fetch(self, update: Update, cancelled: threading.Event) -> None:
        """Download and verify everything that is needed; doing it twice costs nothing.

        Args:
            update: What for.
            cancelled: Set: stop soon, and keep what there is.

        Raises:
            StoppedError: It was.
            NetworkError: Later it may work.
            RefusedError: A server says that there is no such thing.
            BudgetError: The bytes of the month or of the rollout are spent.
            TrustError: What came is not what was signed.
            StateError: The disk is full or fails.
            RuntimeAwayError: Nobody says what the runtime lacks.
            RuntimeRefusedError: The runtime does not want it at all.
        """
        ...

    def is_whole(self, update: Update) -> bool:
        """Tell whether everything that was fetched is still there; reads names, not bytes.

        Raises:
            StateError: The disk fails.
        """
        ...

    def bundle(self, update: Update) -> Path:
        """Give the folder for the hand-over; doing it twice gives the same.

        Raises:
            LostError: A file of it is missing or damaged.
            StateError: The disk is full or fails.
        """
        ...

    def forget(self, update: Update) -> None:
        """Let go of what lies there for an update that is over."""
        ...


class Device(Protocol):
    """The runtime of this device. Every call raises ``RuntimeAwayError`` when it is away."""

    def standing(self, model: str) -> Standing:
        """Say how a model does; an unknown one has nothing."""
        ...

    def stage(self, update: Update, folder: Path) -> None:
        """Hand a release over.

        Raises:
            RuntimeRefusedError: It does not take it.
        """
        ...

    def revert(self, update: Update) -> None:
        """Order the way back from a version.

        Raises:
            RuntimeRefusedError: It does not go back.
        """
        ...

    def abort(self, update: Update, reason: str) -> None:
        """Order it to let go of a release that this update's rollout brought.

        Raises:
            RuntimeRefusedError: It has none, or another's.
        """
        ...


class Reports(Protocol):
    """The way to the fleet."""

    def job(self, status: JobStatus) -> None:
        """Store a status until the fleet has it.

        Raises:
            StateError: The disk is full or fails: say it again later.
        """
        ...


class Plans(Protocol):
    """The plan, looked at once more with what is known now."""

    def look(self, update: Update) -> Decision | None:
        """Decide about the present plan of an update's model; ``None``: there is none.

        Raises:
            RuntimeAwayError: What runs here is not known now.
            TrustError: What was signed contradicts itself.
            StateError: The disk fails.
        """
        ...
