"""A small receiver of prediction journals over real TLS, as the fleet's will be: for tests only."""

import gzip
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent.journal_sync.batches import SIGNATURE_HEADER, Batch, Progress, signed_text
from edge_runtime.protocol.journal_schemas import JournalRow
from tests.enrolment_server import Authority
from tests.tls_server import Answering, tls_server


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

    class Handler(Answering, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, device, journal = self.path.split("/")
            self.answer(200, receiver.through(device, journal))

        def do_PUT(self) -> None:
            _, device, journal, _ = self.path.split("/")
            body = self.rfile.read(int(self.headers["Content-Length"]))
            is_stored = receiver.store(device, journal, body, self.headers[SIGNATURE_HEADER])
            if receiver.breaks():
                self.connection.close()
                return
            status, answer = (200, receiver.through(device, journal)) if is_stored else (403, b"no")
            self.answer(status, answer)

    with tls_server(Handler, authority.server_pair()) as receiver.url:
        yield receiver
