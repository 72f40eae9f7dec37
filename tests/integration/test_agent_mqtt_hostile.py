"""A broker that is an enemy: it can be silent and it can be late; it can do nothing else."""

import shutil
import socket
import struct
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from agent.commands import Commands, Order, Refusal
from agent.envelope import COMMAND_CONTEXT, wrap, write_command
from agent.identity import NAME
from agent.messages import Birth, Command, write
from agent.records.command_floor import CommandFloor
from agent.settings.messaging import Broker
from agent.topics import parse
from agent.transport.bounded_client import PACKET_BYTES_MAX
from agent.transport.clones import Suspicion
from agent.transport.inbox import COMMANDS_MAX
from tests.brokers import Mosquitto, mosquitto
from tests.daemons import eventually
from tests.fleet_receiver import Receiver
from tests.hostile_brokers import ACCEPTED_V5, ScriptedBroker, running
from tests.linked_device import LinkedDevice, local
from tests.signing import signing_key

pytestmark = pytest.mark.integration

KEY = signing_key("commands")
KEYS = {KEY.key_id: KEY.public_key}
NOW_S = 1_800_000_000.0
WITHIN_S = 150.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path) as running_one:
        yield running_one


@pytest.fixture
def device(tmp_path: Path, broker: Mosquitto) -> Iterator[LinkedDevice]:
    with LinkedDevice(tmp_path / "state", local(broker.port)) as one:
        eventually(one.is_subscribed, "the connection")
        yield one


def _publish(topic: bytes, payload: bytes, flags: int = 0) -> bytes:
    name = struct.pack("!H", len(topic)) + topic
    number = b"\x00\x07" if flags & 0x06 else b""
    body = name + number + b"\x00" + payload
    return bytes([0x30 | flags]) + _length(len(body)) + body


def _length(size: int) -> bytes:
    data = b""
    while True:
        size, low = divmod(size, 128)
        data += bytes([low | (0x80 if size else 0)])
        if not size:
            return data


ATTACKS = {
    "claims a packet of 256 MB": b"\x30\xff\xff\xff\x7f" + b"x" * 100_000,
    "claims a packet just too large": b"\x30" + _length(PACKET_BYTES_MAX + 1) + b"x" * 1000,
    "sends a length that does not end": b"\x30\xff\xff\xff\xff\xff\xff",
    "uses QoS 2": _publish(b"edge/v1/test/d/dev-1/cmd/a/b", b"x", flags=0x04),
    "uses QoS 3": _publish(b"edge/v1/test/d/dev-1/cmd/a/b", b"x", flags=0x06),
    "sends a packet of no kind": b"\x00\x00\xf0\x00",
    "sends noise": bytes(range(256)) * 40,
    "cuts a publish short": b"\x30\x02\x00\xff",
    "sends properties that are none": b"\x30\x08\x00\x01t\x7f\xff\xff\xff\xff",
    "acknowledges what was never sent": b"\x40\x02\xff\xff" * 50 + b"\xe0\x00",
    "answers subscriptions with nothing": b"\x90\x02\x00\x01" + b"\xe0\x00",
    "ends with a reason that is none": b"\xe0\x02\x63\x00",
    "says yes twice": ACCEPTED_V5 + b"\xe0\x00",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_broker_that_breaks_the_protocol_is_left_and_tried_again(
    tmp_path: Path, attack: str
) -> None:
    def script(sock: socket.socket, _level: int) -> None:
        sock.sendall(ACCEPTED_V5)
        sock.sendall(ATTACKS[attack])
        while sock.recv(65_536):
            pass

    with (
        running(ScriptedBroker(script)) as enemy,
        LinkedDevice(tmp_path / "state", local(enemy.port)) as device,
    ):
        device.status()
        eventually(lambda: len(enemy.levels) >= 3, "another try")
        assert device.link._thread.is_alive()
        assert device.outbox.waiting().statuses == 1
        device.link.stop()


@pytest.mark.parametrize(
    "garbage", [b"\x20\x00", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\x02\x00\x63"]
)
def test_a_server_that_is_no_broker_is_no_trouble(tmp_path: Path, garbage: bytes) -> None:
    with (
        running(ScriptedBroker(lambda sock, _level: sock.sendall(garbage))) as enemy,
        LinkedDevice(tmp_path / "state", local(enemy.port)) as device,
    ):
        eventually(lambda: len(enemy.levels) >= 3, "another try")
        assert not device.link.status.is_connected


def test_a_server_that_never_answers_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.transport.link.CONNECT_S", 0.2)
    with (
        running(ScriptedBroker(lambda sock, _level: enemy.read(sock))) as enemy,
        LinkedDevice(tmp_path / "state", local(enemy.port)) as device,
    ):
        eventually(lambda: len(enemy.levels) >= 3, "another try")
        assert "does not answer" in device.link.status.problem


@pytest.mark.parametrize("path", ["/mqtt", ""], ids=["websocket", "TLS"])
def test_a_handshake_that_drips_for_ever_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr("agent.transport.connection.CONNECT_S", 0.2)
    came: list[int] = []

    def drip(server: socket.socket) -> None:
        while True:
            try:
                sock, _ = server.accept()
            except OSError:
                return
            came.append(1)
            # A record or a line of a header that is never whole.
            data = b"\x16\x03\x03\x40\x00" if not path else b"HTTP"
            with sock:
                end = threading.Event()
                try:
                    while True:
                        sock.sendall(data)
                        data = b"x"
                        end.wait(0.05)
                except OSError:
                    continue

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        way = Broker(
            host="127.0.0.1", port=server.getsockname()[1], websocket_path=path, tls=not path
        )
        with LinkedDevice(tmp_path / "state", local(1, brokers=(way,))):
            eventually(lambda: len(came) >= 3, "another try")
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_garbage_and_huge_payloads_are_dropped_and_counted_and_the_link_stays(
    device: LinkedDevice, broker: Mosquitto
) -> None:
    with Receiver(broker.port, device.keys) as enemy:
        before = device.inbox.dropped
        enemy.publish(device.topics.announcement, b"\xff" * 120_000, retain=True)
        enemy.publish(device.topics.command("collect", "x"), b"\xfe" * 100_000)
        eventually(lambda: device.inbox.dropped == before + 2, "the count")
        enemy.publish(device.topics.announcement, b"{", retain=True)
        eventually(lambda: bool(device.inbox._announcement), "the announcement")
        assert device.link.status.connections == 1


def test_a_flood_of_commands_takes_no_memory_and_no_announcement(
    device: LinkedDevice, broker: Mosquitto
) -> None:
    with Receiver(broker.port, device.keys) as enemy:
        for number in range(COMMANDS_MAX * 3):
            enemy.publish(device.topics.command("collect", f"c{number}"), b"x")
        enemy.publish(device.topics.announcement, b"timestamp")
        eventually(lambda: device.inbox._announcement is not None, "the announcement")
        assert device.inbox.dropped == COMMANDS_MAX * 2
        assert len(device.inbox.take()) == COMMANDS_MAX + 1


def test_only_a_command_with_the_right_signature_place_time_and_turn_is_obeyed(
    device: LinkedDevice, broker: Mosquitto
) -> None:
    obeyed: list[Order] = []

    def obey(order: Order) -> dict[str, int]:
        obeyed.append(order)
        return {"done": 1}

    commands = Commands(KEYS, CommandFloor(device.file), lambda: NOW_S, obey)

    def command(counter: int, name: str, target: str = "dev-1", late_s: float = 60.0) -> Command:
        return Command(
            fleet="test",
            device=target,
            op="collect",
            id=name,
            counter=counter,
            expires_s=NOW_S + late_s,
        )

    good = write_command(command(5, "good"), KEY.sign)
    attacks = [
        ("good", good, None),
        ("good", good, Refusal.REPLAYED),
        ("other", good, Refusal.FORGED),
        ("older", write_command(command(4, "older"), KEY.sign), Refusal.REPLAYED),
        ("late", write_command(command(6, "late", late_s=-1), KEY.sign), Refusal.EXPIRED),
        ("fake", write_command(command(7, "fake"), signing_key("enemy").sign), Refusal.FORGED),
        ("theirs", write_command(command(8, "theirs", "dev-2"), KEY.sign), Refusal.FORGED),
        ("bent", good.replace(b"counter", b"countre"), Refusal.FORGED),
        ("noise", b"\x00\xff", Refusal.MALFORMED),
        ("next", write_command(command(9, "next"), KEY.sign), None),
    ]
    with Receiver(broker.port, device.keys) as enemy:
        for name, data, refusal in attacks:
            count = len(obeyed), commands.refused.total()
            enemy.publish(device.topics.command("collect", name), data)
            eventually(lambda: bool(device.inbox._commands), "the command")
            (incoming,) = device.inbox.take()
            answer = commands.receive(incoming.topic, incoming.payload)
            assert (answer is not None) == (refusal is None), name
            is_obeyed = refusal is None
            assert len(obeyed) == count[0] + is_obeyed, name
            assert commands.refused.total() == count[1] + (not is_obeyed), name
            if refusal is not None:
                assert commands.refused[refusal] > 0


def test_a_command_is_not_obeyed_again_after_a_restart(device: LinkedDevice) -> None:
    order = Command(
        fleet="test", device="dev-1", op="collect", id="c", counter=3, expires_s=NOW_S + 1
    )
    data = write_command(order, KEY.sign)
    topic = parse(device.topics.command("collect", "c"))
    assert topic is not None
    for is_first in (True, False):
        commands = Commands(KEYS, CommandFloor(device.file), lambda: NOW_S, lambda _: {})
        assert (commands.receive(topic, data) is not None) is is_first


def test_a_report_is_never_a_command(device: LinkedDevice) -> None:
    assert not COMMAND_CONTEXT.startswith(b"edge-runtime/report")
    assert device.key.sign(b"x") != device.key.sign(COMMAND_CONTEXT + b"x")


def test_a_forged_birth_is_no_reason_to_hide(device: LinkedDevice, broker: Mosquitto) -> None:
    device.birth()
    eventually(lambda: bool(device.arrived), "the birth")
    forged = wrap("stranger", 1, write(Birth(boot_id="stranger")), signing_key("enemy").sign(b"x"))
    with Receiver(broker.port, device.keys) as enemy:
        for payload in (forged, b"{}", b"\xff", wrap("stranger", 1, b"{}", None)):
            enemy.publish(device.topics.birth, payload, retain=True)
        enemy.publish(device.topics.announcement, b"after")
        eventually(lambda: device.inbox._announcement is not None, "the announcement")
        assert device.clones.suspicion is Suspicion.NONE


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_two_agents_with_one_identity_find_out_and_get_out_of_each_others_way(
    tmp_path: Path, broker: Mosquitto, protocol: str
) -> None:
    settings = local(broker.port, reconnect_first_s=0.05, reconnect_most_s=5.0, protocol=protocol)
    one = LinkedDevice(tmp_path / "one", settings)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "device.key").write_bytes((tmp_path / "one/device.key").read_bytes())
    (tmp_path / "two" / "device.key").chmod(0o600)
    two = LinkedDevice(tmp_path / "two", settings)
    assert one.key.key_id == two.key.key_id
    with one, two:

        def birth_again() -> bool:
            for each in (one, two):
                if each.link.status.is_connected and not each.outbox.waiting().latest:
                    each.birth()
            return one.clones.suspicion is two.clones.suspicion is Suspicion.CLONED

        eventually(birth_again, "the discovery", WITHIN_S)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_broker_that_repeats_every_birth_and_throws_the_device_off_makes_no_clone(
    tmp_path: Path, broker: Mosquitto, protocol: str
) -> None:
    settings = local(broker.port, protocol=protocol)
    said: list[bytes] = []
    for run in range(3):
        # The records are lost each time: the device remembers none of its runs.
        state = tmp_path / f"run-{run}"
        state.mkdir()
        if run:
            shutil.copy(tmp_path / "run-0" / NAME, state / NAME)
        with (
            LinkedDevice(state, settings) as device,
            Receiver(broker.port, device.keys, client_id="enemy") as enemy,
        ):
            for birth in said:
                device.birth()
                enemy.publish(device.topics.birth, birth, retain=True)
                thrown = device.link.status.connections
                with Receiver(broker.port, {}, client_id=device.topics.client_id):
                    pass
                eventually(partial(_is_back, device, thrown), "the next connection")
            if run:
                eventually(partial(_is_suspicious, device), "what was repeated")
            last = device.birth()
            eventually(partial(_is_told, device), "its births")
            heard = enemy.runs[device.outbox.boot_id].seqs
            eventually(partial(heard.__contains__, last), "the last of them")
            assert device.clones.suspicion is (Suspicion.SUSPECTED if run else Suspicion.NONE)
            said = list(
                dict.fromkeys(data for topic, data in enemy.raw if topic == device.topics.birth)
            )


def _is_back(device: LinkedDevice, thrown: int) -> bool:
    return device.link.status.connections > thrown


def _is_suspicious(device: LinkedDevice) -> bool:
    return device.clones.suspicion is not Suspicion.NONE


def _is_told(device: LinkedDevice) -> bool:
    return not device.outbox.waiting().latest and device.link.status.is_connected


def test_a_device_that_comes_back_is_no_clone_of_itself(tmp_path: Path, broker: Mosquitto) -> None:
    for _ in range(3):
        with LinkedDevice(tmp_path / "state", local(broker.port)) as device:
            device.birth()
            eventually(lambda: bool(device.arrived), "the birth")
            broker.restart()
            eventually(
                lambda: device.link.status.connections >= 2,
                "the next connection",
            )
            assert device.clones.suspicion is Suspicion.NONE
