"""Calls, failures, checks and time in any order: what a balancer must never do."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge_runtime.client.balancing import Balancer, Course
from edge_runtime.client.ejection import Ejection
from edge_runtime.client.endpoint import Endpoint
from edge_runtime.client.policies import PolicyName, policy_named
from edge_runtime.client.retrying import Retry, Retrying
from edge_runtime.errors import (
    DeadlineExceededError,
    EdgeRuntimeError,
    InvalidRequestError,
    TransportError,
    UnavailableError,
)

SHARE = 0.2
RESERVE = 3
RETRIES = 2
RULES = Ejection(failures=2, first_s=1, most_s=8)

jitters = st.floats(0, 1, exclude_max=True)


def _error(kind: str) -> EdgeRuntimeError:
    match kind:
        case "unsent" | "sent":
            return TransportError(kind, request_sent=kind == "sent")
        case "refused":
            return UnavailableError(kind)
        case "overdue":
            return DeadlineExceededError(kind)
        case _:
            return InvalidRequestError(kind)


@dataclass
class Attempt:
    """A call, and the endpoint that has its request now."""

    course: Course
    index: int
    may_have_run: bool = False


class Balancing(RuleBasedStateMachine):
    """A balancer, and the calls under way."""

    @initialize(
        policy=st.sampled_from(["round_robin", "least_outstanding", "weighted"]),
        retry=st.sampled_from(["never", "unsent", "at_least_once"]),
        weights=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    )
    def begin(self, policy: PolicyName, retry: Retry, weights: list[float]) -> None:
        """Make one."""
        self.count = len(weights)
        given = weights if policy == "weighted" else None
        self.retry = retry
        self.balancer = Balancer(
            policy_named(policy, self.count, given),
            self.count,
            RULES,
            Retrying(retry, RETRIES, SHARE),
            reserve=RESERVE,
        )
        self.policy = policy
        self.endpoints = [Endpoint(port=port) for port in range(1, self.count + 1)]
        self.now = 0.0
        self.calls = 0
        self.paid = 0
        self.attempts: list[Attempt] = []

    def _send(self, course: Course, *, again: bool, may_have_run: bool) -> None:
        states = self.balancer.states(self.endpoints)
        tried = set(course.tried)
        index = course.next(self.now)
        rivals = set(range(self.count)) - (set() if again else tried) or set(range(self.count))
        if states[index].is_ejected:
            assert all(states[rival].is_ejected for rival in rivals)
        elif self.policy == "least_outstanding":
            equals = [
                state.outstanding
                for rival, state in enumerate(states)
                if not state.is_ejected and (rival in tried) == (index in tried)
            ]
            assert states[index].outstanding == min(equals)
        self.attempts.append(Attempt(course, index, may_have_run))

    @rule()
    def call(self) -> None:
        """Begin a call."""
        self.calls += 1
        self._send(self.balancer.begin(), again=False, may_have_run=False)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        """Answer a request: its endpoint is healthy, unless the news are old."""
        attempt = data.draw(st.sampled_from(self.attempts))
        self.attempts.remove(attempt)
        attempt.course.succeeded(self.now)

    @precondition(lambda self: self.attempts)
    @rule(
        data=st.data(),
        kind=st.sampled_from(["unsent", "sent", "refused", "overdue", "wrong"]),
        jitter=jitters,
        left_s=st.sampled_from([0.0, 0.03, 60.0]),
    )
    def fail(self, data: st.DataObject, kind: str, jitter: float, left_s: float) -> None:
        """Fail a request; the call may go on."""
        attempt = data.draw(st.sampled_from(self.attempts))
        self.attempts.remove(attempt)
        error = _error(kind)
        course = attempt.course
        everywhere = set(course.tried) == set(range(self.count))
        course.failed(error, self.now, jitter)
        pause_s = course.pause_s(error, left_s, jitter)
        may_have_run = attempt.may_have_run or kind == "sent"
        if pause_s is None:
            if isinstance(error, TransportError):
                assert error.request_sent == may_have_run
            return
        assert self.retry != "never"
        assert kind not in {"overdue", "wrong"}
        assert not may_have_run or self.retry == "at_least_once"
        if kind == "unsent" and not everywhere:
            assert pause_s == 0
        else:
            assert pause_s < left_s
            self.paid += kind != "unsent"
        self.now += pause_s
        self._send(course, again=kind == "sent", may_have_run=may_have_run)
        assert len(course.tried) <= self.count + RETRIES

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        """Cancel a call."""
        attempt = data.draw(st.sampled_from(self.attempts))
        self.attempts.remove(attempt)
        attempt.course.abandoned()

    @rule(seconds=st.sampled_from([0.5, 3.0, 20.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    @rule(ready=st.booleans(), jitter=jitters)
    def check(self, ready: bool, jitter: float) -> None:  # noqa: FBT001 - a strategy fills it
        """Ask those that are due."""
        for index in self.balancer.checks_due(self.now):
            self.balancer.checked(index, ready=ready, now=self.now, jitter=jitter)
            assert self.balancer.states(self.endpoints)[index].is_ejected != ready

    @invariant()
    def counts_are_right(self) -> None:
        """Every request under way is outstanding at its endpoint, and nothing else is."""
        if not hasattr(self, "balancer"):
            return
        held = [attempt.index for attempt in self.attempts]
        for index, state in enumerate(self.balancer.states(self.endpoints)):
            assert state.outstanding == held.count(index)

    @invariant()
    def retries_are_paid_for(self) -> None:
        """Retries that cause load stay within the budget."""
        if hasattr(self, "balancer"):
            assert self.paid <= SHARE * self.calls + RESERVE + 1e-6

    @invariant()
    def every_ejected_one_will_be_asked(self) -> None:
        """A check is due within the longest pause."""
        if hasattr(self, "balancer"):
            states = self.balancer.states(self.endpoints)
            ejected = [index for index, state in enumerate(states) if state.is_ejected]
            assert set(ejected) <= set(self.balancer.checks_due(self.now + RULES.most_s))


TestBalancing = Balancing.TestCase
TestBalancing.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
