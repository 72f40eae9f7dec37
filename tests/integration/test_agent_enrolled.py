"""A device that was only enrolled finds everything by itself: broker over mTLS, and repository."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.settings.messaging import Broker
from edge_runtime.exit_codes import ExitCode
from tests import web_certificates
from tests.agent_site import STORY_S, AgentProcess
from tests.brokers import Certificates, Mosquitto, certificates, mosquitto
from tests.daemons import eventually
from tests.enrolment_server import (
    Authority,
    EnrolmentServer,
    common_name,
    enrolment_server,
    key_pem,
)
from tests.hostile_http import drip_head, hostile_server
from tests.repositories import TestRepository, new_repository, served

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class FleetCertificates(Certificates):
    """Certificates of the fleet's own authority, as the broker wants them."""

    authority: Authority | None = None

    def issue(self, name: str, *, is_server: bool = False, days: int = 30) -> tuple[Path, Path]:  # noqa: ARG002
        """Sign one for loopback."""
        assert self.authority is not None
        key = Ed25519PrivateKey.generate()
        files = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        files[0].write_bytes(self.authority.certify(common_name(name), key.public_key(), days=days))
        files[1].write_bytes(key_pem(key))
        files[1].chmod(0o600)
        return files


@contextmanager
def fleet(folder: Path) -> Iterator[tuple[EnrolmentServer, Mosquitto, TestRepository]]:
    """Run what a fleet has: enrolment, a broker that demands certificates, a repository."""
    for name in ("origin", "broker", "a"):
        (folder / name).mkdir()
    repository = new_repository(folder / "origin", fleet="shop")
    repository.add_bundle(model="digits")
    repository.set_plan(model="digits")
    authority = Authority()
    made = certificates(folder / "certificates")
    (folder / "certificates" / "fleet.pem").write_bytes(authority.pem)
    signed = FleetCertificates(
        folder / "certificates" / "fleet.pem", made.folder, made.key, made.certificate, authority
    )
    rules = "pattern readwrite edge/v1/shop/d/%u/#\npattern read edge/v1/shop/announce/#\n"
    with (
        served(repository),
        mosquitto(folder / "broker", tls=signed, is_mutual=True, acl=rules) as broker,
        enrolment_server(
            authority=authority,
            root=repository.root.read_bytes(),
            brokers=(Broker(host="127.0.0.1", port=broker.port),),
            repository=repository.url,
        ) as server,
    ):
        yield server, broker, repository


def is_connected(agent: AgentProcess) -> bool:
    return agent.is_up() and agent.status()["broker"]["is_connected"]


def test_an_enrolled_device_runs_with_nothing_but_its_enrolment(tmp_path: Path) -> None:
    with fleet(tmp_path) as (server, broker, repository):
        text = f'[device]\nclock_is_trusted = "yes"\n[runtime]\nadmin_socket = "{tmp_path}/no"\n'
        agent = AgentProcess(tmp_path / "a", text + "[mqtt]\nreconnect_most_s = 1.0\n")
        try:
            agent.command("enroll", server.url, server.token(), "--device", "till-7")
            agent.start()
            eventually(lambda: is_connected(agent), "the broker", STORY_S)
            eventually(
                lambda: agent.status()["repository"]["timestamp_version"] > 0,
                "the repository",
                STORY_S,
            )
            assert agent.status()["device"] == "till-7"
            assert agent.status()["repository"]["url"] == repository.url
            # The parts that libraries read may be lost: they are unpacked anew.
            assert agent.stop() == 0
            for name in ("certificate.pem", "ca.pem", "root.json"):
                (agent.state / name).unlink()
            agent.start()
            eventually(lambda: is_connected(agent), "the broker again", STORY_S)
            # Who has no certificate of the fleet does not come in.
            assert agent.stop() == 0
            stranger = AgentProcess(
                tmp_path / "origin",
                f'[device]\nid = "till-7"\nfleet = "shop"\n[mqtt]\nca = "{agent.state}/ca.pem"\n'
                f'[[mqtt.brokers]]\nhost = "127.0.0.1"\nport = {broker.port}\n',
            )
            stranger.start()
            eventually(
                lambda: stranger.is_up() and bool(stranger.status()["broker"]["problem"]),
                "the refusal",
                STORY_S,
            )
            assert not stranger.status()["broker"]["is_connected"]
            stranger.close()
        finally:
            agent.close()


def test_a_certificate_in_its_last_third_is_renewed_by_the_running_agent(tmp_path: Path) -> None:
    with fleet(tmp_path) as (server, _broker, _repository):
        server.certificate_days = 0.05  # it began an hour ago: two thirds of 72 minutes are over
        text = f'[device]\nclock_is_trusted = "yes"\n[runtime]\nadmin_socket = "{tmp_path}/no"\n'
        agent = AgentProcess(tmp_path / "a", text + "[mqtt]\nreconnect_most_s = 1.0\n")
        try:
            agent.command("enroll", server.url, server.token(), "--device", "till-7")
            old = (agent.state / "certificate.pem").read_bytes()
            server.certificate_days = 30
            agent.start()
            eventually(
                lambda: (agent.state / "certificate.pem").read_bytes() != old, "renewal", STORY_S
            )
            eventually(lambda: is_connected(agent), "the broker", STORY_S)
            eventually(lambda: "was renewed" in agent.log(), "word of it", STORY_S)
        finally:
            agent.close()


def test_a_renewal_that_brings_another_broker_ends_the_agent_which_begins_with_it(
    tmp_path: Path,
) -> None:
    with fleet(tmp_path) as (server, broker, _repository):
        server.certificate_days = 0.05  # two thirds of its time are over
        right = server.offers["brokers"]
        server.offers["brokers"] = (Broker(host="127.0.0.1", port=9),)
        text = f'[device]\nclock_is_trusted = "yes"\n[runtime]\nadmin_socket = "{tmp_path}/no"\n'
        agent = AgentProcess(tmp_path / "a", text + "[mqtt]\nreconnect_most_s = 1.0\n")
        try:
            agent.command("enroll", server.url, server.token(), "--device", "till-7")
            server.certificate_days, server.offers["brokers"] = 30, right
            agent.start()
            assert agent.process is not None
            assert agent.process.wait(STORY_S) == ExitCode.FAILED
            assert "brought other values of: brokers" in agent.log()
            agent.start()
            eventually(lambda: is_connected(agent), "the broker", STORY_S)
            assert agent.status()["broker"]["broker"].endswith(str(broker.port))
        finally:
            agent.close()


def test_a_slow_enrolment_server_stalls_neither_the_agent_nor_its_stop(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path, f'[runtime]\nadmin_socket = "{tmp_path}/no"\n')
    authority = web_certificates.Authority(tmp_path)
    with enrolment_server() as server, hostile_server(tmp_path, authority.server()) as slow:
        slow.fault("/renew", drip_head(0.01))
        try:
            agent.command("enroll", server.url, server.token(), "--device", "till-7")
            path = agent.state / "enrolment.json"
            known = msgspec.json.decode(path.read_bytes())
            known["enrolment"]["enrolment"] = slow.url
            changed = {"ca": authority.file.read_text("ascii"), "not_after_s": 1.0}
            path.write_bytes(msgspec.json.encode({**known, **changed}))
            agent.start()
            eventually(lambda: "/renew" in slow.paths(), "the renewal", STORY_S)
            eventually(agent.is_up, "an answer to who asks", STORY_S)
            assert agent.stop(within_s=STORY_S) == 0  # the server would be waited for longer
            assert msgspec.json.decode(path.read_bytes())["not_after_s"] == 1.0
            assert "renewed" not in agent.log()
        finally:
            agent.close()
