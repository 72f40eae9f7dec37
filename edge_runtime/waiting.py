"""Requests that wait for a version to be in memory: bounded, and fair between users.

Within the bound they are answered in the order in which they came. Where no more may wait, the
newest of the user who has the most waiting gives way to one of a user who has fewer.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from edge_runtime.errors import EdgeRuntimeError, OverloadedError, UnavailableError
from edge_runtime.fairness import User, greediest

_log = logging.getLogger(__name__)

_RETRY_AFTER_S: Final = 1

Resume = Callable[[EdgeRuntimeError | None], None]
IsCancelled = Callable[[], bool]


@dataclass(frozen=True, slots=True, eq=False)
class Waiter:
    """One request.

    Attributes:
        name: The model it asks for.
        version: The version as the caller wrote it.
        resume: Called once, with ``None`` or with an error.
        is_cancelled: Whether nobody waits for the answer any more.
        since_s: When it began to wait.
        user: Who asks.
    """

    name: str
    version: str
    resume: Resume
    is_cancelled: IsCancelled
    since_s: float
    user: User = None


class Waiting:
    """The requests that wait.

    Args:
        limit: How many may.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiters: list[Waiter] = []

    def __len__(self) -> int:
        return len(self._waiters)

    def __iter__(self) -> Iterator[Waiter]:
        return iter(self._waiters)

    def add(self, waiter: Waiter) -> None:
        """Let a request wait; where no more may, one of the user with most waiting is refused.

        Raises:
            OverloadedError: Too many wait already, and no user has more waiting than this one.
        """
        if len(self._waiters) >= self._limit:
            self.drop_cancelled()
        gives_way: Waiter | None = None
        if len(self._waiters) >= self._limit:
            gives_way = self._newest_of_greediest(waiter.user)
            if gives_way is None:
                raise self._refusal()
            self._waiters.remove(gives_way)
        self._waiters.append(waiter)
        if gives_way is not None:  # last: its answer may bring the next request here
            _resume(gives_way, self._refusal())

    def _newest_of_greediest(self, newcomer: User) -> Waiter | None:
        user = greediest(Counter(waiter.user for waiter in self._waiters), newcomer)
        if user == newcomer:
            return None
        return next(waiter for waiter in reversed(self._waiters) if waiter.user == user)

    def _refusal(self) -> OverloadedError:
        return OverloadedError(
            f"{self._limit} requests wait for models to be loaded already; try again later",
            retry_after_s=_RETRY_AFTER_S,
        )

    def drop_cancelled(self) -> None:
        """Let go of the requests whose client is gone, or whose time has passed."""
        gone = UnavailableError("nobody waits for this answer any more")
        self.answer(lambda waiter: waiter.is_cancelled(), gone)

    def answer(self, which: Callable[[Waiter], bool], error: EdgeRuntimeError | None) -> None:
        """End the waiting of some requests, in the order in which they came.

        Args:
            which: Says which ones.
            error: Why they have waited in vain; ``None``: the version is there.
        """
        chosen = [waiter for waiter in self._waiters if which(waiter)]
        if not chosen:
            return
        taken = {id(waiter) for waiter in chosen}
        # Taken out first: what is resumed may begin to wait again.
        self._waiters = [waiter for waiter in self._waiters if id(waiter) not in taken]
        for waiter in chosen:
            _resume(waiter, error)


def _resume(waiter: Waiter, error: EdgeRuntimeError | None) -> None:
    try:
        waiter.resume(error)
    except Exception:  # noqa: BLE001 - the others must not suffer
        _log.exception("a request that waited failed in a way nobody foresaw")
