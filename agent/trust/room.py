"""How many bytes of metadata may still come: a budget bounds them, whatever a server sends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent.errors import BudgetError, TooLargeError

Room = Callable[[], int | None]
"""Says how many more bytes may come; ``None``: any number."""


def unlimited() -> None:
    """Say that any number of bytes may come."""


@contextmanager
def bounded(room: Room, limit_bytes: int) -> Iterator[int]:
    """Give the most bytes that a file may have for the length of a block that fetches it.

    Args:
        room: What the budget says.
        limit_bytes: What the file may have at most, budget or not.

    Raises:
        BudgetError: There is no room, or not enough for this file.
        TooLargeError: The file is larger than it may be.
    """
    found = room()
    limit = limit_bytes if found is None else min(limit_bytes, max(0, found))
    spent = BudgetError(
        "this month's byte budget of this link is spent, with what is kept back for looking at "
        "the repository: it is not looked at before next month; raise the limit in [downloads], "
        "or use another link"
    )
    if limit == 0 < limit_bytes:
        raise spent
    try:
        yield limit
    except TooLargeError as error:
        if limit < limit_bytes:
            raise spent from error
        raise
