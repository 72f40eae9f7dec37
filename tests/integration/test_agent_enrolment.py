"""A device joins its fleet over real TLS, believing nothing but what its token names."""

from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.enrolment.joining import join, renew
from agent.enrolment.membership import Membership, read_membership, unpack, write_membership
from agent.enrolment.token import read_token
from agent.errors import AgentError, ConfigError, Distrust, NetworkError, RefusedError, TrustError
from agent.settings.messaging import Broker
from agent.trust.https import Https
from tests.enrolment_server import NOW, Authority, EnrolmentServer, enrolment_server

pytestmark = pytest.mark.integration

BROKER = Broker(host="broker.example", port=8883)


class Watch:
    """A clock that a test sets."""

    def __init__(self, now_s: float, *, is_trusted: bool = True) -> None:
        self.now_s, self.trusted = now_s, is_trusted

    def wall_s(self) -> float:
        """Give the time."""
        return self.now_s

    @property
    def own_floor_s(self) -> float:
        """Give what is past for sure."""
        return self.now_s

    def is_trusted(self) -> bool:
        """Tell whether it goes right."""
        return self.trusted


CLOCK = Watch(NOW.timestamp())


def joined(
    server: EnrolmentServer, token: str, key: Ed25519PrivateKey, clock: Watch = CLOCK
) -> Membership:
    return join(
        server.url,
        read_token(token),
        key=key,
        device="till-7",
        labels={"site": "oslo"},
        clock=clock,
    )


def test_a_device_joins_with_its_token_and_finds_everything_it_needs(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    with enrolment_server(root=b'{"a":1}', brokers=(BROKER,), repository="https://r") as server:
        membership = joined(server, server.token(), key)
    write_membership(tmp_path, membership)
    again = read_membership(tmp_path)
    assert again == membership
    assert (tmp_path / "enrolment.json").stat().st_mode & 0o777 == 0o600
    assert (membership.enrolment.fleet, membership.enrolment.device) == ("shop", "till-7")
    assert membership.enrolment.brokers == (BROKER,)
    assert membership.enrolment.enrolment == server.url
    ca, certificate, root = unpack(tmp_path, membership)
    assert root.read_bytes() == b'{"a":1}'
    assert ca.read_bytes() == server.authority.pem
    assert b"BEGIN CERTIFICATE" in certificate.read_bytes()


def test_a_server_with_another_ca_than_the_tokens_is_told_nothing() -> None:
    with enrolment_server() as honest:
        token = honest.token()
    with enrolment_server(authority=Authority()) as other:
        with pytest.raises(TrustError, match="another CA than the token names") as raised:
            joined(other, token, Ed25519PrivateKey.generate())
        assert raised.value.reason is Distrust.WRONG_HASH
        assert other.devices == {}


def test_a_server_that_only_shows_the_right_ca_is_told_nothing() -> None:
    """The fingerprint is public: who copies the CA's certificate does not have its key."""

    class Liar(Authority):
        @property
        def pem(self) -> bytes:
            return honest.authority.pem

    with enrolment_server() as honest, enrolment_server(authority=Liar()) as liar:
        with pytest.raises(TrustError, match="certificate is not of this fleet"):
            joined(liar, honest.token(), Ed25519PrivateKey.generate())
        assert liar.devices == {}


def test_another_tuf_root_than_the_tokens_is_refused() -> None:
    with enrolment_server() as server:
        token = server.token(root_sha256=sha256(b"another").hexdigest())
        with pytest.raises(TrustError, match="another TUF root"):
            joined(server, token, Ed25519PrivateKey.generate())
        assert server.devices == {}


def test_a_token_is_good_for_as_many_devices_as_it_says() -> None:
    with enrolment_server() as server:
        token = server.token(uses=1)
        joined(server, token, Ed25519PrivateKey.generate())
        with pytest.raises(RefusedError, match="used as often as it may be") as raised:
            joined(server, token, Ed25519PrivateKey.generate())
    assert raised.value.status == 403


def test_a_token_whose_time_is_over_is_not_even_sent() -> None:
    with enrolment_server() as server:
        token = server.token(expires_s=NOW.timestamp() - 1)
        with pytest.raises(ConfigError, match="time is over"):
            joined(server, token, Ed25519PrivateKey.generate())


def test_a_certificate_is_renewed_by_proof_of_the_same_key_and_after_its_end() -> None:
    key = Ed25519PrivateKey.generate()
    with enrolment_server() as server:
        server.certificate_days = 1 / 48  # it ended half an hour ago
        membership = joined(server, server.token(), key)
        assert membership.not_after_s < NOW.timestamp()
        server.certificate_days = 30
        asking = Https.believing(membership.ca, CLOCK)
        renewed = renew(membership, key=key, server=asking)
        assert renewed.not_after_s > NOW.timestamp()
        assert renewed.enrolment.device == "till-7"
        with pytest.raises(RefusedError, match="another key"):
            renew(membership, key=Ed25519PrivateKey.generate(), server=asking)


def test_a_server_that_is_away_is_asked_later() -> None:
    with enrolment_server() as server:
        token = server.token()
    with pytest.raises(NetworkError, match="cannot be reached"):
        joined(server, token, Ed25519PrivateKey.generate())


def test_a_device_that_believes_to_be_in_1970_joins_and_one_that_knows_better_does_not() -> None:
    with enrolment_server() as server:
        lost = Watch(0.0, is_trusted=False)
        joined(server, server.token(), Ed25519PrivateKey.generate(), lost)
        assert list(server.devices) == ["till-7"]
        future = NOW.timestamp() + 366 * 86_400
        late = Watch(future)
        token = server.token(expires_s=future + 1)
        with pytest.raises(NetworkError, match="has ended"):
            joined(server, token, Ed25519PrivateKey.generate(), late)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "edge-enroll-1.",
        "edge-enroll-1.!!",
        "edge-enroll-1." + b64encode(b"{}").decode(),
        "edge-enroll-2.e30",
        "edge-enroll-1." + "e" * 5000,
    ],
)
def test_what_is_no_token_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(ConfigError, match="enrolment token"):
        read_token(text)


@pytest.mark.parametrize(
    "url", ["http://h", "https://", "ftp://h", "https://h#x", "https://h:99999", "h", ""]
)
def test_what_is_no_server_is_refused_in_a_sentence(url: str) -> None:
    with enrolment_server() as server:
        token = read_token(server.token())
    with pytest.raises(ConfigError, match="is no server"):
        join(
            url,
            token,
            key=Ed25519PrivateKey.generate(),
            device="d",
            labels={},
            clock=CLOCK,
        )


def test_a_damaged_membership_says_what_to_do(tmp_path: Path) -> None:
    assert read_membership(tmp_path) is None
    (tmp_path / "enrolment.json").write_bytes(b'{"enrolment":')
    with pytest.raises(AgentError, match="enrol the device again"):
        read_membership(tmp_path)
    (tmp_path / "enrolment.json").write_bytes(msgspec.json.encode({"ca": 1}))
    with pytest.raises(AgentError, match="enrol the device again"):
        read_membership(tmp_path)
