"""Bandwidth and pauses, by arithmetic alone."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.download.notices import EVERY_S, Meter, Progress
from agent.download.pace import BURST_S, TokenBucket, backoff_s
from agent.trust.retry_after import RETRY_AFTER_MAX_S, retry_after_s


@given(
    rate=st.integers(1, 10**9),
    sizes=st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 100)), min_size=1, max_size=40),
)
def test_never_more_than_the_bandwidth_and_a_burst(
    rate: int, sizes: list[tuple[int, float]]
) -> None:
    bucket = TokenBucket(rate, 0.0)
    now_s = 0.0
    total = 0
    for size, idle_s in sizes:
        now_s += idle_s
        wait_s = bucket.take(size, now_s)
        total += size
        assert wait_s >= 0
        now_s += wait_s
        assert total <= rate * (now_s + BURST_S) * (1 + 1e-9) + 1e-3


def test_a_reader_that_keeps_to_the_pauses_gets_all_of_the_bandwidth() -> None:
    bucket = TokenBucket(1000, 0.0)
    now_s = 0.0
    for _ in range(100):
        now_s += bucket.take(500, now_s)
    assert math.isclose(now_s, 100 * 500 / 1000 - BURST_S)


def test_no_limit_is_no_pause() -> None:
    assert TokenBucket(0, 0.0).take(10**12, 0.0) == 0.0


@given(failures=st.integers(1, 10**6), share=st.floats(0, 1))
def test_a_pause_is_random_and_has_a_limit(failures: int, share: float) -> None:
    pause_s = backoff_s(failures, share, 2.0, 900.0)
    assert 0 <= pause_s <= min(900.0, 2.0 * 2 ** min(failures - 1, 20))


def test_pauses_grow() -> None:
    assert [backoff_s(n, 1.0, 2.0, 900.0) for n in (1, 2, 3, 9, 10, 500)] == [
        2.0,
        4.0,
        8.0,
        512.0,
        900.0,
        900.0,
    ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("999999999", RETRY_AFTER_MAX_S),
        ("-1", 0.0),
        ("", 0.0),
        ("1e9", 0.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0),
        ("9" * 5000, 0.0),
    ],
)
def test_a_server_can_ask_for_a_pause_within_reason(text: str, seconds: float) -> None:
    assert retry_after_s(text) == seconds


def test_progress_is_told_now_and_then_and_at_the_end() -> None:
    told: list[Progress] = []
    meter = Meter(told.append, 1000, 0.0)
    meter.note(100, 100, EVERY_S / 2)
    assert told == []
    meter.note(100, 200, EVERY_S)
    assert told == [Progress(200, 1000, 200, 200 / EVERY_S)]
    meter.note(800, 1000, EVERY_S)
    assert told[-1].done_bytes == 1000
    assert told[-1].received_bytes == 1000


def test_the_rate_follows_what_came_lately() -> None:
    told: list[Progress] = []
    meter = Meter(told.append, 10**9, 0.0)
    for second in range(1, 60):
        meter.note(1000 if second < 30 else 5000, 1, float(second))
    assert told[20].bytes_per_s == pytest.approx(1000)
    assert told[-1].bytes_per_s == pytest.approx(5000, rel=0.01)
