"""What a trial may take, and what its death is called."""

import os
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.release.trial_limits import death, limits, queued_s, usage
from edge_runtime.settings import Release


def test_limits_are_the_configured_ones() -> None:
    found = limits(Release(self_test_s=40.0, self_test_cpu_s=30.0, trial_memory_bytes=12345))
    assert (found.self_test_s, found.self_test_cpu_s, found.memory_bytes) == (40.0, 30.0, 12345)
    assert found.starved_after_s == 10.0


def test_without_a_setting_half_of_the_memory_is_allowed() -> None:
    found = limits(Release())
    assert found.memory_bytes == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (-signal.SIGSEGV, "crashed", "crashed (SIGSEGV: memory that is not its own) while running"),
        (-signal.SIGILL, "crashed", "crashed (SIGILL: an instruction that this CPU does not have)"),
        (-signal.SIGABRT, "crashed", "it said: last words"),
        (-signal.SIGKILL, "killed", "out of memory most likely"),
        (-signal.SIGXCPU, "cpu-time", "more CPU time than it may"),
        (-64, "crashed", "crashed ("),
        (-250, "crashed", "crashed (signal 250)"),
        (1, "broken", "ended with 1 while running; it said: last words"),
    ],
)
def test_death_is_named(status: int, kind: str, words: str) -> None:
    found, why = death(status, "running", "last words")
    assert found == kind
    assert words in why


@given(st.integers(-300, 300), st.text(), st.text())
def test_every_death_has_a_name(status: int, doing: str, said: str) -> None:
    kind, why = death(status, doing, said)
    assert kind in {"crashed", "killed", "cpu-time", "broken"}
    assert why


def test_own_process_is_seen() -> None:
    found = usage(os.getpid())
    assert found is not None
    assert found.resident_bytes > 2**20
    assert found.cpu_s > 0
    waited_s = queued_s(os.getpid())
    assert waited_s is None or waited_s >= 0


def test_process_that_is_not_there_is_not_seen() -> None:
    assert usage(2**22 + 1) is None
    assert queued_s(2**22 + 1) is None
