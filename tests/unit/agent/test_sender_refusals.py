"""What a broker refuses: kept, told, tried again more and more rarely, and in nobody's way."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.records.outbox_rows import Priority
from agent.transport.sender import REFUSED_S, REFUSED_S_MAX
from tests.outbox_world import IN_FLIGHT
from tests.sending import GRANTS, TOPICS, Sending

REFUSED = 0x87


@pytest.fixture
def sending(tmp_path: Path) -> Iterator[Sending]:
    made = Sending(tmp_path / "state")
    yield made
    made.world.file.close()


def test_what_the_broker_refuses_is_kept_and_not_sent_in_a_loop(sending: Sending) -> None:
    sending.fill(3, Priority.STATUS)
    sending.sender.connected(sending.wire, GRANTS)
    for _ in range(10):
        sending.turn(REFUSED)
    assert len(sending.wire.sent) == 3
    assert sending.sender.refused == 3
    assert sending.world.outbox.waiting().statuses == 3
    sending.sender.lost()
    sending.sender.connected(sending.wire, GRANTS)
    sending.sender.turn()
    assert len(sending.wire.sent) == 6


def refusing(sending: Sending, *refused: str) -> None:
    """Let a second pass, and the broker answer all that is under way by its topic."""
    sending.world.clock.now_s += 1.0
    sending.sender.turn()
    for number, sent in list(sending.sender._in_flight.items()):
        sending.sender.acknowledged(number, REFUSED if sent.row.topic in refused else 0)


def test_statuses_that_are_refused_for_good_keep_no_later_one_from_the_broker(
    sending: Sending, caplog: pytest.LogCaptureFixture
) -> None:
    sender, bad = sending.sender, TOPICS.job("bad")
    for number in range(3 * IN_FLIGHT):
        sending.world.add(Priority.STATUS, number, bad)
    sending.world.add(Priority.STATUS, 99, TOPICS.job("good"))
    for _ in range(4):
        sender.connected(sending.wire, GRANTS)
        for _ in range(5):
            refusing(sending, bad)
        sender.lost()
    assert [topic for topic, _ in sending.wire.sent].count(TOPICS.job("good")) == 1
    assert sending.world.outbox.waiting().statuses == 3 * IN_FLIGHT
    assert len([each for each in caplog.records if "refuses" in each.message]) == 1
    assert bad in sender.problem


def test_a_few_refused_among_many_close_nothing(sending: Sending) -> None:
    sending.sender.connected(sending.wire, GRANTS)
    for number in range(2 * IN_FLIGHT):
        sending.world.add(Priority.STATUS, number, TOPICS.job("bad"))
        sending.world.add(Priority.STATUS, number, TOPICS.job("good"))
    for _ in range(20):
        refusing(sending, TOPICS.job("bad"))
    assert sending.world.outbox.waiting().statuses == 2 * IN_FLIGHT
    assert sending.sender.refused == 2 * IN_FLIGHT


def test_mended_access_rules_are_noticed_in_the_same_connection_and_then_nothing_is_wrong(
    sending: Sending,
) -> None:
    sending.fill(2 * IN_FLIGHT, Priority.STATUS)
    sending.sender.connected(sending.wire, GRANTS)
    for _ in range(5):
        sending.turn(REFUSED)
    assert sending.sender.problem
    wait_s = sending.sender.turn()
    assert wait_s is not None
    assert wait_s <= REFUSED_S
    sending.world.clock.now_s += wait_s
    for _ in range(10):
        sending.turn()
    assert sending.world.outbox.waiting().statuses == 0
    assert sending.sender.problem == ""


def test_what_stays_refused_is_tried_more_and_more_rarely(sending: Sending) -> None:
    sending.fill(100, Priority.STATUS)
    sending.sender.connected(sending.wire, GRANTS)
    end_s = sending.world.clock.now_s + 7 * 86_400
    while sending.world.clock.now_s < end_s:
        sending.turn(REFUSED)
        wait_s = sending.sender.turn()
        assert wait_s is not None
        sending.world.clock.now_s += wait_s
    assert 100 < len(sending.wire.sent) <= IN_FLIGHT * (7 * 86_400 / REFUSED_S_MAX + 8)


def test_refused_metrics_do_not_hold_up_statuses(sending: Sending) -> None:
    sending.fill(50)
    sending.sender.connected(sending.wire, GRANTS)
    for _ in range(10):
        sending.turn(REFUSED)
    assert len(sending.wire.sent) <= 2 * IN_FLIGHT
    sending.fill(1, Priority.STATUS)
    sending.sender.turn()
    assert sending.wire.sent[-1][0] == TOPICS.job("r1")
