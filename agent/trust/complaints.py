"""Whether a complaint about a repository is news: the same one is told once until all is well."""

from agent.errors import Distrust, TrustError


class Complaints:
    """Remembers what a repository was blamed for."""

    def __init__(self) -> None:
        self._known: set[Distrust] = set()

    def is_new(self, error: TrustError) -> bool:
        """Tell whether nobody was told of this reason yet, and remember it.

        Args:
            error: The complaint.
        """
        if error.reason in self._known:
            return False
        self._known.add(error.reason)
        return True

    def settle(self) -> bool:
        """All is well again: forget; tell whether there was something to forget."""
        had_any = bool(self._known)
        self._known.clear()
        return had_any
