"""When and how brokers are tried again."""

import pytest

from agent.transport.backoff import (
    EARLY_ENDS_KNOWN_MAX,
    EARLY_ENDS_MAX,
    STABLE_S,
    Backoff,
    Outcome,
    Protocol,
)


def _most(_low: float, high: float) -> float:
    return high


def _least(low: float, _high: float) -> float:
    return low


def test_pauses_double_up_to_the_longest_and_go_on_for_ever() -> None:
    backoff = Backoff(1, 1.0, 600.0, _most)
    pauses = [backoff.after(Outcome.UNREACHABLE).pause_s for _ in range(2000)]
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert pauses[-1] == max(pauses) == 600.0


def test_jitter_is_full_so_that_a_fleet_does_not_come_back_together() -> None:
    backoff = Backoff(1, 1.0, 600.0, _least)
    assert {backoff.after(Outcome.LOST).pause_s for _ in range(20)} == {0.0}


def test_only_a_connection_that_lasted_makes_pauses_small_again() -> None:
    backoff = Backoff(1, 1.0, 600.0, _most)
    for _ in range(5):
        backoff.after(Outcome.UNREACHABLE)
    assert backoff.after(Outcome.LOST, STABLE_S - 1).pause_s == 32.0
    assert backoff.after(Outcome.LOST, STABLE_S).pause_s == 1.0


def test_brokers_are_tried_in_turn_and_a_round_counts_as_one_failure() -> None:
    backoff = Backoff(3, 1.0, 600.0, _most)
    tries = [backoff.first(), *(backoff.after(Outcome.UNREACHABLE) for _ in range(6))]
    assert [each.broker for each in tries] == [0, 1, 2, 0, 1, 2, 0]
    assert [each.pause_s for each in tries] == [0.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0]


def test_a_lost_broker_is_tried_first() -> None:
    backoff = Backoff(3, 1.0, 600.0, _most)
    backoff.after(Outcome.UNREACHABLE)
    backoff.accepted()
    assert backoff.after(Outcome.LOST).broker == 1


def test_who_is_refused_by_every_broker_comes_back_late() -> None:
    backoff = Backoff(2, 1.0, 600.0, _least)
    assert backoff.after(Outcome.REFUSED).pause_s == 0.0
    assert backoff.after(Outcome.REFUSED).pause_s == 300.0


def test_who_is_in_the_way_comes_back_late() -> None:
    backoff = Backoff(1, 1.0, 600.0, _least)
    assert backoff.after(Outcome.LOST, hold=True).pause_s == 300.0


def test_an_old_broker_is_asked_in_its_version_at_once_and_it_is_remembered() -> None:
    backoff = Backoff(2, 1.0, 600.0, _most)
    assert backoff.first().is_v5
    old = backoff.after(Outcome.REFUSED_VERSION)
    assert (old.broker, old.is_v5) == (0, False)
    backoff.accepted()
    for _ in range(EARLY_ENDS_KNOWN_MAX - 1):
        again = backoff.after(Outcome.LOST)
        assert (again.broker, again.is_v5) == (0, False)
    assert backoff.after(Outcome.UNREACHABLE).is_v5  # the other broker


def test_a_broker_that_only_hangs_up_is_asked_in_the_other_version() -> None:
    backoff = Backoff(1, 1.0, 600.0, _most)
    versions = [backoff.after(Outcome.ENDED_EARLY).is_v5 for _ in range(4 * EARLY_ENDS_MAX)]
    assert versions == [False, True, False, True]


def test_a_broker_that_may_not_understand_mqtt_5_is_not_waited_for_as_long() -> None:
    backoff = Backoff(1, 1.0, 600.0, _most)
    assert backoff.first().is_in_doubt
    assert backoff.after(Outcome.UNREACHABLE).is_in_doubt  # it has not been asked yet
    assert not backoff.after(Outcome.ENDED_EARLY).is_in_doubt


def test_who_was_understood_once_does_not_change_for_one_early_end() -> None:
    backoff = Backoff(1, 1.0, 600.0, _most)
    backoff.accepted()
    versions = {backoff.after(Outcome.ENDED_EARLY).is_v5 for _ in range(EARLY_ENDS_KNOWN_MAX - 1)}
    assert versions == {True}


@pytest.mark.parametrize(("protocol", "is_v5"), [("5", True), ("3.1.1", False)])
@pytest.mark.parametrize("outcome", [Outcome.REFUSED_VERSION, Outcome.ENDED_EARLY])
def test_a_version_that_the_owner_chose_stays(
    protocol: Protocol, outcome: Outcome, *, is_v5: bool
) -> None:
    backoff = Backoff(1, 1.0, 600.0, _most, protocol)
    assert not backoff.first().is_in_doubt
    assert {backoff.after(outcome).is_v5 for _ in range(60)} == {is_v5}


def test_two_versions_refused_is_no_hot_loop() -> None:
    backoff = Backoff(1, 1.0, 600.0, _most)
    pauses = [backoff.after(Outcome.REFUSED_VERSION).pause_s for _ in range(40)]
    assert max(pauses) > 100


@pytest.mark.parametrize("outcome", list(Outcome))
def test_there_is_always_a_next_try(outcome: Outcome) -> None:
    backoff = Backoff(2, 0.5, 60.0, _most)
    for _ in range(500):
        following = backoff.after(outcome)
        assert 0 <= following.pause_s <= 60.0
        assert following.broker in {0, 1}
