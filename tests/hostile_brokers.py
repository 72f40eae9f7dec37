"""Brokers for tests that do what a broker must not, and one that speaks only MQTT 3.1.1."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from tests.brokers import HOST
from tests.daemons import eventually

ACCEPTED_V5 = b"\x20\x03\x00\x00\x00"
REFUSED_VERSION = b"\x20\x02\x00\x01"
_LEVEL = 8  # of the protocol, in a CONNECT whose length has one or two bytes


class ScriptedBroker:
    """Answers each connection by a script.

    Attributes:
        port: Where it listens on loopback.
        levels: Protocol level of each CONNECT that came.
        received: What came after, all connections together.
    """

    def __init__(self, script: Callable[[socket.socket, int], None]) -> None:
        self._script = script
        self._server = socket.create_server((HOST, 0))
        self.port: int = self._server.getsockname()[1]
        self.levels: list[int] = []
        self.received = b""
        self._is_closed = False
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def close(self) -> None:
        """Stop listening, and wait for what is under way."""
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join()

    def read(self, sock: socket.socket) -> None:
        """Take everything until the client ends the connection."""
        with contextlib.suppress(OSError):
            while data := sock.recv(65_536):
                self.received += data

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._answer, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _answer(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            sock.settimeout(60.0)
            connect = sock.recv(65_536)
            level = connect[connect.index(b"MQTT") + 4] if b"MQTT" in connect else 0
            self.levels.append(level)
            if level == 0:
                return
            self._script_with(sock, level, connect)

    def _script_with(self, sock: socket.socket, level: int, connect: bytes) -> None:
        del connect
        self._script(sock, level)


class OldBroker(ScriptedBroker):
    """Stands before a real broker and speaks only MQTT 3.1.1.

    While the real one is away it lets callers wait: who is sent away often asks in another version.

    Args:
        port: Of the real one.
        refusal: What it answers to MQTT 5; empty: it only ends the connection.
    """

    def __init__(self, port: int, refusal: bytes = REFUSED_VERSION) -> None:
        self._behind = port
        self._refusal = refusal
        super().__init__(_nothing)

    def _script_with(self, sock: socket.socket, level: int, connect: bytes) -> None:
        if level != 4:
            sock.sendall(self._refusal)
            return
        with self._real_one() as behind:
            behind.sendall(connect)
            back = threading.Thread(target=_pump, args=(behind, sock))
            back.start()
            _pump(sock, behind)
            back.join()

    def _real_one(self) -> socket.socket:
        found: list[socket.socket] = []

        def is_there() -> bool:
            if self._is_closed:
                raise ConnectionAbortedError
            with contextlib.suppress(ConnectionRefusedError):
                found.append(socket.create_connection((HOST, self._behind)))
            return bool(found)

        eventually(is_there, "the real broker's return")
        return found[0]


def _nothing(_sock: socket.socket, _level: int) -> None:
    pass


def _pump(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(65_536):
            other.sendall(data)
    for each in (one, other):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def running(broker: ScriptedBroker) -> Iterator[ScriptedBroker]:
    """Close a broker at the end."""
    try:
        yield broker
    finally:
        broker.close()
