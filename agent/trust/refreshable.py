"""What can be looked at for something new: a repository, or an import that is laid out."""

from typing import Protocol

from agent.trust.repository import Refreshed


class Refreshable(Protocol):
    """Believes what is new somewhere, if it can be believed; see ``Repository.refresh``."""

    def refresh(self, announced: bytes | None = None) -> Refreshed:
        """Look, and believe."""
