"""What is loaded and what leaves, where several users ask: nobody decides it for the others."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.residency import LATELY_S, Snapshot, Version, next_action

OWN = 40
NOW = 100.0


def resident(name: str, size: int, used: float, loads_s: float) -> Version:
    return Version((name, 1), size, "request", last_used_s=used, loads_s=loads_s)


def wanted(name: str, size: int, since: float, loads_s: float) -> Version:
    return Version(
        (name, 1), size, is_resident=False, waiting=1, waiting_since_s=since, loads_s=loads_s
    )


def decide(*versions: Version, budget: int = 100) -> tuple[str, str]:
    held = OWN + sum(each.size_bytes for each in versions if each.is_resident)
    action = next_action(Snapshot(NOW, held, budget, versions))
    return action.kind, action.key[0]


def test_who_caused_few_loads_overtakes_the_older_requests_of_who_caused_many() -> None:
    greedy = [wanted(f"g{number}", 10, since=1.0 + number, loads_s=3.0) for number in range(5)]
    assert decide(*greedy, wanted("m", 10, since=50.0, loads_s=0.5)) == ("load", "m")


def test_of_users_who_are_even_the_older_request_is_served_first() -> None:
    versions = wanted("a", 10, since=2.0, loads_s=1.0), wanted("b", 10, since=1.0, loads_s=1.0)
    assert decide(*versions) == ("load", "b")


def test_who_asks_for_one_model_after_the_other_makes_their_own_leave_first() -> None:
    mine = resident("mine", 30, used=NOW - 5, loads_s=0.5)
    theirs = resident("theirs", 30, used=NOW - 1, loads_s=9.0)
    assert decide(mine, theirs, wanted("more", 30, since=NOW, loads_s=9.0)) == ("evict", "theirs")


@pytest.mark.parametrize(
    "change",
    [
        {"last_used_s": NOW - LATELY_S},  # it is not in use any more
        {"loads_s": 9.0},  # of the same user
        {"loads_s": float("inf")},  # of the operator
    ],
)
def test_otherwise_the_least_recently_used_leaves(change: dict[str, float]) -> None:
    old = replace(resident("old", 30, used=NOW - 5, loads_s=0.5), **change)  # type: ignore[arg-type]
    new = resident("new", 30, used=NOW - 1, loads_s=9.0)
    assert decide(old, new, wanted("more", 30, since=NOW, loads_s=9.0)) == ("evict", "old")


def test_what_others_use_leaves_all_the_same_where_nothing_else_makes_room() -> None:
    mine = resident("mine", 30, used=NOW - 1, loads_s=0.5)
    theirs = resident("theirs", 10, used=NOW - 1, loads_s=9.0)
    assert decide(mine, theirs, wanted("more", 50, since=NOW, loads_s=9.0))[0] == "evict"


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0, 99)), min_size=1, max_size=8))
def test_the_next_load_is_of_the_user_who_caused_least_then_the_oldest(
    asked: list[tuple[float, float]],
) -> None:
    versions = [
        wanted(f"m{number}", 1, since, loads_s) for number, (loads_s, since) in enumerate(asked)
    ]
    kind, name = decide(*versions)
    assert kind == "load"
    assert asked[int(name[1:])] == min(asked)
