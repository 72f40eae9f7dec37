"""A small receiver of prediction journals over real TLS, as the fleet's will be: for tests only."""

import gzip
import ssl
import tempfile
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from agent.journal_sync.batches import SIGNATURE_HEADER, Batch, Progress, signed_text
from edge_runtime.protocol.journal_schemas import JournalRow
from tests.enrolment_server import Authority, common_name, key_pem


@dataclass
class Receiver:
    """Stores rows.

    Attributes:
        keys: Public keys by device.
        rows: Rows by (device, journal, number).
        received: How often each row came.
        breaks: Asked before each answer to a PUT; true: the connection is cut instead.
    """

    keys: dict[str, bytes]
    rows: dict[tuple[str, str, int], JournalRow] = field(default_factory=dict)
    received: list[tuple[str, str, int]] = field(default_factory=list)
    breaks: Callable[[], bool] = lambda: False
    url: str = ""

    def through(self, device: str, journal: str) -> bytes:
        """Answer what is stored."""
        numbers = [key[2] for key in self.rows if key[:2] == (device, journal)]
        return msgspec.json.encode(Progress(through=max(numbers, default=0)))

    def store(self, device: str, journal: str, body: bytes, signature: str) -> bool:
        """Store a batch; whether it was signed by its device."""
        batch = msgspec.json.decode(gzip.decompress(body), type=Batch)
        key = Ed25519PublicKey.from_public_bytes(self.keys[device])
        try:
            key.verify(b64decode(signature), signed_text(batch, body))
        except InvalidSignature:
            return False
        if (batch.device, batch.journal) != (device, journal):
            return False
        for row in batch.rows:
            name = device, journal, row.number
            self.received.append(name)
            self.rows.setdefault(name, row)
        return True


@contextmanager
def journal_receiver(authority: Authority, keys: dict[str, bytes]) -> Iterator[Receiver]:
    """Run a receiver for the length of a block."""
    receiver = Receiver(keys)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, device, journal = self.path.split("/")
            self._answer(200, receiver.through(device, journal))

        def do_PUT(self) -> None:
            _, device, journal, _ = self.path.split("/")
            body = self.rfile.read(int(self.headers["Content-Length"]))
            is_stored = receiver.store(device, journal, body, self.headers[SIGNATURE_HEADER])
            if receiver.breaks():
                self.connection.close()
                return
            status, answer = (200, receiver.through(device, journal)) if is_stored else (403, b"no")
            self._answer(status, answer)

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Say nothing of the connections that a test cuts."""

    key = Ed25519PrivateKey.generate()
    with tempfile.TemporaryDirectory() as folder:
        pair = Path(folder) / "server.pem"
        pair.write_bytes(
            key_pem(key) + authority.certify(common_name("localhost"), key.public_key())
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair)
        http = Quiet(("127.0.0.1", 0), Handler)
        http.socket = context.wrap_socket(http.socket, server_side=True)
        receiver.url = f"https://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            http.shutdown()
            thread.join()
            http.server_close()
