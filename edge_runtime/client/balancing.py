"""The way of calls over several endpoints: who is asked, and what a failure leads to.

Decisions only, for both clients: they do the I/O, read the clock and hold the lock.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from edge_runtime.client.arguments import check_whole
from edge_runtime.client.deadline import Deadline
from edge_runtime.client.ejection import (
    Ejection,
    Health,
    checked,
    failed,
    refused,
    succeeded,
)
from edge_runtime.client.endpoint import Endpoint
from edge_runtime.client.policies import Policy, PolicyName, policy_named
from edge_runtime.client.retrying import (
    Budget,
    Outcome,
    Retry,
    Retrying,
    Step,
    outcome_of,
    pause_s,
    step_after,
)
from edge_runtime.errors import (
    DeadlineExceededError,
    EdgeRuntimeError,
    InvalidRequestError,
    RequestError,
    TransportError,
)


@dataclass(frozen=True, slots=True)
class EndpointState:
    """How an endpoint stands with a client.

    Attributes:
        endpoint: Which.
        is_ejected: Whether it gets no requests while another one is healthy.
        outstanding: Requests of this client that it has not answered yet.
    """

    endpoint: Endpoint
    is_ejected: bool
    outstanding: int


class Survey:
    """What several endpoints said to a question of yes or no: one yes is enough."""

    def __init__(self) -> None:
        self._yes = False
        self._no = False
        self._error: EdgeRuntimeError | None = None

    @property
    def is_over(self) -> bool:
        """Whether nobody else need be asked, or can be."""
        return self._yes or isinstance(self._error, DeadlineExceededError)

    def answered(self, *, yes: bool) -> None:
        """Take an answer."""
        self._yes = self._yes or yes
        self._no = self._no or not yes

    def failed(self, error: EdgeRuntimeError) -> None:
        """Take an error. Not to know a model is no answer where another could not be asked."""
        if self._error is None or isinstance(self._error, RequestError):
            self._error = error

    def result(self) -> bool:
        """Sum it up.

        Raises:
            EdgeRuntimeError: Nobody answered.
        """
        if self._error is not None and not (self._yes or self._no):
            raise self._error
        return self._yes


class Balancer:
    """What a client knows of its endpoints. Endpoints are indexes here, times are seconds.

    Args:
        policy: Chooses among the best.
        count: Endpoints there are.
        ejection: When they are ejected.
        retrying: What the caller allows.
        reserve: Retries that the budget allows at once.
    """

    def __init__(
        self, policy: Policy, count: int, ejection: Ejection, retrying: Retrying, reserve: int
    ) -> None:
        self.ejection = ejection
        self.retrying = retrying
        self.budget = Budget(retrying.budget, reserve)
        self._policy = policy
        self._health = [Health()] * count
        self._outstanding = [0] * count

    def states(self, endpoints: Sequence[Endpoint]) -> list[EndpointState]:
        """Say how every endpoint stands."""
        return [
            EndpointState(endpoint, health.is_ejected, outstanding)
            for endpoint, health, outstanding in zip(
                endpoints, self._health, self._outstanding, strict=True
            )
        ]

    def begin(self) -> "Course":
        """Begin a call."""
        self.budget.deposit()
        return Course(self)

    def choose(self, tried: Collection[int], *, again: bool) -> int:
        """Choose an endpoint for an attempt, which counts as outstanding until ``release``.

        Args:
            tried: Endpoints that the call has been to.
            again: Whether a healthy one that was tried is better than one that is ejected.
        """
        ejected = [health.is_ejected for health in self._health]
        chosen = self._policy.choose(best(ejected, tried, again=again), self._outstanding)
        self._outstanding[chosen] += 1
        return chosen

    def release(self, index: int) -> None:
        """End an attempt, however it went."""
        self._outstanding[index] -= 1

    def succeeded(self, index: int, *, started: float, now: float) -> None:
        """Take note that an endpoint answered."""
        self._health[index] = succeeded(self._health[index], started=started, now=now)

    def failed(self, index: int, *, started: float, now: float, jitter: float) -> None:
        """Take note that an endpoint failed."""
        self._health[index] = failed(
            self._health[index], self.ejection, started=started, now=now, jitter=jitter
        )

    def refused(self, index: int, *, started: float, now: float) -> None:
        """Take note that an endpoint answered that it did not run a request."""
        self._health[index] = refused(self._health[index], self.ejection, started=started, now=now)

    def checks_due(self, now: float) -> list[int]:
        """Give the endpoints that are to be asked whether they are ready."""
        return [index for index, health in enumerate(self._health) if health.is_check_due(now)]

    def checked(self, index: int, *, ready: bool, now: float, jitter: float) -> None:
        """Take note of what a check found."""
        self._health[index] = checked(
            self._health[index], self.ejection, ready=ready, now=now, jitter=jitter
        )

    def untried(self, tried: Collection[int]) -> tuple[bool, bool]:
        """Tell whether a call has not been everywhere yet, and whether one of those is healthy."""
        left = [health for index, health in enumerate(self._health) if index not in tried]
        return bool(left), any(not health.is_ejected for health in left)

    def forked(self) -> None:
        """Forget the requests under way: in a forked child they are the parent's."""
        self._outstanding = [0] * len(self._outstanding)


class Course:
    """One call's way over the endpoints: attempt by attempt, each ended in exactly one way.

    Args:
        balancer: What the client knows.
    """

    __slots__ = ("_again", "_balancer", "_index", "_retries", "_said", "_sent", "_started", "tried")

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer
        #: Endpoints asked so far.
        self.tried: list[int] = []
        self._index = 0
        self._started = 0.0
        self._again = False
        self._retries = 0
        self._sent = False
        self._said: list[str] = []

    def next(self, now: float) -> int:
        """Begin an attempt, and give its endpoint."""
        self._index = self._balancer.choose(self.tried, again=self._again)
        self._started = now
        self.tried.append(self._index)
        return self._index

    def succeeded(self, now: float) -> None:
        """End an attempt with an answer."""
        self._balancer.release(self._index)
        self._balancer.succeeded(self._index, started=self._started, now=now)

    def failed(self, error: EdgeRuntimeError, now: float, jitter: float) -> None:
        """End an attempt with an error that came from the endpoint, or from the way to it.

        Args:
            error: What it was.
            now: The time.
            jitter: A random number of [0, 1).
        """
        outcome = outcome_of(error)
        if outcome is Outcome.ANSWERED:
            self.succeeded(now)
            return
        self._balancer.release(self._index)
        if outcome is Outcome.REFUSED and not isinstance(error, TransportError):
            self._balancer.refused(self._index, started=self._started, now=now)
            return
        # A later attempt has what time is left; that it was too little is not its endpoint's fault.
        if outcome is not Outcome.OVERDUE or len(self.tried) == 1:
            self._balancer.failed(self._index, started=self._started, now=now, jitter=jitter)

    def abandoned(self) -> None:
        """End an attempt that says nothing about its endpoint."""
        self._balancer.release(self._index)

    def pause_s(self, error: EdgeRuntimeError, left_s: float, jitter: float) -> float | None:
        """Decide whether there is another attempt.

        Args:
            error: What ended the last one. If there is no other attempt, it is completed with
                what the earlier ones said.
            left_s: Seconds of the call that are left.
            jitter: A random number of [0, 1).

        Returns:
            Seconds to wait before ``next``; ``None``: the error is the call's.
        """
        outcome = outcome_of(error)
        pause = self._pause_s(outcome, left_s, jitter)
        if pause is None:
            self._complete(error)
        else:
            self._sent = self._sent or outcome is Outcome.MAY_HAVE_RUN
            self._said.append(str(error))
        return pause

    def _pause_s(self, outcome: Outcome, left_s: float, jitter: float) -> float | None:
        rules = self._balancer.retrying
        untried, healthy_untried = self._balancer.untried(self.tried)
        step = step_after(outcome, rules.retry, untried=untried, healthy_untried=healthy_untried)
        if step is Step.GIVE_UP:
            return None
        self._again = outcome is Outcome.MAY_HAVE_RUN
        if step is Step.ELSEWHERE:
            return 0.0
        pause = pause_s(self._retries, jitter)
        if self._retries >= rules.retries or pause >= left_s:
            return None
        if step is Step.PAUSE_AND_PAY and not self._balancer.budget.withdraw():
            return None
        self._retries += 1
        return pause

    def _complete(self, error: EdgeRuntimeError) -> None:
        for said in self._said:
            error.add_note(f"an earlier attempt: {said}")
        if self._sent and isinstance(error, TransportError):
            error.request_sent = True  # by the call, if not by this attempt


def balancer(
    count: int,
    *,
    policy: PolicyName,
    weights: Sequence[float] | None,
    retry: Retry,
    retries: int,
    retry_budget: float,
    connections: int,
    ejection: Ejection | None,
    jitter: float,
) -> Balancer:
    """Make a balancer of what the caller of a client said; see ``BalancedClient``.

    Raises:
        ConfigError: A number or a name is not acceptable.
    """
    check_whole("connections", connections, least=1)
    return Balancer(
        policy_named(policy, count, weights, first=int(jitter * count)),
        count,
        ejection or Ejection(),
        Retrying(retry, retries, retry_budget),
        reserve=connections,
    )


def check_timeouts(
    retry: Retry,
    timeout_s: float | None,
    attempt_timeout_s: float | None,
    connect_timeout_s: float | None,
) -> None:
    """Refuse timeouts of a client when it is made, not at its first call.

    Raises:
        InvalidRequestError: One is not above 0, or does not fit the rest.
    """
    Deadline(timeout_s)
    limits = {"attempt_timeout_s": attempt_timeout_s, "connect_timeout_s": connect_timeout_s}
    for name, limit_s in limits.items():
        if limit_s is not None and not limit_s > 0:
            raise InvalidRequestError(f"{name} must be above 0, or None for none: {limit_s}")
    if attempt_timeout_s is not None and retry != "at_least_once":
        raise InvalidRequestError(
            "attempt_timeout_s needs retry='at_least_once': what was sent and not answered in "
            "time may not be sent again otherwise"
        )


def best(ejected: Sequence[bool], tried: Collection[int], *, again: bool) -> list[int]:
    """Give the endpoints among which the policy is to choose.

    Args:
        ejected: Whether each endpoint is.
        tried: Indexes of those that the call has been to.
        again: Whether to prefer healthy ones before those not tried yet.

    Returns:
        Indexes, one or more: when all are ejected they are tried all the same.
    """
    ranks = [
        (out, index in tried) if again else (index in tried, out)
        for index, out in enumerate(ejected)
    ]
    lowest = min(ranks)
    return [index for index, rank in enumerate(ranks) if rank == lowest]
