"""TLS, access rules, Unix sockets, websockets and old brokers: every way there is to a broker."""

import ssl
import tempfile
import time
from pathlib import Path

import pytest

from agent.clock import Clock, NoFloor
from agent.settings.messaging import Broker
from tests.brokers import HOST, certificates, free_port, mosquitto
from tests.daemons import eventually
from tests.fleet_receiver import Receiver
from tests.hostile_brokers import REFUSED_VERSION, OldBroker, running
from tests.linked_device import LinkedDevice, local

pytestmark = pytest.mark.integration

ACL = """
user receiver
topic readwrite edge/v1/#
pattern write edge/v1/test/d/%u/#
pattern read edge/v1/test/announce/#
pattern read edge/v1/test/d/%u/cmd/+/+
pattern read edge/v1/test/d/%u/birth
"""


def _is_connected(device: LinkedDevice) -> bool:
    return device.link.status.is_connected


def _encrypted(port: int, **more: object) -> dict[str, object]:
    return {"brokers": (Broker(host=HOST, port=port, tls=True),), **more}


def test_a_device_with_a_certificate_may_speak_for_itself_and_for_nobody_else(
    tmp_path: Path,
) -> None:
    ca = certificates(tmp_path / "ca")
    own, own_key = ca.issue("dev-1")
    theirs, their_key = ca.issue("receiver")
    context = ssl.create_default_context(cafile=str(ca.ca))
    context.load_cert_chain(theirs, their_key)
    with mosquitto(tmp_path, tls=ca, is_mutual=True, acl=ACL) as broker:
        mine = {"ca": str(ca.ca), "certificate": str(own), "key": str(own_key)}
        settings = local(broker.port, **_encrypted(broker.port, **mine))
        with (
            LinkedDevice(tmp_path / "one", settings) as device,
            Receiver(broker.port, device.keys, tls=context) as receiver,
            LinkedDevice(tmp_path / "two", settings, device="dev-2") as liar,
        ):
            seq = device.status()
            run = device.outbox.boot_id
            eventually(lambda: seq in receiver.runs[run].seqs, "the report")
            liar.status()
            eventually(lambda: "refuses" in liar.sender.problem, "the refusal")
            assert liar.outbox.waiting().statuses == 1
            assert receiver.count(liar.outbox.boot_id) == 0


def test_a_broker_of_another_authority_is_not_believed(tmp_path: Path) -> None:
    ca, other = certificates(tmp_path / "ca"), certificates(tmp_path / "other", "other CA")
    with mosquitto(tmp_path, tls=ca) as broker:
        settings = local(broker.port, **_encrypted(broker.port, ca=str(other.ca)))
        with LinkedDevice(tmp_path / "state", settings) as device:
            eventually(lambda: "certificate" in device.link.status.problem, "the refusal")
            assert not _is_connected(device)


def test_a_device_in_1970_connects_and_one_that_knows_the_time_sees_an_ended_certificate(
    tmp_path: Path,
) -> None:
    ca = certificates(tmp_path / "ca")
    with mosquitto(tmp_path, tls=ca) as broker:
        settings = local(broker.port, **_encrypted(broker.port, ca=str(ca.ca)))
        lost = Clock(NoFloor(), "no", system=lambda: 0.0)
        with LinkedDevice(tmp_path / "one", settings, clock=lost) as device:
            eventually(lambda: _is_connected(device), "the connection")
        later = Clock(NoFloor(), "yes", system=lambda: time.time() + 90 * 86_400)
        with LinkedDevice(tmp_path / "two", settings, clock=later) as device:
            eventually(lambda: "has ended" in device.link.status.problem, "the refusal")


def test_a_missing_certificate_is_said_and_tried_again(tmp_path: Path) -> None:
    ca = certificates(tmp_path / "ca")
    with mosquitto(tmp_path, tls=ca) as broker:
        file = tmp_path / "late.pem"
        settings = local(broker.port, **_encrypted(broker.port, ca=str(file)))
        with LinkedDevice(tmp_path / "state", settings) as device:
            eventually(lambda: "late.pem" in device.link.status.problem, "the problem")
            file.write_bytes(ca.ca.read_bytes())
            eventually(lambda: _is_connected(device), "the connection")


def test_a_broker_on_a_unix_socket(tmp_path: Path) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="mqtt-", dir="/tmp") as short,  # at most 107 bytes
        mosquitto(tmp_path, unix=Path(short) / "s") as broker,
    ):
        path = Path(short) / "s"
        settings = local(broker.port, brokers=(Broker(unix=str(path)),))
        with (
            LinkedDevice(tmp_path / "state", settings) as device,
            Receiver(broker.port, device.keys) as receiver,
        ):
            seq = device.status()
            eventually(lambda: seq in receiver.runs[device.outbox.boot_id].seqs, "the report")


@pytest.mark.parametrize("is_encrypted", [False, True])
def test_a_broker_behind_a_websocket(tmp_path: Path, *, is_encrypted: bool) -> None:
    ca = certificates(tmp_path / "ca") if is_encrypted else None
    port = free_port()
    with mosquitto(tmp_path, websocket=port, tls=ca) as broker:
        way = Broker(host=HOST, port=port, websocket_path="/mqtt", tls=is_encrypted)
        settings = local(broker.port, brokers=(way,), ca=str(ca.ca) if ca else "")
        with LinkedDevice(tmp_path / "state", settings) as device:
            for number in range(50):
                device.metrics(number, 3000)
            eventually(lambda: device.outbox.waiting().metrics == 0, "an empty outbox")


@pytest.mark.parametrize("refusal", [REFUSED_VERSION, b""], ids=["says no", "hangs up"])
def test_an_old_broker_is_spoken_to_in_its_own_version_which_is_remembered(
    tmp_path: Path, refusal: bytes
) -> None:
    with (
        mosquitto(tmp_path, persistence=True) as broker,
        running(OldBroker(broker.port, refusal)) as old,
        LinkedDevice(tmp_path / "state", local(old.port)) as device,
        Receiver(broker.port, device.keys) as receiver,
    ):
        seqs = {device.birth(), device.status(), device.metrics()}
        run = device.outbox.boot_id
        eventually(lambda: receiver.runs[run].seqs.keys() == seqs, "the reports")
        assert device.link.status.is_v5 is False
        tried = len(old.levels)
        broker.stop()
        eventually(lambda: not _is_connected(device), "the loss")
        broker.restart()
        last = device.status()
        eventually(lambda: last in receiver.runs[run].seqs, "the last report")
        assert set(old.levels[tried:]) == {4}
