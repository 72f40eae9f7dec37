"""A proxy that tunnels, for tests: ``CONNECT HOST:PORT``, whatever the name, to one port."""

import contextlib
import socket
import threading
from collections.abc import Iterator

WAIT_S = 60.0


class Tunnel:
    """The proxy; use :func:`tunnel`.

    Attributes:
        url: ``http://127.0.0.1:PORT``.
        heads: What callers asked it.
    """

    def __init__(self, port: int, answer: bytes) -> None:
        self.heads: list[bytes] = []
        self._port = port
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """Stop listening; tunnels end with their callers."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(WAIT_S)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(caller,)))
                self._threads[-1].start()

    def _serve(self, caller: socket.socket) -> None:
        with caller, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += caller.recv(1) or b"\r\n\r\n"
            self.heads.append(head)
            caller.sendall(self._answer)
            if b" 200 " not in self._answer:
                return
            with socket.create_connection(("127.0.0.1", self._port), WAIT_S) as server:
                back = threading.Thread(target=_relay, args=(server, caller))
                back.start()
                _relay(caller, server)
                back.join(WAIT_S)


def _relay(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def tunnel(
    port: int, answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n"
) -> Iterator[Tunnel]:
    """Run a proxy for the length of a block.

    Args:
        port: On loopback, where every tunnel leads.
        answer: What it says to ``CONNECT``; other than 200: and then closes.
    """
    running = Tunnel(port, answer)
    try:
        yield running
    finally:
        running.close()
