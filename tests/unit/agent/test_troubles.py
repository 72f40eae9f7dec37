"""What does not work is said when it begins, when its reason changes, and when it ends."""

import logging

import pytest

from agent.troubles import WHY_BYTES_MAX, Trouble, Troubles


@pytest.fixture
def now() -> list[float]:
    return [60.0]


@pytest.fixture
def troubles(now: list[float], caplog: pytest.LogCaptureFixture) -> Troubles:
    caplog.set_level("INFO")
    return Troubles(lambda: now[0])


def test_the_same_reason_again_is_no_news_and_another_one_is(
    troubles: Troubles, now: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    for why in ("one", "one", "two", "two", "one"):
        troubles.note("it does not work", why)
        now[0] += 10
    assert caplog.messages == [
        "it does not work: one",
        "it does not work, since 1970-01-01T00:01:00Z: two",
        "it does not work, since 1970-01-01T00:01:00Z: one",
    ]
    assert troubles.of("it does not work") == Trouble("one", 60.0)


def test_that_it_works_again_is_said_once_and_only_if_it_did_not(
    troubles: Troubles, caplog: pytest.LogCaptureFixture
) -> None:
    troubles.settle("it")
    troubles.note("it", "why")
    troubles.settle("it")
    troubles.settle("it")
    assert caplog.messages == ["it: why", "this is over, it began at 1970-01-01T00:01:00Z: it"]
    assert troubles.of("it") is None
    troubles.note("it", "why")
    assert len(caplog.messages) == 3


def test_what_does_not_work_is_told_apart(
    troubles: Troubles, caplog: pytest.LogCaptureFixture
) -> None:
    troubles.note("one", "why")
    troubles.note("other", "why", level=logging.WARNING)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_a_fault_has_its_traceback_and_a_long_reason_is_cut(
    troubles: Troubles, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        troubles.note("it", "x" * 10 * WHY_BYTES_MAX, fault=True)
    assert "Traceback" in caplog.text
    known = troubles.of("it")
    assert known is not None
    assert len(known.why) == WHY_BYTES_MAX
