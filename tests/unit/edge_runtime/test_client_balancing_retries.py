"""What may be sent again, how soon and how often: a call's course without any I/O."""

from dataclasses import dataclass
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime import errors
from edge_runtime.client.balancing import Balancer, Survey
from edge_runtime.client.ejection import Ejection
from edge_runtime.client.policies import RoundRobin
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

NOW = 100.0
FOREVER = float("inf")

UNSENT = errors.TransportError("refused")
GONE = errors.TransportError("gone", request_sent=True)
BUSY = errors.UnavailableError("full", retry_after_s=1)
WRONG = errors.InvalidTensorError("wrong")

retries = st.sampled_from(["never", "unsent", "at_least_once"])
jitters = st.floats(0, 1, exclude_max=True)
failures = st.sampled_from(
    [
        UNSENT,
        GONE,
        BUSY,
        WRONG,
        errors.DeadlineExceededError("late"),
        errors.ModelFailedError("broken"),
        errors.ProtocolError("what"),
    ]
)


def _balancer(
    count: int = 2, *, retry: Retry = "unsent", most: int = 2, budget: float = 0.2
) -> Balancer:
    return Balancer(
        RoundRobin(count), count, Ejection(failures=100), Retrying(retry, most, budget), reserve=10
    )


def _copy(error: errors.EdgeRuntimeError) -> errors.EdgeRuntimeError:
    """Make an error of the same meaning: notes are added to those that are raised."""
    same = type(error)(error.message)
    vars(same).update(vars(error))
    return same


@dataclass
class Trace:
    """What a call did."""

    endpoints: list[int]
    pauses: list[float]
    raised: errors.EdgeRuntimeError


def _call(
    balancer: Balancer,
    outcomes: list[errors.EdgeRuntimeError],
    left_s: float = FOREVER,
    jitter: float = 0.5,
) -> Trace:
    """Drive a call of which every attempt fails; the last outcome repeats."""
    course = balancer.begin()
    pauses: list[float] = []
    while True:
        course.next(NOW)
        attempt = len(course.tried) - 1
        error = _copy(outcomes[min(attempt, len(outcomes) - 1)])
        course.failed(error, NOW, jitter)
        pause = course.pause_s(error, left_s, jitter)
        if pause is None:
            return Trace(course.tried, pauses, error)
        pauses.append(pause)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (UNSENT, Outcome.UNSENT),
        (GONE, Outcome.MAY_HAVE_RUN),
        (errors.ProtocolError(""), Outcome.MAY_HAVE_RUN),
        (BUSY, Outcome.REFUSED),
        (errors.UnavailableError(""), Outcome.REFUSED),
        (errors.ModelNotReadyError("", retry_after_s=1), Outcome.REFUSED),
        (errors.OverloadedError(""), Outcome.REFUSED),
        (errors.DeadlineExceededError(""), Outcome.OVERDUE),
        (errors.InvalidRequestError(""), Outcome.ANSWERED),
        (errors.ModelNotFoundError(""), Outcome.ANSWERED),
        (errors.ForbiddenError(""), Outcome.ANSWERED),
        (errors.RequestTooLargeError(""), Outcome.ANSWERED),
        (errors.ModelFailedError(""), Outcome.ANSWERED),
    ],
)
def test_every_error_means_one_thing_for_the_request(
    error: errors.EdgeRuntimeError, outcome: Outcome
) -> None:
    assert outcome_of(error) is outcome


@given(retries, st.booleans(), st.booleans())
def test_what_the_caller_must_mend_is_never_sent_again(
    retry: Retry,
    untried: bool,  # noqa: FBT001 - a strategy fills it
    healthy: bool,  # noqa: FBT001 - a strategy fills it
) -> None:
    for outcome in (Outcome.ANSWERED, Outcome.OVERDUE):
        step = step_after(outcome, retry, untried=untried, healthy_untried=healthy)
        assert step is Step.GIVE_UP


@pytest.mark.parametrize(("outcome", "untried"), list(product(Outcome, [False, True])))
def test_never_means_one_attempt(outcome: Outcome, untried: bool) -> None:  # noqa: FBT001
    step = step_after(outcome, "never", untried=untried, healthy_untried=untried)
    assert step is Step.GIVE_UP


@given(st.integers(0, 1000), jitters)
def test_pauses_are_random_up_to_a_limit_that_doubles(count: int, jitter: float) -> None:
    assert 0 <= pause_s(count, jitter) <= min(1.0, 0.025 * 2 ** min(count, 40))
    assert pause_s(count, 0.0) == 0
    assert pause_s(count, 0.5) == min(1.0, 0.025 * 2 ** min(count, 40)) / 2


@given(
    st.floats(0, 1),
    st.integers(1, 50),
    st.lists(st.sampled_from(["deposit", "withdraw"]), max_size=500),
)
def test_the_budget_never_allows_more_than_its_share_and_its_reserve(
    share: float, reserve: int, steps: list[str]
) -> None:
    budget = Budget(share, reserve)
    calls = granted = 0
    for step in steps:
        if step == "deposit":
            budget.deposit()
            calls += 1
        else:
            granted += budget.withdraw()
        assert granted <= share * calls + reserve + 1e-6


def test_the_budget_fills_up_again() -> None:
    budget = Budget(0.5, 2)
    assert [budget.withdraw() for _ in range(3)] == [True, True, False]
    budget.deposit()
    budget.deposit()
    assert budget.withdraw()
    assert not budget.withdraw()
    assert not Budget(0.0, 64).withdraw()


@given(retries, st.integers(1, 5), st.integers(0, 4), st.lists(failures, min_size=1), st.data())
def test_every_call_ends_within_its_attempts_and_its_time(
    retry: Retry,
    count: int,
    most: int,
    outcomes: list[errors.EdgeRuntimeError],
    data: st.DataObject,
) -> None:
    left_s = data.draw(st.floats(0, 1))
    trace = _call(
        _balancer(count, retry=retry, most=most), outcomes, left_s, jitter=data.draw(jitters)
    )
    assert len(trace.endpoints) <= count + most
    assert all(pause == 0 or pause < left_s for pause in trace.pauses)
    if retry == "never":
        assert len(trace.endpoints) == 1


@given(st.integers(1, 5), st.lists(failures, min_size=1), jitters)
def test_unless_the_caller_allows_it_nothing_is_sent_after_what_may_have_run(
    count: int, outcomes: list[errors.EdgeRuntimeError], jitter: float
) -> None:
    trace = _call(_balancer(count), outcomes, jitter=jitter)
    meanings = [outcome_of(error) for error in [*outcomes, *[outcomes[-1]] * count * 3]]
    if Outcome.MAY_HAVE_RUN in meanings:
        assert len(trace.endpoints) <= meanings.index(Outcome.MAY_HAVE_RUN) + 1


def test_what_was_not_sent_goes_to_every_other_endpoint_at_once_and_free() -> None:
    balancer = _balancer(3, budget=0.0, most=0)
    trace = _call(balancer, [UNSENT])
    assert sorted(trace.endpoints) == [0, 1, 2]
    assert trace.pauses == [0, 0]


def test_when_nobody_can_be_reached_there_are_a_few_more_tries_after_pauses() -> None:
    trace = _call(_balancer(2), [UNSENT])
    assert trace.endpoints == [0, 1, 0, 1]
    assert trace.pauses == [0, 0.0125, 0.025]


def test_a_refusal_goes_to_another_endpoint_and_no_further() -> None:
    trace = _call(_balancer(2), [BUSY])
    assert trace.endpoints == [0, 1]
    assert isinstance(trace.raised, errors.UnavailableError)
    assert trace.raised.retry_after_s == 1
    assert trace.raised.__notes__ == ["an earlier attempt: full"]


def test_a_refusal_does_not_go_to_an_ejected_endpoint() -> None:
    balancer = Balancer(
        RoundRobin(2), 2, Ejection(failures=1), Retrying("at_least_once"), reserve=10
    )
    balancer.failed(1, started=NOW, now=NOW, jitter=0.0)
    assert _call(balancer, [BUSY]).endpoints == [0]


def test_at_least_once_sends_again_what_may_have_run() -> None:
    trace = _call(_balancer(2, retry="at_least_once"), [GONE])
    assert trace.endpoints == [0, 1, 0]
    assert trace.pauses == [0.0125, 0.025]


def test_the_error_says_whether_any_attempt_was_sent() -> None:
    trace = _call(_balancer(2, retry="at_least_once", most=1), [GONE, UNSENT])
    assert isinstance(trace.raised, errors.TransportError)
    assert trace.raised.message == "refused"
    assert trace.raised.request_sent
    trace = _call(_balancer(2, most=0), [UNSENT])
    assert isinstance(trace.raised, errors.TransportError)
    assert not trace.raised.request_sent


@given(st.integers(1, 200), jitters)
def test_retries_do_not_multiply_load_when_everything_fails(calls: int, jitter: float) -> None:
    balancer = _balancer(3, retry="at_least_once", most=5)
    sent = sum(len(_call(balancer, [GONE], jitter=jitter).endpoints) for _ in range(calls))
    assert sent <= calls * 1.2 + 10 + 1e-6


def test_a_late_attempt_s_short_time_is_not_its_endpoint_s_fault() -> None:
    late = errors.DeadlineExceededError("late")
    first = Balancer(RoundRobin(2), 2, Ejection(failures=1), Retrying(), reserve=10)
    assert _call(first, [late]).endpoints == [0]
    assert first.untried([1]) == (True, False)
    second = Balancer(RoundRobin(2), 2, Ejection(failures=1), Retrying(), reserve=10)
    assert _call(second, [UNSENT, late]).endpoints == [0, 1]
    assert second.untried([0]) == (True, True)


@pytest.mark.parametrize(
    "arguments", [("always", 2, 0.2), ("unsent", -1, 0.2), ("unsent", 2, -0.1), ("unsent", 2, 1.1)]
)
def test_retries_that_make_no_sense_are_refused(arguments: tuple[Retry, int, float]) -> None:
    with pytest.raises(errors.ConfigError):
        Retrying(*arguments)


@pytest.mark.parametrize(
    ("said", "result"),
    [
        ([False, True], "yes"),
        ([UNSENT, True], "yes"),
        ([False, UNSENT], "no"),
        ([errors.ModelNotFoundError("no"), False], "no"),
        ([errors.ModelNotFoundError("no"), UNSENT], errors.TransportError),
        ([UNSENT, errors.ModelNotFoundError("no")], errors.TransportError),
        ([errors.ModelNotFoundError("no")] * 2, errors.ModelNotFoundError),
    ],
)
def test_one_yes_of_several_is_a_yes(
    said: list[bool | errors.EdgeRuntimeError], result: str | type[errors.EdgeRuntimeError]
) -> None:
    survey = Survey()
    for each in said:
        if isinstance(each, bool):
            survey.answered(yes=each)
        else:
            survey.failed(each)
    if isinstance(result, str):
        assert survey.result() is (result == "yes")
    else:
        with pytest.raises(result):
            survey.result()
