"""Which of several endpoints gets the next request. Decisions only: no clock, I/O or lock."""

from collections.abc import Sequence
from typing import Final, Literal, Protocol, get_args

from edge_runtime.client.arguments import shares
from edge_runtime.errors import ConfigError

PolicyName = Literal["round_robin", "least_outstanding", "weighted"]

POLICY_DEFAULT: Final[PolicyName] = "least_outstanding"


class Policy(Protocol):
    """Chooses among the endpoints that come into question."""

    def choose(self, candidates: Sequence[int], outstanding: Sequence[int], /) -> int:
        """Choose one.

        Args:
            candidates: Indexes of endpoints, one or more.
            outstanding: Requests under way at every endpoint, by index.
        """


class RoundRobin:
    """Each in turn.

    Args:
        count: Endpoints there are.
        first: Whose turn is the first; processes that begin together should not begin alike.
    """

    def __init__(self, count: int, first: int = 0) -> None:
        self._count = count
        self._next = first % count

    def choose(self, candidates: Sequence[int], _outstanding: Sequence[int], /) -> int:
        """Choose the one whose turn is next."""
        chosen = min(candidates, key=lambda index: (index - self._next) % self._count)
        self._next = chosen + 1
        return chosen


class LeastOutstanding:
    """The one with the fewest requests under way; each in turn among equals.

    A slow or hung endpoint collects requests and so gets no more. One caller at a time sees plain
    ``RoundRobin``.

    Args:
        count: Endpoints there are.
        first: Whose turn is the first among equals.
    """

    def __init__(self, count: int, first: int = 0) -> None:
        self._turns = RoundRobin(count, first)

    def choose(self, candidates: Sequence[int], outstanding: Sequence[int], /) -> int:
        """Choose one than which no other has less to do."""
        least = min(outstanding[index] for index in candidates)
        idlest = [index for index in candidates if outstanding[index] == least]
        return self._turns.choose(idlest, outstanding)


class Weighted:
    """In proportion to weights, spread evenly: nginx's smooth weighted round robin.

    With weights 3 and 1 the order is 0, 0, 1, 0 and again: never three in a row but at the seam.

    Args:
        weights: Share of each endpoint, above 0; only their proportions matter.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self._weights = tuple(weights)
        self._credits = [0.0] * len(weights)

    def choose(self, candidates: Sequence[int], _outstanding: Sequence[int], /) -> int:
        """Choose the one that is furthest behind its share."""
        total = 0.0
        for index in candidates:
            weight = self._weights[index]
            self._credits[index] += weight
            total += weight
        chosen = max(candidates, key=lambda index: self._credits[index])
        self._credits[chosen] -= total
        return chosen


def policy_named(
    name: PolicyName, count: int, weights: Sequence[float] | None, first: int = 0
) -> Policy:
    """Make a policy of what the caller of a client said.

    Args:
        name: Its name.
        count: Endpoints there are.
        weights: For ``weighted``, one for each endpoint; else ``None``.
        first: Whose turn is the first, where turns are taken.

    Raises:
        ConfigError: There is no such policy, or the weights do not fit it.
    """
    if name not in get_args(PolicyName):
        known = ", ".join(get_args(PolicyName))
        raise ConfigError(f"there is no policy {name!r}; there are {known}")
    if (name == "weighted") != (weights is not None):
        raise ConfigError(
            f"policy {name!r} and weights {weights!r} do not fit: weights are what policy="
            "'weighted' needs, and no other has a use for them"
        )
    if weights is not None:
        return Weighted(shares("weights", weights, count))
    if name == "round_robin":
        return RoundRobin(count, first)
    return LeastOutstanding(count, first)
