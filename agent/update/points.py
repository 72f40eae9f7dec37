"""Failpoints of updates, as the errors that the disk would give."""

from agent.errors import StateError
from edge_runtime.failpoints import failpoint


def passed(name: str) -> None:
    """Mark a place where a test may make the agent fail.

    Args:
        name: Of ``edge_runtime.failpoints.NAMES``.

    Raises:
        StateError: A test asked for an error.
    """
    try:
        failpoint(name)
    except OSError as error:
        raise StateError(str(error)) from error
