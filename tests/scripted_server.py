"""A server on a real socket that answers what a test tells it to, however wrong that is."""

import contextlib
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

WAIT_S = 60.0
LIVE = b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"live":true}'


class Caller:
    """One connection, from the server's side.

    Args:
        sock: The accepted socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        sock.settimeout(WAIT_S)

    def read_request(self) -> bytes:
        """Read one whole request; empty if the client closed."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.socket.recv(65_536)
            if not more:
                return b""
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(body) < length:
            more = self.socket.recv(65_536)
            if not more:
                return b""
            body += more
        return head + b"\r\n\r\n" + body

    def write(self, data: bytes) -> None:
        """Write bytes."""
        self.socket.sendall(data)


Script = Callable[[Caller], None]


def answering(*answers: bytes) -> Script:
    """Read a request before each answer, then close."""

    def script(caller: Caller) -> None:
        for answer in answers:
            caller.read_request()
            caller.write(answer)

    return script


class ScriptedServer:
    """Plays one script per connection, in order; then refuses.

    Attributes:
        path: Its socket.
        connections: How many were accepted.
        finished: How many the server has closed.
    """

    def __init__(self, folder: Path, scripts: Sequence[Script], backlog: int) -> None:
        self.path = folder / "s.sock"
        self.connections = 0
        self.finished = 0
        self._closing = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen(backlog)
        self._listener.settimeout(WAIT_S)
        self._threads = [threading.Thread(target=self._accept, args=(list(scripts),))]
        self._threads[0].start()

    def _accept(self, scripts: list[Script]) -> None:
        for place, script in enumerate(scripts, 1):
            try:
                sock, _ = self._listener.accept()
            except OSError:  # nobody came
                break
            if self._closing:
                sock.close()
                break
            self.connections += 1
            thread = threading.Thread(target=self._play, args=(script, sock))
            self._threads.append(thread)
            if place == len(scripts):  # first: who has its answer is refused from then on
                self._listener.close()
            thread.start()
        self._listener.close()

    def _play(self, script: Script, sock: socket.socket) -> None:
        with sock, contextlib.suppress(ConnectionError):  # the client may leave at any time
            script(Caller(sock))
        self.finished += 1

    def close(self) -> None:
        """Stop listening and wait for the scripts."""
        self._closing = True
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as waker:
            waker.settimeout(0)
            waker.connect(str(self.path))
        for thread in self._threads:
            thread.join(WAIT_S)


@contextlib.contextmanager
def scripted_server(*scripts: Script, backlog: int = 16) -> Iterator[ScriptedServer]:
    """Run a server for the length of a block."""
    # Socket paths have at most 107 bytes; pytest's folders are longer.
    folder = Path(tempfile.mkdtemp(prefix="er-", dir="/tmp"))
    server = ScriptedServer(folder, scripts, backlog)
    try:
        yield server
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)
