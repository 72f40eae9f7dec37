"""Awake time goes on over restarts, and follows neither the wall clock nor suspensions."""

import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.release.awake import BOOT_ID, AwakeClock, boot_id
from edge_runtime.release.journal import Journal

SECONDS = st.floats(0, 1e7, allow_nan=False)


@dataclass
class Monotonic:
    """A clock that a test turns."""

    s: float = 0.0

    def __call__(self) -> float:
        """Read it."""
        return self.s


def test_counts_from_what_was_persisted() -> None:
    monotonic = Monotonic(1_000.0)
    clock = AwakeClock(50.0, monotonic)
    assert clock.now_s() == 50.0
    monotonic.s += 7.5
    assert clock.now_s() == 57.5


def test_stands_still_while_its_source_does() -> None:
    monotonic = Monotonic(1_000.0)
    clock = AwakeClock(0.0, monotonic)
    before_s = clock.now_s()
    # A night of suspension: CLOCK_MONOTONIC does not move.
    assert clock.now_s() == before_s


def test_does_not_ask_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = AwakeClock(0.0)
    before_s = clock.now_s()
    monkeypatch.setattr(time, "time", lambda: pytest.fail("asked the wall clock"))
    assert clock.now_s() >= before_s


def test_a_negative_start_counts_as_none() -> None:
    assert AwakeClock(-5.0, Monotonic(3.0)).now_s() == 0.0


def test_goes_on_after_a_restart_through_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "runtime.db"
    monotonic = Monotonic(500.0)
    with Journal(path).open() as journal:
        clock = AwakeClock(journal.mark_started("first").awake_s, monotonic)
        deadline_s = clock.now_s() + 100.0
        monotonic.s += 40.0
        journal.tick(clock.now_s())
    with Journal(path).open() as journal:  # another boot: its clock began anew
        clock = AwakeClock(journal.mark_started("second").awake_s, Monotonic(2.0))
        assert deadline_s - clock.now_s() == 60.0


def test_the_journal_never_turns_the_clock_back(tmp_path: Path) -> None:
    with Journal(tmp_path / "runtime.db").open() as journal:
        journal.tick(100.0)
        journal.tick(30.0)
        journal.mark_clean(20.0)
        assert journal.previous().awake_s == 100.0


@given(st.lists(st.tuples(st.booleans(), SECONDS), max_size=20), SECONDS)
def test_sums_what_was_awake_over_any_restarts(
    stretches: list[tuple[bool, float]], start_s: float
) -> None:
    persisted_s = awake_s = 0.0
    monotonic = Monotonic(start_s)
    clock = AwakeClock(persisted_s, monotonic)
    for is_restart, passed_s in stretches:
        monotonic.s += passed_s
        awake_s += passed_s
        assert clock.now_s() == pytest.approx(awake_s, abs=1e-4)
        if is_restart:
            persisted_s = clock.now_s()
            monotonic = Monotonic(passed_s)
            clock = AwakeClock(persisted_s, monotonic)


def test_a_boot_has_one_name() -> None:
    assert boot_id() == boot_id() == BOOT_ID.read_text().strip()


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe"])
def test_a_boot_that_the_kernel_does_not_name_is_like_no_other(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "boot_id"
    if content is not None:
        path.write_bytes(content)
    first, second = boot_id(path), boot_id(path)
    assert first
    assert first != second
