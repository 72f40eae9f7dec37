"""The link against a real mosquitto: reports out, commands in, and a broker that comes and goes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.envelope import write_command
from agent.messages import Command, Presence, State, read
from agent.records.outbox_rows import Priority
from agent.settings import messaging
from agent.settings.messaging import Broker
from agent.topics import Kind
from tests.brokers import HOST, Mosquitto, free_port, mosquitto
from tests.daemons import eventually
from tests.fleet_receiver import Receiver
from tests.linked_device import LinkedDevice, local
from tests.signing import signing_key

pytestmark = pytest.mark.integration


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path, persistence=True) as running:
        yield running


@pytest.fixture
def device(tmp_path: Path, broker: Mosquitto) -> Iterator[LinkedDevice]:
    with LinkedDevice(tmp_path / "state", local(broker.port)) as running:
        yield running


def _is_connected(device: LinkedDevice) -> bool:
    return device.link.status.is_connected


def _is_empty(device: LinkedDevice) -> bool:
    waiting = device.outbox.waiting()
    return waiting.statuses + waiting.metrics + waiting.latest == 0


def test_reports_arrive_signed_and_leave_the_outbox(
    device: LinkedDevice, broker: Mosquitto
) -> None:
    with Receiver(broker.port, device.keys) as receiver:
        numbers = {device.birth(), device.status(), device.metrics()}
        heard = receiver.runs[device.outbox.boot_id]
        eventually(lambda: heard.seqs.keys() == numbers, "the reports' arrival")
        eventually(lambda: _is_empty(device), "an empty outbox")
        assert receiver.forged == 0
        eventually(lambda: receiver.state_of("dev-1") is State.READY, "ready")


def test_says_how_it_is_there_and_says_goodbye(tmp_path: Path, broker: Mosquitto) -> None:
    with (
        LinkedDevice(tmp_path / "state", local(broker.port)) as device,
        Receiver(broker.port, device.keys) as receiver,
    ):
        eventually(lambda: receiver.state_of("dev-1") is State.INIT, "init")
        device.birth()
        eventually(lambda: receiver.state_of("dev-1") is State.READY, "ready")
        device.link.stop()
        eventually(lambda: receiver.state_of("dev-1") is State.DISCONNECTED, "goodbye")


def test_the_broker_says_lost_for_a_device_that_goes_without_a_word(
    tmp_path: Path, broker: Mosquitto
) -> None:
    with (
        LinkedDevice(tmp_path / "state", local(broker.port)) as device,
        Receiver(broker.port, device.keys) as receiver,
    ):
        device.birth()
        eventually(lambda: receiver.state_of("dev-1") is State.READY, "ready")
        connection = device.link._connection
        assert connection is not None
        connection._client.give_up()
        eventually(lambda: b"lost" in b"".join(data for _, data in receiver.raw), "the last will")
        eventually(lambda: receiver.state_of("dev-1") is State.INIT, "init again")


def test_a_broker_that_was_killed_gets_everything_when_it_is_back(
    device: LinkedDevice, broker: Mosquitto
) -> None:
    eventually(lambda: _is_connected(device), "the connection")
    broker.kill()
    eventually(lambda: not _is_connected(device), "the loss")
    numbers = {device.status(), device.metrics(), device.birth()}
    assert "refused" in device.link.status.problem or "lost" in device.link.status.problem
    broker.restart()
    with Receiver(broker.port, device.keys) as receiver:
        numbers.add(device.status())
        run = device.outbox.boot_id
        eventually(lambda: _is_empty(device), "an empty outbox")
        # The first three may have come before the receiver; the broker keeps only the birth.
        eventually(lambda: bool(receiver.runs[run].seqs.keys() & numbers), "reports")
    assert device.link.status.connections == 2
    assert device.link.status.problem == ""


def test_what_waited_while_the_broker_was_away_is_called_historical(
    tmp_path: Path, broker: Mosquitto
) -> None:
    with (
        LinkedDevice(tmp_path / "state", local(broker.port)) as device,
        Receiver(broker.port, device.keys) as receiver,
    ):
        eventually(lambda: _is_connected(device), "the connection")
        now = device.status()
        run = device.outbox.boot_id
        eventually(lambda: now in receiver.runs[run].seqs, "the first report")
        broker.stop()
        eventually(lambda: not _is_connected(device), "the loss")
        late = device.status()
        broker.restart()
        eventually(lambda: late in receiver.runs[run].seqs, "the late report")
        assert receiver.historical[run] == {late}


def test_haste_asked_for_while_connected_does_not_spare_the_pause_after_a_later_loss(
    tmp_path: Path, broker: Mosquitto
) -> None:
    slow = local(broker.port, reconnect_first_s=600.0, reconnect_most_s=600.0)
    with LinkedDevice(tmp_path / "slow", slow) as device:
        device.link._backoff._uniform = lambda _low, high: high
        eventually(lambda: _is_connected(device), "a connection")
        device.link.try_now()
        broker.stop()
        eventually(lambda: not _is_connected(device), "the loss")
        broker.restart()
        assert not device.link._hurry.is_set()
        assert device.link.status.connections == 1
        assert "cannot connect" not in device.link.status.problem
        device.link.try_now()
        eventually(lambda: _is_connected(device), "a connection at once")


def test_a_broker_that_is_gone_for_good_is_left_for_another(
    tmp_path: Path, broker: Mosquitto
) -> None:
    dead, alive = free_port(), broker.port
    brokers = [Broker(host=HOST, port=port, tls=False) for port in (dead, alive)]
    with LinkedDevice(tmp_path / "state", local(alive, brokers=brokers)) as device:
        eventually(lambda: _is_connected(device), "the connection")
        assert str(alive) in device.link.status.broker


def test_wrong_credentials_are_said_and_not_tried_again_soon(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("wrong\n")
    with mosquitto(tmp_path, users={"dev-1": "right"}) as broker:
        settings = local(
            broker.port,
            username="dev-1",
            password_file=str(password),
            reconnect_most_s=3600,
        )
        with LinkedDevice(tmp_path / "state", settings) as device:
            eventually(lambda: "refuses" in device.link.status.problem, "the refusal")
            assert "authori" in device.link.status.problem.lower()
            assert broker.log().count("New client connected") == 0
            # The right word helps at once when somebody asks.
            password.write_text("right\n")
            device.link.try_now()
            eventually(lambda: _is_connected(device), "the connection")


def test_never_more_is_in_flight_than_the_broker_takes(tmp_path: Path) -> None:
    with (
        mosquitto(tmp_path, more=["max_inflight_messages 3"]) as broker,
        LinkedDevice(tmp_path / "state", local(broker.port)) as device,
        Receiver(broker.port, device.keys) as receiver,
    ):
        for number in range(200):
            device.metrics(number)
        run = device.outbox.boot_id
        eventually(lambda: receiver.count(run) == 200, "every report")
        assert device.sender._room == 3


def test_a_message_that_the_broker_does_not_take_stops_no_other(tmp_path: Path) -> None:
    with mosquitto(tmp_path, more=["max_packet_size 2000"]) as broker:
        with (
            LinkedDevice(tmp_path / "state", local(broker.port)) as device,
            Receiver(broker.port, device.keys) as receiver,
        ):
            eventually(lambda: _is_connected(device), "the connection")
            run = device.outbox.boot_id
            large = device.metrics(1, 5000)
            small = device.metrics(2)
            eventually(lambda: small in receiver.runs[run].seqs, "the small one")
            eventually(lambda: bool(receiver.runs[run].gaps), "the gap")
            (gap,) = receiver.runs[run].gaps
            assert (gap.first_seq, gap.count, gap.reason) == (large, 1, "too-large")
        assert "no message of" in device.sender.problem


def test_the_drain_of_many_reports_begins_after_a_pause_but_births_do_not_wait(
    tmp_path: Path, broker: Mosquitto
) -> None:
    slow = messaging.Outbox(drain_per_s=10_000, drain_jitter_s=3600)
    state = tmp_path / "state"
    with LinkedDevice(state, local(broker.port), outbox_settings=slow) as device:
        device.link.stop()
    with Receiver(broker.port, device.keys) as receiver:
        again = LinkedDevice(state, local(broker.port), outbox_settings=slow)
        again.sender._uniform = lambda _low, high: high
        for number in range(100):
            again.metrics(number)
        birth = again.birth()
        with again:
            run = again.outbox.boot_id
            eventually(lambda: birth in receiver.runs[run].seqs, "the birth")
            assert receiver.count(run) == 1
            assert again.outbox.waiting().metrics == 100


def test_announcements_and_commands_come_in_and_only_the_newest_announcement_counts(
    device: LinkedDevice, broker: Mosquitto
) -> None:
    with Receiver(broker.port, device.keys) as fleet:
        fleet.publish(device.topics.announcement, b"one", retain=True)
        eventually(device.is_subscribed, "the connection")
        fleet.publish(device.topics.announcement, b"two", retain=True)
        order = Command(
            fleet="test", device="dev-1", op="check-now", id="c1", counter=1, expires_s=2e9
        )
        data = write_command(order, signing_key("commands").sign)
        fleet.publish(device.topics.command("check-now", "c1"), data)
        taken = []

        def has_both() -> bool:
            taken.extend(device.inbox.take())
            return {each.topic.kind for each in taken} >= {Kind.ANNOUNCEMENT, Kind.COMMAND}

        eventually(has_both, "announcement and command")
        announcements = [each for each in taken if each.topic.kind is Kind.ANNOUNCEMENT]
        assert announcements[-1].payload == b"two"
        assert [each.payload for each in taken if each.topic.kind is Kind.COMMAND] == [data]


def test_a_command_that_was_given_while_the_device_was_away_comes_when_it_is_back(
    tmp_path: Path, broker: Mosquitto
) -> None:
    with LinkedDevice(tmp_path / "state", local(broker.port)) as device:
        eventually(lambda: _is_connected(device), "the connection")
    with Receiver(broker.port, device.keys) as fleet:
        fleet.publish(device.topics.command("check-now", "c2"), b"later")
    with LinkedDevice(tmp_path / "state", local(broker.port)) as device:
        eventually(lambda: bool(device.inbox._commands), "the command")
        assert [each.payload for each in device.inbox.take()] == [b"later"]


def test_the_wire_is_json_that_says_who_and_which(device: LinkedDevice, broker: Mosquitto) -> None:
    with Receiver(broker.port, device.keys) as receiver:
        seq = device.metrics(7)
        eventually(lambda: bool(receiver.count(device.outbox.boot_id)), "the batch")
        told = [json.loads(data) for topic, data in receiver.raw if topic.endswith("/m")]
        assert told[0]["boot_id"] == device.outbox.boot_id
        assert told[0]["seq"] == seq
        assert told[0]["payload"]["batch"]["number"] == 7
        states = [read(data, Presence) for topic, data in receiver.raw if topic.endswith("/state")]
        assert {each.boot_id for each in states} == {device.outbox.boot_id}


def test_retained_reports_are_there_for_who_comes_later(
    device: LinkedDevice, broker: Mosquitto
) -> None:
    device.say(device.topics.metrics, b"{}", Priority.METRICS)
    device.birth()
    eventually(lambda: _is_empty(device), "an empty outbox")
    with Receiver(broker.port, device.keys, client_id="late") as receiver:
        eventually(lambda: receiver.state_of("dev-1") is State.READY, "the state")
        eventually(lambda: bool(receiver.on(device.topics.birth)), "the birth")
        assert receiver.on(device.topics.metrics) == []
