"""Who caused loads lately: it adds up, fades, and is forgotten."""

from math import inf, log

import pytest

from edge_runtime.load_shares import HALF_LIFE_S, LoadShares


def test_what_a_user_caused_adds_up_and_halves_with_time() -> None:
    shares = LoadShares()
    shares.charge({1}, 4.0, 100.0)
    shares.charge({1, 2}, 2.0, 100.0 + HALF_LIFE_S)
    assert shares.least_s({1}, 100.0 + HALF_LIFE_S) == 4.0
    assert shares.least_s({1}, 100.0 + 2 * HALF_LIFE_S) == 2.0
    assert shares.least_s({2}, 100.0 + 2 * HALF_LIFE_S) == 1.0


def test_the_one_who_caused_least_counts_and_strangers_caused_nothing() -> None:
    shares = LoadShares()
    shares.charge({1}, 4.0, 0.0)
    assert shares.least_s({1, None}, 0.0) == 0.0
    assert shares.least_s((), 0.0) == inf, "what nobody asked for is nobody's"


def test_who_loads_without_a_pause_is_even_with_a_stranger_who_does_after_one_half_life() -> None:
    shares = LoadShares()
    for second in range(1000):
        shares.charge({1}, 1.0, float(second))
    most = shares.least_s({1}, 999.0)
    assert most == pytest.approx(HALF_LIFE_S / log(2), rel=0.05)
    for second in range(1000, 1000 + int(HALF_LIFE_S)):
        shares.charge({2}, 1.0, float(second))
    now_s = 999.0 + HALF_LIFE_S
    assert shares.least_s({1}, now_s) <= shares.least_s({2}, now_s)


def test_old_debts_are_forgotten_so_that_age_decides_and_nothing_piles_up() -> None:
    shares = LoadShares()
    for user in range(1000):
        shares.charge({user}, 1.0, user * 1000.0)
    assert shares.least_s({0}, 1_000_000.0) == 0.0
    assert len(shares._spent) == 1
