"""A server is waited for as long as the limits say, and not a moment longer."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import NetworkError, TooSlowError
from agent.trust.patience import TIMEOUT_S_MIN, Limits, LowSpeed, Patience


def test_a_read_waits_for_the_shortest_of_what_is_left() -> None:
    limits = Limits(silence_s=30, first_byte_s=20, whole_s=100)
    patience = Patience(limits, "x", 1000.0)
    assert patience.timeout_s(1000.0) == 20
    assert patience.timeout_s(1015.0) == 5
    patience.head_is_there()
    assert patience.timeout_s(1015.0) == 30
    assert patience.timeout_s(1090.0) == 10
    with pytest.raises(TooSlowError, match="not whole within 100 s"):
        patience.timeout_s(1100.0)


def test_silence_is_a_link_that_broke_and_a_deadline_is_a_slow_server() -> None:
    patience = Patience(Limits(silence_s=30, whole_s=50), "x", 0.0)
    assert not isinstance(patience.nothing_came(30.0), TooSlowError)
    assert isinstance(patience.nothing_came(30.0), NetworkError)
    assert isinstance(patience.nothing_came(50.0), TooSlowError)


def test_only_time_spent_waiting_makes_a_server_slow() -> None:
    patience = Patience(Limits(30, low_speed=LowSpeed(100, window_s=60)), "x", 0.0)
    for second in range(1000):  # a reader that reads 1 byte a second, of a server that has them
        patience.waited(0.0, 1, float(second))
    with pytest.raises(TooSlowError, match="slower than 100 bytes per second"):
        patience.waited(60.0, 10, 2000.0)


@given(
    st.lists(st.tuples(st.floats(0.0, 30.0), st.integers(1, 10_000)), max_size=60),
    st.integers(1, 1000),
    st.floats(1.0, 100.0),
)
def test_a_server_that_is_fast_enough_at_every_read_is_never_given_up(
    reads: list[tuple[float, int]], bytes_per_s: int, window_s: float
) -> None:
    patience = Patience(Limits(30, low_speed=LowSpeed(bytes_per_s, window_s)), "x", 0.0)
    now_s = 0.0
    for waited_s, size in reads:
        now_s += waited_s
        patience.waited(waited_s, max(size, int(waited_s * bytes_per_s) + 1), now_s)


@given(st.lists(st.floats(0.1, 30.0), min_size=1, max_size=10), st.floats(1.0, 60.0))
def test_a_drip_is_always_given_up_within_a_window(waits: list[float], window_s: float) -> None:
    patience = Patience(Limits(30, low_speed=LowSpeed(1000, window_s)), "x", 0.0)
    now_s = 0.0
    for waited_s in itertools.cycle(waits):
        now_s += waited_s
        try:
            patience.waited(waited_s, 1, now_s)
        except TooSlowError:
            break
        assert now_s < window_s


@given(st.floats(0.01, 1e6), st.floats(0, 2e6))
def test_a_timeout_is_never_nothing_and_never_beyond_the_deadline(
    whole_s: float, now_s: float
) -> None:
    patience = Patience(Limits(silence_s=30, whole_s=whole_s), "x", 0.0)
    try:
        timeout_s = patience.timeout_s(now_s)
    except TooSlowError:
        assert now_s >= whole_s
    else:
        assert TIMEOUT_S_MIN <= timeout_s <= max(TIMEOUT_S_MIN, min(30, whole_s - now_s))
