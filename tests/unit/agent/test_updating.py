"""The thread of updates: what wakes it, what it does then, and how long it waits."""

import threading
import time
from typing import cast

import pytest

from agent import look_pace, updating
from agent.errors import AgentError, BudgetError, Distrust, NetworkError, TrustError
from agent.look_pace import LookPace
from agent.progressing import Check
from tests.updating_world import WITHIN_S, Source, World, running, until


def test_an_announcement_is_followed_with_what_was_announced() -> None:
    world = World()
    with running(world) as updating:
        first = updating.shown.check.turn
        updating.announced(b"timestamp")
        until(lambda: b"timestamp" in world.source.asked)
        until(lambda: updating.shown.check.turn > first)
        assert updating.shown.check.changed


def test_many_announcements_at_once_are_one_look_at_the_newest() -> None:
    world = World(doorbell_jitter_s=0.5)
    with running(world) as updating:
        world.source.is_open.clear()  # however long it takes to announce them: no pause ends
        updating.ring()
        until(lambda: len(world.source.asked) == 2)
        for number in range(50):
            updating.announced(b"%d" % number)
        world.source.is_open.set()
        until(lambda: world.source.asked[-1] == b"49")
    assert world.source.asked == [None, None, b"49"]


def test_news_interrupt_a_download_which_goes_on_afterwards() -> None:
    world = World()
    world.machine.is_busy = True
    with running(world) as updating:
        until(lambda: world.machine.turns > 0)
        turns = world.machine.turns
        updating.announced(b"newer")
        until(lambda: b"newer" in world.source.asked)
        until(lambda: world.machine.turns > turns)
        assert world.machine.was_interrupted >= 1


def test_a_stop_interrupts_a_download_that_begins_at_that_moment() -> None:
    world = World()
    ending: list[threading.Thread] = []

    def stop() -> None:
        ending.append(threading.Thread(target=world.updating.stop, args=(WITHIN_S,)))
        ending[0].start()
        ending[0].join(0.2)  # as far as it gets before the turn begins

    with running(world) as updating:
        world.machine.is_busy = True
        world.machine.before_turn = stop
        updating.decide_again()
        until(lambda: bool(ending))
        ending[0].join(WITHIN_S / 2)
        assert not ending[0].is_alive()


def test_who_asks_for_a_look_is_told_when_it_takes_too_long_and_the_thread_goes_on() -> None:
    world = World()
    with running(world) as updating:
        world.source.is_open.clear()
        with pytest.raises(NetworkError, match="still being looked at"):
            updating.check_now(0.05)
        world.source.is_open.set()
        assert updating.check_now(WITHIN_S).problem == ""


def test_who_asks_during_a_look_is_told_what_the_next_one_brings() -> None:
    world, told = World(), list[Check]()
    with running(world) as updating:
        world.source.is_open.clear()
        updating.ring()
        until(lambda: len(world.source.asked) == 2)
        asking = threading.Thread(target=lambda: told.append(updating.check_now(WITHIN_S)))
        asking.start()
        until(lambda: updating._wishes.check)
        world.source.is_open.set()
        asking.join(WITHIN_S)
    assert [check.timestamp_version for check in told] == [3]


def test_whoever_waits_takes_no_ring_from_the_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(updating, "RETRY_FIRST_S", 3600.0)
    world, told = World(), list[Check]()
    with running(world) as thread:
        world.source.error = cast("AgentError", ZeroDivisionError())
        asking = threading.Thread(target=lambda: told.append(thread.check_now(WITHIN_S)))
        asking.start()
        until(lambda: "nobody foresaw" in caplog.text)
        until(lambda: len(thread._condition._waiters) == 2)  # type: ignore[attr-defined]
        world.source.error = None
        thread.ring()
        asking.join(WITHIN_S)
    assert [check.problem for check in told] == [""]


def test_a_look_elsewhere_reads_the_repository_again_afterwards() -> None:
    world, elsewhere = World(), Source()
    with running(world) as updating:
        assert updating.take(elsewhere, WITHIN_S).problem == ""
        assert elsewhere.asked == [None]
        until(lambda: world.source.reread_count == 1)


def test_distrust_is_told_once_of_each_reason_and_again_after_it_was_well() -> None:
    world = World()
    with running(world) as updating:
        world.source.error = TrustError(Distrust.EXPIRED, "the timestamp has expired")
        for _ in range(3):
            assert updating.check_now(WITHIN_S).reason == "expired"
        world.source.error = None
        assert updating.check_now(WITHIN_S).problem == ""
        world.source.error = TrustError(Distrust.EXPIRED, "the timestamp has expired")
        updating.check_now(WITHIN_S)
    assert len(world.distrusted) == 2


def test_bells_do_not_hurry_looks_at_a_repository_that_is_not_believed() -> None:
    world = World()
    with running(world) as updating:
        world.source.error = TrustError(Distrust.TOO_LARGE, "there is no end of it")
        assert updating.check_now(WITHIN_S).reason == "too-large"
        for number in range(20):
            updating.announced(b"%d" % number)
        assert updating.check_now(WITHIN_S).reason == "too-large"  # who is asked for is obeyed
        assert not [each for each in world.source.asked if each]
        world.source.error = None
        assert updating.check_now(WITHIN_S).problem == ""
        until(lambda: world.source.asked[-1] == b"19")  # what was held back is heard now


def test_pauses_after_failures_grow_to_a_limit_and_never_beyond_the_poll() -> None:
    pace = LookPace(86_400.0)
    pauses = [pace.failed() for _ in range(100)]
    assert pauses[0] == 2 * look_pace.FIRST_S
    assert pauses == sorted(pauses)
    assert pauses[-1] == look_pace.MOST_S
    assert LookPace(15.0).failed() == 15.0


def test_a_fault_in_a_turn_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    with running(world) as updating:
        world.source.error = cast("AgentError", ZeroDivisionError())
        updating.ring()
        until(lambda: "nobody foresaw" in caplog.text)
        world.source.error = None
        assert updating.check_now(WITHIN_S).problem == ""


def test_that_the_budget_is_spent_is_told_once_and_nobody_is_asked_before_the_next_look() -> None:
    world = World()
    world.source.error = BudgetError("the month is spent")
    with running(world) as updating:
        assert updating.shown.check.reason == "budget"
        assert updating.shown.check.problem == "the month is spent"
        updating.check_now(WITHIN_S)
        assert [error.message for error in world.spent] == ["the month is spent"]
        assert updating._check_due_s - time.monotonic() > look_pace.MOST_S
        world.source.error = None
        assert not updating.check_now(WITHIN_S).problem
        world.source.error = BudgetError("and again")
        updating.check_now(WITHIN_S)
    assert len(world.spent) == 2
    assert world.distrusted == []


def test_an_import_is_answered_by_its_own_look_and_not_by_one_that_was_under_way() -> None:
    world, elsewhere = World(), Source()
    elsewhere.error = NetworkError("the import's own trouble")
    with running(world) as updating:
        world.source.is_open.clear()
        updating.ring()
        until(lambda: len(world.source.asked) == 2)
        opening = threading.Timer(0.2, world.source.is_open.set)
        opening.start()
        assert updating.take(elsewhere, WITHIN_S).problem == "the import's own trouble"
        opening.join()


def test_a_refused_import_is_no_complaint_about_the_repository() -> None:
    world, elsewhere = World(), Source()
    elsewhere.error = TrustError(Distrust.ROLLED_BACK, "an old stick")
    with running(world) as updating:
        before = updating.shown.check
        due_s = updating._check_due_s
        assert updating.take(elsewhere, WITHIN_S).problem == "an old stick"
        assert (updating.shown.check, updating._check_due_s) == (before, due_s)
        assert world.distrusted == []
        world.source.error = elsewhere.error
        updating.check_now(WITHIN_S)
    assert world.distrusted == [elsewhere.error]


def test_a_look_that_somebody_wants_meanwhile_does_not_push_an_import_out() -> None:
    world, elsewhere = World(), Source()
    with running(world) as updating:
        world.source.is_open.clear()
        updating.ring()
        until(lambda: len(world.source.asked) == 2)
        opening = threading.Timer(0.2, world.source.is_open.set)
        opening.start()
        ringing = threading.Timer(0.1, updating.ring)
        ringing.start()
        assert updating.take(elsewhere, WITHIN_S).changed
        opening.join()
        ringing.join()
