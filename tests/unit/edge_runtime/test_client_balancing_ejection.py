"""When an endpoint is left alone and when it comes back, over a clock of the test's own."""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.client import ejection
from edge_runtime.client.ejection import Ejection, Health
from edge_runtime.errors import InvalidRequestError

RULES = Ejection(failures=3, first_s=1.0, most_s=30.0)
jitters = st.floats(0, 1, exclude_max=True)


@dataclass
class Endpoint:
    """One endpoint and a clock."""

    rules: Ejection = RULES
    now: float = 100.0
    health: Health = field(default_factory=Health)

    def succeed(self, started: float | None = None) -> None:
        """Answer a request."""
        at = self.now if started is None else started
        self.health = ejection.succeeded(self.health, started=at, now=self.now)

    def fail(self, started: float | None = None, jitter: float = 0.0) -> None:
        """Fail a request."""
        at = self.now if started is None else started
        self.health = ejection.failed(
            self.health, self.rules, started=at, now=self.now, jitter=jitter
        )

    def refuse(self, started: float | None = None) -> None:
        """Answer that a request was not run."""
        at = self.now if started is None else started
        self.health = ejection.refused(self.health, self.rules, started=at, now=self.now)

    def doubt(self) -> None:
        """Refuse until there is a doubt."""
        for _ in range(self.rules.failures):
            self.refuse()
        assert self.health.doubt_at is not None

    def check(self, *, ready: bool, jitter: float = 0.0) -> None:
        """Answer a check."""
        self.health = ejection.checked(
            self.health, self.rules, ready=ready, now=self.now, jitter=jitter
        )

    def eject(self, jitter: float = 0.0) -> None:
        """Fail until it is ejected."""
        for _ in range(self.rules.failures):
            self.fail(jitter=jitter)
        assert self.health.is_ejected

    def wait_for_check(self) -> None:
        """Let time pass until a check is due."""
        assert self.health.check_at is not None
        self.now = self.health.check_at
        assert self.health.is_check_due(self.now)


@given(st.lists(st.integers(0, RULES.failures - 1)))
def test_failures_that_are_not_in_a_row_never_eject(runs: list[int]) -> None:
    endpoint = Endpoint()
    for failures in runs:
        for _ in range(failures):
            endpoint.fail()
        endpoint.succeed()
        assert not endpoint.health.is_ejected


@given(st.integers(1, 9), jitters)
def test_failures_in_a_row_eject_until_a_check_is_due(failures: int, jitter: float) -> None:
    endpoint = Endpoint(Ejection(failures=failures, first_s=2.0))
    for _ in range(failures - 1):
        endpoint.fail()
        assert not endpoint.health.is_ejected
    endpoint.fail(jitter=jitter)
    assert endpoint.health.is_ejected
    assert not endpoint.health.is_check_due(endpoint.now)
    assert endpoint.health.check_at is not None
    assert 1.0 <= endpoint.health.check_at - endpoint.now <= 2.0
    endpoint.wait_for_check()


@given(st.lists(jitters, max_size=100))
def test_pauses_double_with_every_failed_check_up_to_the_limit(draws: list[float]) -> None:
    endpoint = Endpoint()
    endpoint.eject()
    full_s = RULES.first_s
    for jitter in draws:
        endpoint.wait_for_check()
        endpoint.check(ready=False, jitter=jitter)
        assert endpoint.health.is_ejected
        full_s = min(RULES.most_s, 2 * full_s)
        assert full_s / 2 <= endpoint.health.pause_s <= full_s


def test_a_check_that_finds_it_ready_admits_it() -> None:
    endpoint = Endpoint()
    endpoint.eject()
    endpoint.wait_for_check()
    endpoint.check(ready=True)
    assert not endpoint.health.is_ejected
    for _ in range(RULES.failures - 1):  # with a clean slate
        endpoint.fail()
    assert not endpoint.health.is_ejected


def test_one_that_fails_again_soon_is_left_alone_for_longer() -> None:
    endpoint = Endpoint()
    endpoint.eject()
    for expected_s in [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]:
        endpoint.wait_for_check()
        endpoint.check(ready=True)
        endpoint.eject()
        assert endpoint.health.pause_s == expected_s


def test_one_that_was_well_for_long_begins_anew() -> None:
    endpoint = Endpoint()
    endpoint.eject()
    for _ in range(4):
        endpoint.wait_for_check()
        endpoint.check(ready=False)
    endpoint.wait_for_check()
    endpoint.check(ready=True)
    endpoint.now += endpoint.health.pause_s
    endpoint.eject()
    assert endpoint.health.pause_s == RULES.first_s


def test_an_answer_admits_an_ejected_one() -> None:
    endpoint = Endpoint()
    endpoint.eject()
    endpoint.succeed()
    assert not endpoint.health.is_ejected
    endpoint.check(ready=False)  # of a check that was under way
    assert not endpoint.health.is_ejected


def test_an_answer_to_what_was_sent_meanwhile_counts_more_than_a_failed_check() -> None:
    endpoint = Endpoint()
    endpoint.eject()
    started = endpoint.now
    endpoint.wait_for_check()
    endpoint.check(ready=False)
    endpoint.succeed(started=started)
    assert not endpoint.health.is_ejected


@given(st.integers(1, 9), st.integers(1, 100))
def test_refusals_alone_never_eject(failures: int, refusals: int) -> None:
    endpoint = Endpoint(Ejection(failures=failures))
    for _ in range(refusals):
        endpoint.refuse()
        assert not endpoint.health.is_ejected
    assert endpoint.health.is_check_due(endpoint.now) == (refusals >= failures)


def test_one_that_refuses_several_in_a_row_and_is_not_ready_is_ejected() -> None:
    endpoint = Endpoint()
    endpoint.doubt()
    endpoint.check(ready=False)
    assert endpoint.health.is_ejected
    assert endpoint.health.pause_s == RULES.first_s
    endpoint.wait_for_check()
    endpoint.check(ready=True)
    endpoint.doubt()
    endpoint.check(ready=False)
    assert endpoint.health.pause_s == 2 * RULES.first_s


def test_one_that_refuses_and_is_ready_is_not_asked_all_the_time() -> None:
    endpoint = Endpoint()
    endpoint.doubt()
    assert endpoint.health.is_check_due(endpoint.now)
    endpoint.check(ready=True)
    assert not endpoint.health.is_ejected
    endpoint.doubt()
    assert not endpoint.health.is_check_due(endpoint.now)
    assert endpoint.health.is_check_due(endpoint.now + RULES.first_s)


def test_an_answer_ends_a_doubt() -> None:
    endpoint = Endpoint()
    endpoint.doubt()
    endpoint.succeed()
    assert not endpoint.health.is_check_due(endpoint.now)
    endpoint.check(ready=False)  # of a check that was under way
    assert not endpoint.health.is_ejected


def test_refusals_do_not_hide_failures() -> None:
    endpoint = Endpoint()
    for _ in range(RULES.failures):
        endpoint.refuse()
        assert not endpoint.health.is_ejected
        endpoint.fail()
    assert endpoint.health.is_ejected


def test_a_refusal_to_what_was_sent_before_an_ejection_changes_nothing() -> None:
    endpoint = Endpoint()
    endpoint.eject()
    before = endpoint.now - 1
    endpoint.refuse()
    assert endpoint.health.refusals == 0
    endpoint.wait_for_check()
    endpoint.check(ready=True)
    endpoint.refuse(started=before)
    assert endpoint.health.refusals == 0


def test_news_from_before_the_last_change_change_nothing() -> None:
    endpoint = Endpoint()
    endpoint.eject()
    before = endpoint.now - 1
    endpoint.succeed(started=before)
    assert endpoint.health.is_ejected
    pause_s = endpoint.health.pause_s
    endpoint.fail()  # more of what ejected it
    assert endpoint.health.pause_s == pause_s
    endpoint.wait_for_check()
    endpoint.check(ready=True)
    for _ in range(RULES.failures):
        endpoint.fail(started=before)
    assert not endpoint.health.is_ejected


events = st.lists(
    st.tuples(
        st.sampled_from(["succeed", "fail", "refuse", "ready", "not ready"]),
        st.integers(0, 64),
        jitters,
    )
)


@given(events)
def test_decisions_do_not_depend_on_what_time_it_is(
    steps: list[tuple[str, int, float]],
) -> None:
    endpoints = [Endpoint(now=0.0), Endpoint(now=2.0**20)]  # shifts that floats keep exactly
    for what, after_s, jitter in steps:
        for endpoint in endpoints:
            endpoint.now += after_s
            match what:
                case "succeed":
                    endpoint.succeed()
                case "fail":
                    endpoint.fail(jitter=round(jitter))
                case "refuse":
                    endpoint.refuse()
                case _:
                    endpoint.check(ready=what == "ready", jitter=round(jitter))
        first, second = (endpoint.health for endpoint in endpoints)
        assert (first.is_ejected, first.failures) == (second.is_ejected, second.failures)
        assert (first.pause_s, first.doublings) == (second.pause_s, second.doublings)


@given(events)
def test_an_ejected_one_is_always_checked_within_the_longest_pause(
    steps: list[tuple[str, int, float]],
) -> None:
    endpoint = Endpoint()
    for what, after_s, jitter in steps:
        endpoint.now += after_s
        match what:
            case "succeed":
                endpoint.succeed()
            case "fail":
                endpoint.fail(jitter=jitter)
            case "refuse":
                endpoint.refuse()
            case _:
                endpoint.check(ready=what == "ready", jitter=jitter)
        assert not endpoint.health.is_ejected or endpoint.health.is_check_due(
            endpoint.now + RULES.most_s
        )


@pytest.mark.parametrize(
    "rules",
    [
        {"failures": 0},
        {"first_s": 0},
        {"first_s": -1},
        {"first_s": 31},
        {"first_s": math.nan},
        {"most_s": math.inf},
        {"check_timeout_s": 0},
        {"check_timeout_s": math.inf},
    ],
)
def test_rules_that_make_no_sense_are_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        Ejection(**rules)
