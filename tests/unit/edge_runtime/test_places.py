"""Places at a door: what is left over for others, whatever greedy users do."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.api.places import Places
from edge_runtime.fairness import User
from edge_runtime.settings import Limits

LIMITS = Limits()


def fill(places: Places, user: User, limits: Limits = LIMITS) -> int:
    """Take all that a user gets."""
    while places.are_free(user, limits):
        places.take(user)
    return places.held(user)


def test_a_user_alone_gets_three_quarters_and_others_the_rest() -> None:
    places = Places()
    assert fill(places, 1) == 384
    assert "this user has 384 connections" in places.refusal(1, LIMITS)
    assert places.are_free(2, LIMITS)


@pytest.mark.parametrize(("asked", "gets"), [(1, 1), (100, 100), (512, 512), (9999, 512)])
def test_the_share_of_a_user_alone_is_what_was_set(asked: int, gets: int) -> None:
    assert fill(Places(), 1, Limits(connections_per_user=asked)) == gets


@pytest.mark.parametrize("connections", [1, 2, 3])
def test_where_there_are_hardly_any_a_user_alone_gets_all(connections: int) -> None:
    limits = Limits(connections=connections)
    places = Places()
    assert fill(places, 1, limits) == connections
    assert f"{connections} connections are open" in places.refusal(1, limits)


def test_callers_over_tcp_are_one_user_who_may_have_all() -> None:
    assert fill(Places(), None) == 512


def test_greedy_users_who_grow_together_leave_places_free_for_the_next() -> None:
    places = Places()
    greedy = range(1, 11)
    while any(places.are_free(user, LIMITS) for user in greedy):
        for user in greedy:
            if places.are_free(user, LIMITS):
                places.take(user)
    assert LIMITS.connections - places.taken >= 10
    assert max(map(places.held, greedy)) - min(map(places.held, greedy)) <= 1
    assert places.are_free(11, LIMITS)


@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=300), st.integers(4, 40))
def test_who_holds_many_never_takes_the_last_place_and_counts_are_right(
    steps: list[tuple[int, bool]], connections: int
) -> None:
    limits = Limits(connections=connections)
    places = Places()
    held: Counter[int] = Counter()
    for user, comes in steps:
        if comes and places.are_free(user, limits):
            if places.taken == connections - 1:
                assert held[user] * (connections // 4) < -(-3 * connections // 4)
            places.take(user)
            held[user] += 1
        elif not comes and held[user]:
            places.leave(user)
            held[user] -= 1
        assert places.taken == held.total() <= connections
        assert all(places.held(user) == held[user] for user in range(1, 7))
