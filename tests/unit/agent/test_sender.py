"""The sender: how much is under way, how fast, and what waits."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.envelope import unwrap
from agent.records.outbox_rows import Priority
from agent.topics import parse
from agent.transport.sender import ACKNOWLEDGED_S, LONG_AWAY_S, UNLIMITED
from agent.transport.terms import Grants
from tests.outbox_world import IN_FLIGHT
from tests.sending import GRANTS, KEY, TOPICS, Sending


@pytest.fixture
def sending(tmp_path: Path) -> Iterator[Sending]:
    made = Sending(tmp_path / "state")
    yield made
    made.world.file.close()


def test_no_more_is_under_way_than_agreed_whoever_is_stricter(sending: Sending) -> None:
    sending.fill(50)
    sending.sender.connected(sending.wire, GRANTS)
    sending.sender.turn()
    assert len(sending.wire.sent) == IN_FLIGHT
    sending.sender.lost()
    sending.wire.sent.clear()
    strict = Grants(
        is_v5=True, receive_max=2, packet_bytes_max=0, takes_retained=True, has_session=True
    )
    sending.sender.connected(sending.wire, strict)
    sending.sender.turn()
    assert len(sending.wire.sent) == 2


def test_a_word_of_the_broker_makes_room_for_the_next(sending: Sending) -> None:
    sending.fill(10)
    sending.sender.connected(sending.wire, GRANTS)
    while sending.world.outbox.waiting().metrics:
        sending.turn()
    assert len(sending.wire.sent) == 10


def test_a_drain_is_no_faster_than_agreed(tmp_path: Path) -> None:
    sending = Sending(tmp_path / "state", drain_per_s=2.0)
    sending.fill(100)
    sending.sender.connected(sending.wire, GRANTS)
    for _ in range(40):
        wait_s = sending.sender.turn()
        sending.acknowledge_all()
        sending.world.clock.now_s += min(wait_s or 0.25, 0.25)
    assert len(sending.wire.sent) <= IN_FLIGHT + 40 * 0.25 * 2.0
    assert len(sending.wire.sent) > IN_FLIGHT
    sending.world.file.close()


def test_it_says_when_it_wants_another_turn_and_else_sleeps(tmp_path: Path) -> None:
    sending = Sending(tmp_path / "state", drain_per_s=0.5)
    assert sending.sender.turn() is None
    sending.sender.connected(sending.wire, GRANTS)
    assert sending.sender.turn() is None
    sending.fill(IN_FLIGHT + 1)
    sending.sender.turn()
    sending.acknowledge_all()
    assert sending.sender.turn() == pytest.approx(2.0)
    sending.world.file.close()


def test_after_a_long_absence_much_waits_for_a_random_pause_and_little_does_not(
    tmp_path: Path,
) -> None:
    sending = Sending(tmp_path / "state", drain_jitter_s=30.0)
    sending.sender.connected(sending.wire, GRANTS)
    sending.sender.lost()
    sending.world.clock.now_s += LONG_AWAY_S
    sending.fill(IN_FLIGHT)
    sending.sender.connected(sending.wire, GRANTS)
    sending.sender.turn()
    assert len(sending.wire.sent) == IN_FLIGHT
    sending.sender.lost()
    sending.world.clock.now_s += LONG_AWAY_S
    sending.fill(10)
    sending.world.add(Priority.LATEST, topic=TOPICS.birth)
    sending.wire.sent.clear()
    sending.sender.connected(sending.wire, GRANTS)
    assert sending.sender.turn() == pytest.approx(30.0)
    assert [topic for topic, _ in sending.wire.sent] == [TOPICS.birth]
    sending.world.clock.now_s += 30.0
    sending.sender.turn()
    assert len(sending.wire.sent) == IN_FLIGHT
    sending.world.file.close()


def test_after_a_short_absence_nothing_waits(tmp_path: Path) -> None:
    sending = Sending(tmp_path / "state", drain_jitter_s=30.0)
    sending.sender.connected(sending.wire, GRANTS)
    sending.sender.lost()
    sending.fill(50)
    sending.world.clock.now_s += LONG_AWAY_S - 1
    sending.sender.connected(sending.wire, GRANTS)
    sending.sender.turn()
    assert len(sending.wire.sent) == IN_FLIGHT
    sending.world.file.close()


def test_a_connection_that_ended_while_sending_loses_nothing(sending: Sending) -> None:
    sending.fill(10)
    sending.sender.connected(sending.wire, GRANTS)
    sending.wire.is_open = False
    sending.sender.turn()
    sending.sender.lost()
    sending.wire.is_open = True
    sending.sender.connected(sending.wire, GRANTS)
    while sending.world.outbox.waiting().metrics:
        sending.turn()
    assert len({payload for _, payload in sending.wire.sent}) == 10


def test_a_broker_that_takes_and_says_nothing_is_noticed(sending: Sending) -> None:
    sending.fill(1)
    sending.sender.connected(sending.wire, GRANTS)
    wait_s = sending.sender.turn()
    assert not sending.sender.is_stuck()
    assert wait_s is not None
    assert wait_s > ACKNOWLEDGED_S
    sending.world.clock.now_s += wait_s
    assert sending.sender.is_stuck()


def test_acknowledgements_of_what_was_never_sent_change_nothing(sending: Sending) -> None:
    sending.fill(1)
    sending.sender.connected(sending.wire, GRANTS)
    sending.sender.acknowledged(99, 0)
    assert sending.world.outbox.waiting().metrics == 1


def test_what_is_sent_again_is_the_same_to_the_byte_but_for_being_old(sending: Sending) -> None:
    sending.fill(1, Priority.STATUS)
    for _ in range(3):
        sending.sender.connected(sending.wire, GRANTS)
        sending.sender.turn()
        sending.sender.lost()
    topic = parse(TOPICS.job("r1"))
    assert topic is not None
    told = [unwrap(topic, data, {KEY.key_id: KEY.public_key}) for _, data in sending.wire.sent]
    assert len({(envelope.boot_id, envelope.seq, payload) for envelope, payload in told}) == 1


def test_metrics_wait_while_the_budget_is_spent_and_statuses_do_not(sending: Sending) -> None:
    sending.purse.room_bytes = 0
    sending.fill(3)
    sending.fill(1, Priority.STATUS)
    sending.sender.connected(sending.wire, GRANTS)
    sending.turn()
    assert [topic for topic, _ in sending.wire.sent] == [TOPICS.job("r1")]
    sending.purse.room_bytes = UNLIMITED
    sending.turn()
    assert len(sending.wire.sent) == 4
    assert sending.purse.size_bytes > sum(len(data) for _, data in sending.wire.sent)


def test_near_the_end_of_the_budget_one_batch_goes_at_a_time(sending: Sending) -> None:
    sending.fill(10)
    sending.purse.room_bytes = 1
    sending.sender.connected(sending.wire, GRANTS)
    spend = sending.purse.spent

    def spent(size_bytes: int) -> None:
        spend(size_bytes)
        sending.purse.room_bytes -= size_bytes

    sending.purse.spent = spent  # type: ignore[method-assign]
    sending.turn()
    assert len(sending.wire.sent) == 1


def test_what_the_budget_held_back_is_sent_as_old_and_what_comes_then_as_new(
    sending: Sending,
) -> None:
    sending.purse.room_bytes = 0
    sending.sender.connected(sending.wire, GRANTS)
    sending.fill(1)
    sending.turn()
    assert sending.wire.sent == []
    sending.purse.room_bytes = UNLIMITED
    sending.fill(1, Priority.STATUS)
    sending.turn()
    sending.fill(1)
    sending.turn()
    topics = {topic: parse(topic) for topic, _ in sending.wire.sent}
    told = []
    for topic, data in sending.wire.sent:
        parsed = topics[topic]
        assert parsed is not None
        told.append((topic, unwrap(parsed, data, {KEY.key_id: KEY.public_key})[0].historical))
    assert told == [(TOPICS.job("r1"), False), (TOPICS.metrics, True), (TOPICS.metrics, False)]


def test_when_a_new_month_begins_a_fleet_does_not_send_all_at_once_and_statuses_do_not_wait(
    tmp_path: Path,
) -> None:
    sending = Sending(tmp_path / "state", drain_jitter_s=30.0)
    sending.purse.room_bytes = 0
    sending.sender.connected(sending.wire, GRANTS)
    sending.fill(2)
    sending.turn()
    sending.purse.room_bytes = UNLIMITED
    sending.fill(1, Priority.STATUS)
    wait_s = sending.sender.turn()
    assert [topic for topic, _ in sending.wire.sent] == [TOPICS.job("r1")]
    assert wait_s is not None
    assert wait_s <= 30.0
    sending.acknowledge_all()
    sending.world.clock.now_s += 30.0
    sending.turn()
    assert len(sending.wire.sent) == 3
    sending.world.file.close()


def test_a_message_is_counted_each_time_it_is_sent_and_before_it_goes(sending: Sending) -> None:
    sending.fill(1, Priority.STATUS)
    sending.wire.is_open = False
    sending.sender.connected(sending.wire, GRANTS)
    sending.sender.turn()
    once = sending.purse.size_bytes
    assert once > 0
    sending.sender.lost()
    sending.wire.is_open = True
    sending.sender.connected(sending.wire, GRANTS)
    sending.turn()
    assert sending.purse.size_bytes >= 2 * once
