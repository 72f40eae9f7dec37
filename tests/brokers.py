"""Real MQTT brokers for tests: mosquitto on loopback, stopped by its process id."""

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.daemons import eventually

HOST = "127.0.0.1"
STOP_S = 60.0
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw") or 0)
_OF_A_WORKER = 1000
_FIRST_PORT = 20_000 + _WORKER % 12 * _OF_A_WORKER
_offsets = itertools.count(int.from_bytes(os.urandom(2)))  # another session has other ones


def program() -> str:
    """Find mosquitto; without it the test is skipped, in CI it fails."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if found is None:
        message = "mosquitto is missing: install the package of that name"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


def free_port() -> int:
    """Give a port that nobody listens on, and that nobody else takes before it is used.

    The kernel gives those from 32768 on to whoever connects, as soon as they are let go of; so
    this one is of the others, each worker has its own, and no two calls give the same.
    """
    for _ in range(_OF_A_WORKER):
        port = _FIRST_PORT + next(_offsets) % _OF_A_WORKER
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind((HOST, port))
            return port
    message = f"no port from {_FIRST_PORT} on is free"
    raise AssertionError(message)


@dataclass(frozen=True)
class Certificates:
    """An authority and what it signed.

    Attributes:
        ca: File of the authority's certificate.
        folder: Where certificates lie, as ``NAME.pem`` and ``NAME.key``.
    """

    ca: Path
    folder: Path
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    certificate: x509.Certificate = field(repr=False)

    def issue(self, name: str, *, is_server: bool = False, days: int = 30) -> tuple[Path, Path]:
        """Sign a certificate; gives its file and its key's."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        begin = now - timedelta(days=1) if days > 0 else now + timedelta(days=2 * days)
        usage = ExtendedKeyUsageOID.SERVER_AUTH if is_server else ExtendedKeyUsageOID.CLIENT_AUTH
        names: list[x509.GeneralName] = [
            x509.IPAddress(IPv4Address(HOST)),
            x509.DNSName("localhost"),
        ]
        made = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .sign(self.key, SHA256())
        )
        return _written(self.folder, name, made, key)


def certificates(folder: Path, name: str = "test CA") -> Certificates:
    """Make an authority."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=365))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    file, _ = _written(folder, "ca", made, key)
    return Certificates(file, folder, key, made)


class Mosquitto:
    """A running broker.

    Attributes:
        port: Where it listens on loopback.
        process: The process.
    """

    def __init__(self, folder: Path, port: int, lines: Sequence[str]) -> None:
        self._program = program()
        self.port = port
        self._folder = folder
        self._log = (folder / "mosquitto.log").open("ab")
        self._config = folder / "mosquitto.conf"
        self._config.write_text("\n".join([*lines, ""]), "utf-8")
        self.process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        command = [self._program, "-v", "-c", str(self._config)]
        process = subprocess.Popen(command, stdout=self._log, stderr=self._log)

        def listens() -> bool:
            if process.poll() is not None:
                message = f"mosquitto ended:\n{self.log()}"
                raise AssertionError(message)
            with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), 1.0):
                return True
            return False

        eventually(listens, "mosquitto's listening")
        return process

    def log(self) -> str:
        """Give what it wrote so far."""
        return (self._folder / "mosquitto.log").read_text("utf-8", errors="replace")

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> None:
        """End it; what persists is written if it is asked politely."""
        if self.process.poll() is None:
            self.process.send_signal(sign)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def kill(self) -> None:
        """End it as a crash does."""
        self.stop(signal.SIGKILL)

    def restart(self) -> None:
        """Start it again on the same port, after it was ended."""
        self.stop()
        self.process = self._started()

    def close(self) -> None:
        """End it for good."""
        self.stop()
        self._log.close()


@contextlib.contextmanager
def mosquitto(
    tmp_path: Path,
    *,
    tls: Certificates | None = None,
    is_mutual: bool = False,
    acl: str | None = None,
    users: dict[str, str] | None = None,
    persistence: bool = False,
    unix: Path | None = None,
    websocket: int = 0,
    port: int = 0,
    more: Sequence[str] = (),
) -> Iterator[Mosquitto]:
    """Run a broker.

    Args:
        tmp_path: Where the broker gets a folder of its own.
        tls: Speak TLS with a certificate of this authority.
        is_mutual: Demand one of the client as well; its common name is the user.
        acl: Text of the access rules.
        users: Passwords by user; ``None``: anybody may come.
        persistence: Keep sessions over a restart.
        unix: Listen at this Unix socket as well.
        websocket: Port where it speaks websocket as well; 0: it does not.
        port: Where it listens; 0: any.
        more: Lines of its configuration, for every listener.
    """
    found = program()
    folder = Path(tempfile.mkdtemp(prefix="mosquitto-", dir=tmp_path))
    user = "root" if os.geteuid() == 0 else ""
    lines = [f"user {user}"] if user else []
    lines += ["per_listener_settings false", "set_tcp_nodelay true", "max_queued_messages 100000"]
    if acl is not None:
        _private(folder / "acl", acl)
        lines += [f"acl_file {folder / 'acl'}"]
    if users is None and not (tls and is_mutual):
        lines += ["allow_anonymous true"]
    elif users is not None:
        _private(folder / "users", "".join(f"{name}:{word}\n" for name, word in users.items()))
        passwords = shutil.which("mosquitto_passwd", path=str(Path(found).parent) + ":/usr/bin")
        assert passwords is not None
        subprocess.run([passwords, "-U", str(folder / "users")], check=True, capture_output=True)
        lines += ["allow_anonymous false", f"password_file {folder / 'users'}"]
    if persistence:
        lines += ["persistence true", f"persistence_location {folder}/", "autosave_interval 1"]
    lines += more
    used = port or free_port()
    encrypted: list[str] = []
    if tls is not None:
        certificate, key = tls.issue(f"broker-{used}", is_server=True)
        encrypted = [f"cafile {tls.ca}", f"certfile {certificate}", f"keyfile {key}"]
        if is_mutual:
            encrypted += ["require_certificate true", "use_identity_as_username true"]
    lines += [f"listener {used} {HOST}", *encrypted]
    if unix is not None:
        lines += [f"listener 0 {unix}"]
    if websocket:
        lines += [f"listener {websocket} {HOST}", "protocol websockets", *encrypted]
    broker = Mosquitto(folder, used, lines)
    try:
        yield broker
    finally:
        broker.close()


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _written(
    folder: Path, name: str, made: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> tuple[Path, Path]:
    files = folder / f"{name}.pem", folder / f"{name}.key"
    files[0].write_bytes(made.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    files[1].chmod(0o600)
    return files


def _private(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")
    path.chmod(0o600)
