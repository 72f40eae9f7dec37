"""Requests that wait for loads: bounded, in their order, and no user keeps the others out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import EdgeRuntimeError, OverloadedError
from edge_runtime.fairness import User
from edge_runtime.waiting import Waiter, Waiting

Told = dict[str, EdgeRuntimeError | None]


def waiter(name: str, user: User, told: Told) -> Waiter:
    def resume(error: EdgeRuntimeError | None) -> None:
        assert name not in told, "a request was answered twice"
        told[name] = error

    return Waiter(name, "", resume, lambda: False, 0.0, user)


def waiting(limit: int, told: Told, *users: User) -> Waiting:
    made = Waiting(limit)
    for number, user in enumerate(users):
        made.add(waiter(f"{user}-{number}", user, told))
    return made


def test_the_newest_of_the_greediest_user_gives_its_place_to_a_newcomer() -> None:
    told: Told = {}
    made = waiting(4, told, 1, 1, 2, 1)
    made.add(waiter("new", 3, told))
    assert list(told) == ["1-3"]
    error = told["1-3"]
    assert isinstance(error, OverloadedError)
    assert error.retry_after_s == 1
    assert [each.name for each in made] == ["1-0", "1-1", "2-2", "new"]


def test_the_greediest_user_itself_is_refused_and_nobody_else_loses_a_place() -> None:
    told: Told = {}
    made = waiting(4, told, 1, 1, 1, 2)
    with pytest.raises(OverloadedError):
        made.add(waiter("new", 1, told))
    assert told == {}
    assert len(made) == 4


def test_users_who_share_equally_do_not_take_places_from_each_other() -> None:
    told: Told = {}
    made = waiting(4, told, 1, 1, 2, 2)
    for user in (1, 2):
        with pytest.raises(OverloadedError):
            made.add(waiter("new", user, told))
    assert told == {}


def test_callers_over_tcp_are_one_user_like_any_other() -> None:
    told: Told = {}
    made = waiting(3, told, None, None, None)
    made.add(waiter("new", 1, told))
    assert list(told) == ["None-2"]


def test_a_request_that_its_refusal_brings_is_refused_and_the_bound_is_kept() -> None:
    told: Told = {}
    again: list[EdgeRuntimeError] = []

    def ask_again(_: EdgeRuntimeError | None) -> None:
        try:
            made.add(waiter("again", 1, told))
        except OverloadedError as error:
            again.append(error)

    made = Waiting(2)
    for name in ("a", "b"):
        made.add(Waiter(name, "", ask_again, lambda: False, 0.0, 1))
    made.add(waiter("new", 2, told))
    assert len(again) == 1
    assert [each.name for each in made] == ["a", "new"]


@given(st.lists(st.integers(0, 4), max_size=80), st.integers(1, 12))
def test_a_user_who_asks_little_always_gets_a_place_beside_greedy_ones(
    users: list[int], limit: int
) -> None:
    told: Told = {}
    made = Waiting(limit)
    for number, user in enumerate(users):
        held = [each.user for each in made]
        try:
            made.add(waiter(str(number), user, told))
        except OverloadedError:
            most = max(held.count(each) for each in held)
            assert len(held) == limit
            assert most <= held.count(user) + 1, "somebody with more should have given way"
    assert len(made) <= limit
    made.answer(lambda _: True, None)
    assert len(made) == 0
