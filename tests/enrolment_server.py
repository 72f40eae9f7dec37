"""A small enrolment server over real TLS, as the fleet's will be: for tests only."""

import datetime as dt
import json
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from ipaddress import IPv4Address
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from agent.enrolment.messages import Enrolment, EnrolRequest, RenewRequest, renewal_text
from agent.enrolment.token import Token, write_token
from agent.settings.messaging import Broker
from tests.tls_server import Answering, tls_server

NOW = dt.datetime.now(tz=dt.UTC)


def common_name(common: str) -> x509.Name:
    """Make a name of its common part only."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


@dataclass
class Authority:
    """A certificate authority of Ed25519 keys."""

    name: str = "test fleet CA"
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def __post_init__(self) -> None:
        self.certificate = self._built(common_name(self.name), self.key.public_key(), is_ca=True)

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its own certificate."""
        return sha256(self.certificate.public_bytes(Encoding.DER)).hexdigest()

    def certify(
        self,
        subject: x509.Name,
        key: Ed25519PublicKey,
        *,
        days: float = 30,
        begins: dt.datetime = NOW,
    ) -> bytes:
        """Sign a certificate for a key; it begins an hour before ``begins``."""
        certificate = self._built(subject, key, days=days, begins=begins)
        return certificate.public_bytes(Encoding.PEM)

    def server_pair(self) -> bytes:
        """Make key and certificate of a server on this device."""
        key = Ed25519PrivateKey.generate()
        return key_pem(key) + self.certify(common_name("localhost"), key.public_key())

    def _built(
        self,
        subject: x509.Name,
        key: Ed25519PublicKey,
        *,
        is_ca: bool = False,
        days: float = 30,
        begins: dt.datetime = NOW,
    ) -> x509.Certificate:
        begins -= dt.timedelta(hours=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(common_name(self.name))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(begins + dt.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        )
        if is_ca:
            builder = builder.add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    key_cert_sign=True,
                    crl_sign=True,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
        else:
            names = [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, None)


def key_pem(key: Ed25519PrivateKey) -> bytes:
    """Give a private key as PKCS #8 PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass
class EnrolmentServer:
    """Knows its tokens and its devices.

    Attributes:
        offers: What every enrolment says beside the certificate.
        devices: Public keys by device.
    """

    fleet: str
    authority: Authority
    root: bytes
    offers: dict[str, Any] = field(default_factory=dict)
    devices: dict[str, bytes] = field(default_factory=dict)
    tokens: dict[str, tuple[str, int]] = field(default_factory=dict)
    nonces: set[str] = field(default_factory=set)
    certificate_days: float = 30
    url: str = ""

    def token(self, *, uses: int = 1, expires_s: float | None = None, **more: object) -> str:
        """Make a token that the server knows, for an hour unless another end is given."""
        name, secret = f"t{len(self.tokens)}", "s" * 32
        self.tokens[name] = secret, uses
        fields: dict[str, Any] = {
            "fleet": self.fleet,
            "id": name,
            "secret": secret,
            "ca_sha256": self.authority.fingerprint,
            "root_sha256": sha256(self.root).hexdigest(),
            "expires_s": time.time() + 3600 if expires_s is None else expires_s,
            "uses": uses,
        }
        return write_token(Token(**{**fields, **dict(more)}))

    def enroll(self, body: bytes) -> tuple[int, bytes]:
        """Answer ``POST /enroll``."""
        wanted = msgspec.json.decode(body, type=EnrolRequest)
        secret, uses = self.tokens.get(wanted.token_id, ("", 0))
        if wanted.secret != secret or uses < 1:
            return 403, b"the token is not known, or was used as often as it may be"
        self.tokens[wanted.token_id] = secret, uses - 1
        return self._certified(wanted.device, wanted.csr)

    def renew(self, body: bytes) -> tuple[int, bytes]:
        """Answer ``POST /renew``."""
        wanted = msgspec.json.decode(body, type=RenewRequest)
        known = self.devices.get(wanted.device)
        if known is None or wanted.nonce in self.nonces:
            return 403, b"unknown device, or a proof that was used before"
        text = renewal_text(self.fleet, wanted.device, wanted.nonce, wanted.csr)
        try:
            Ed25519PublicKey.from_public_bytes(known).verify(b64decode(wanted.proof), text)
        except InvalidSignature:
            return 403, b"another key"
        self.nonces.add(wanted.nonce)
        return self._certified(wanted.device, wanted.csr)

    def _certified(self, device: str, csr: str) -> tuple[int, bytes]:
        request = x509.load_pem_x509_csr(csr.encode())
        key = request.public_key()
        if not request.is_signature_valid or not isinstance(key, Ed25519PublicKey):
            return 400, b"not a request"
        self.devices[device] = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        certificate = self.authority.certify(request.subject, key, days=self.certificate_days)
        enrolment = Enrolment(
            fleet=self.fleet, device=device, certificate=certificate.decode(), **self.offers
        )
        return 200, msgspec.json.encode(enrolment)


@contextmanager
def enrolment_server(
    fleet: str = "shop",
    *,
    authority: Authority | None = None,
    root: bytes = b"{}",
    brokers: tuple[Broker, ...] = (),
    repository: str = "",
) -> Iterator[EnrolmentServer]:
    """Run a server for the length of a block."""
    authority = authority or Authority()
    server = EnrolmentServer(fleet, authority, root, {"brokers": brokers, "repository": repository})

    class Handler(Answering, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            files = {"/ca.pem": server.authority.pem, "/root.json": server.root}
            self.answer(*((200, files[self.path]) if self.path in files else (404, b"no")))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            work = {"/enroll": server.enroll, "/renew": server.renew}.get(self.path)
            try:
                self.answer(*(work(body) if work else (404, b"no")))
            except (msgspec.MsgspecError, ValueError, json.JSONDecodeError) as error:
                self.answer(400, str(error).encode())

    with tls_server(Handler, authority.server_pair()) as server.url:
        yield server
