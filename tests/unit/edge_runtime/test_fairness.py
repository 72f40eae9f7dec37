"""Who gives way: only who holds more than the newcomer would, and nobody in turn."""

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.fairness import User, greediest

USERS = st.sampled_from([None, 0, 1, 2, 3])


@given(st.dictionaries(USERS, st.integers(0, 9)), USERS)
def test_who_gives_way_holds_most_and_more_than_the_newcomer_would(
    held: dict[User, int], newcomer: User
) -> None:
    found = greediest(held, newcomer)
    if found == newcomer:
        assert max(held.values(), default=0) <= held.get(newcomer, 0) + 1
    else:
        assert held[found] == max(held.values())
        assert held[found] > held.get(newcomer, 0) + 1


@given(st.dictionaries(USERS, st.integers(0, 9)), st.lists(USERS, max_size=200))
def test_places_that_change_hands_come_to_rest_with_nobody_far_ahead_of_who_asks(
    held: dict[User, int], newcomers: list[User]
) -> None:
    changes = 0
    for newcomer in newcomers:
        found = greediest(held, newcomer)
        if found != newcomer:
            held[found] -= 1
            held[newcomer] = held.get(newcomer, 0) + 1
            changes += 1
    assert changes <= 5 * 9, "each makes the shares more equal, so they end"
