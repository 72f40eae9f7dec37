"""Whether a request that failed may be sent again, how soon, and how often. No clock or I/O."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Literal, get_args

from edge_runtime.client.arguments import check_share, check_whole
from edge_runtime.errors import (
    ConfigError,
    DeadlineExceededError,
    EdgeRuntimeError,
    ProtocolError,
    TransportError,
    UnavailableError,
)

Retry = Literal["never", "unsent", "at_least_once"]

RETRY_DEFAULT: Final[Retry] = "unsent"
RETRIES_DEFAULT: Final = 2
BUDGET_DEFAULT: Final = 0.2  # what Finagle allows

_PAUSE_FIRST_S: Final = 0.025
_PAUSE_MOST_S: Final = 1.0


class Outcome(Enum):
    """What an attempt's failure means for the request."""

    ANSWERED = auto()
    """The answer is what it is; another attempt would bring the same one."""
    UNSENT = auto()
    """No byte of it left."""
    REFUSED = auto()
    """The server said 503: it did not run it."""
    MAY_HAVE_RUN = auto()
    """It was sent, and nobody knows."""
    OVERDUE = auto()
    """The call's own time is over."""


class Step(Enum):
    """What comes after a failed attempt."""

    GIVE_UP = auto()
    ELSEWHERE = auto()
    """Another endpoint at once: this attempt has cost nobody anything."""
    PAUSE = auto()
    """Again after a pause."""
    PAUSE_AND_PAY = auto()
    """Again after a pause, if the retry budget has a token left."""


@dataclass(frozen=True, slots=True)
class Retrying:
    """What the caller of a client allows.

    Attributes:
        retry: ``never``: one attempt. ``unsent``: again what certainly did not run.
            ``at_least_once``: also what may have run.
        retries: Most retries of one call; going elsewhere with what was not sent is none.
        budget: Retries as a share of the calls.

    Raises:
        ConfigError: There is no such policy, or a number is out of range.
    """

    retry: Retry = RETRY_DEFAULT
    retries: int = RETRIES_DEFAULT
    budget: float = BUDGET_DEFAULT

    def __post_init__(self) -> None:
        if self.retry not in get_args(Retry):
            known = ", ".join(get_args(Retry))
            raise ConfigError(f"there is no retry {self.retry!r}; there are {known}")
        check_whole("retries", self.retries, least=0)
        check_share("retry_budget", self.budget)


def outcome_of(error: EdgeRuntimeError) -> Outcome:
    """Tell what the error of an attempt means.

    Args:
        error: What a call to one endpoint raised.
    """
    match error:
        case DeadlineExceededError():
            return Outcome.OVERDUE
        case TransportError(retry_after_s=None, request_sent=sent):
            return Outcome.MAY_HAVE_RUN if sent else Outcome.UNSENT
        case UnavailableError():
            return Outcome.REFUSED
        case ProtocolError():  # whoever that was, it is not the daemon
            return Outcome.MAY_HAVE_RUN
        case _:
            return Outcome.ANSWERED


def step_after(outcome: Outcome, retry: Retry, *, untried: bool, healthy_untried: bool) -> Step:
    """Decide what comes after a failed attempt.

    Args:
        outcome: What the failure means.
        retry: What the caller allows.
        untried: Whether the call has not been to every endpoint yet.
        healthy_untried: Whether one of those is not ejected.
    """
    if retry == "never":
        return Step.GIVE_UP
    match outcome:
        case Outcome.UNSENT:
            return Step.ELSEWHERE if untried else Step.PAUSE
        case Outcome.REFUSED:  # when all are busy, the caller had better know it at once
            return Step.PAUSE_AND_PAY if healthy_untried else Step.GIVE_UP
        case Outcome.MAY_HAVE_RUN:
            return Step.PAUSE_AND_PAY if retry == "at_least_once" else Step.GIVE_UP
        case Outcome.ANSWERED | Outcome.OVERDUE:
            return Step.GIVE_UP


def pause_s(retries: int, jitter: float) -> float:
    """Give the pause before a retry: exponential backoff with full jitter.

    Args:
        retries: Retries that the call has had.
        jitter: A random number of [0, 1).

    Returns:
        Seconds, from 0 to a limit that doubles with every retry.
    """
    return jitter * min(_PAUSE_MOST_S, _PAUSE_FIRST_S * 2.0 ** min(retries, 64))


class Budget:
    """A token bucket: retries stay a share of the calls, so that they cannot multiply load.

    Args:
        share: Tokens that each call brings, 0 to 1.
        reserve: Tokens that it holds at most, and has at the beginning.
    """

    __slots__ = ("_reserve", "_share", "_tokens")

    def __init__(self, share: float, reserve: int) -> None:
        self._share = share
        self._reserve = float(reserve) if share else 0.0
        self._tokens = self._reserve

    def deposit(self) -> None:
        """Take what one call brings."""
        self._tokens = min(self._reserve, self._tokens + self._share)

    def withdraw(self) -> bool:
        """Pay for one retry, if there is a token."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
