"""Who gives way where there is no room for one more: whoever holds the most."""

from collections.abc import Mapping

#: A user's number, or ``None``: all callers of whom nobody knows who they are.
User = int | None


def greediest(held: Mapping[User, int], newcomer: User) -> User | None:
    """Find who gives one of theirs to a newcomer.

    Args:
        held: How many each user holds; of users who hold none nothing need be said.
        newcomer: Who wants one more.

    Returns:
        The user who holds the most, if that is more than the newcomer would hold; else the
        newcomer, who is to be refused: a place that changed hands would change back.
    """
    most = max(held, key=lambda user: held[user], default=newcomer)
    return most if held.get(most, 0) > held.get(newcomer, 0) + 1 else newcomer
