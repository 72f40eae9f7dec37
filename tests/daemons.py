"""Real daemons for tests: started through the installed command, stopped by their process id."""

import contextlib
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

START_S = 60.0
STOP_S = 60.0
POLL_S = 0.01
COMMAND = str(Path(sys.executable).with_name("edge-runtime"))
_MARKS = itertools.count()


def eventually(condition: Callable[[], bool], what: str, within_s: float = 60.0) -> None:
    """Wait for a condition, or fail saying what did not happen."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            message = f"{what} did not happen within {within_s} s"
            raise AssertionError(message)
        time.sleep(POLL_S)


class UnixConnection(http.client.HTTPConnection):
    """The standard library's client over a Unix socket."""

    def __init__(self, path: Path, timeout: float = 60.0) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401 - whatever the server said
        """Decode the body."""
        return json.loads(self.body)


class Daemon:
    """A running daemon.

    Attributes:
        socket: Data socket.
        admin: Admin socket.
        process: The process.
        folder: Its private folder.
        state: Its state directory, in the private folder unless the test gave one.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        wait: bool = True,
        state: Path | None = None,
    ) -> None:
        # Socket paths have at most 107 bytes; pytest's folders are longer.
        self.folder = Path(tempfile.mkdtemp(prefix="er-", dir="/tmp"))
        self.socket = self.folder / "r.sock"
        self.admin = self.folder / "admin.sock"
        self._log = (self.folder / "log").open("wb")
        clean = {key: text for key, text in os.environ.items() if "EDGE_RUNTIME" not in key}
        self._command = [COMMAND, "serve", *arguments, "--socket", str(self.socket)]
        self.state = state or self.folder / "state"
        self._command += ["--state-dir", str(self.state)]
        self._environment = {**clean, **(environment or {})}
        self.process = self._started()
        if wait:
            try:
                self.wait_ready()
            except BaseException:
                self.stop()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _started(self) -> subprocess.Popen[bytes]:
        self._said_before = len(self.log())
        return subprocess.Popen(self._command, env=self._environment, stderr=self._log)

    def restart(
        self,
        sign: signal.Signals = signal.SIGTERM,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """End it with a signal, and start it anew on the same state and sockets.

        Args:
            sign: The signal; one that ended already is just started anew.
            environment: In the place of the one it was started with; ``None``: the same.
        """
        self.process.send_signal(sign)
        self.process.wait(STOP_S)
        if environment is not None:
            clean = {key: text for key, text in os.environ.items() if "EDGE_RUNTIME" not in key}
            self._environment = {**clean, **environment}
        self.process = self._started()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until it says that it can answer, and has written what it said of its start."""

        def ready() -> bool:
            if self.process.poll() is not None:
                message = f"the daemon ended with {self.process.returncode}:\n{self.log()}"
                raise AssertionError(message)
            with contextlib.suppress(OSError):
                is_ready = self.request("GET", "/v2/health/ready").status == http.client.OK
                return is_ready and "listening on" in self.log()[self._said_before :]
            return False

        eventually(ready, "the daemon's being ready", START_S)

    def log(self) -> str:
        """Give what it wrote to standard error so far: a thread writes it, later than answers."""
        return (self.folder / "log").read_text("utf-8", errors="replace")

    def log_until_now(self) -> str:
        """Give the log with all that was said before this call; the daemon must be ready."""
        mark = f"/log-until-now-{next(_MARKS)}"  # a request that fails is noted behind the rest
        assert self.request("GET", mark).status == http.client.NOT_FOUND
        eventually(lambda: mark in self.log(), "the log's being written")
        return self.log()

    def http_port(self) -> int:
        """Give the TCP port it listens on (``--http 127.0.0.1:0``)."""
        ports: list[str] = []

        def is_said() -> bool:
            said = self.log()[self._said_before :]
            ports[:] = re.findall(r"listening on 127\.0\.0\.1:(\d+) ", said)
            return bool(ports)

        eventually(is_said, "the port's being said")
        return int(ports[0])

    def tcp(self, timeout: float = 60.0) -> socket.socket:
        """Open a raw connection over TCP (``--http 127.0.0.1:0``)."""
        return socket.create_connection(("127.0.0.1", self.http_port()), timeout)

    def connect(self, timeout: float = 60.0) -> socket.socket:
        """Open a raw connection to the data socket."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(timeout)
        sock.connect(str(self.socket))
        return sock

    def request(
        self,
        method: str,
        path: str,
        body: bytes | dict[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        admin: bool = False,
    ) -> Answer:
        """Send one request on a connection of its own."""
        connection = UnixConnection(self.admin if admin else self.socket)
        payload = json.dumps(body).encode() if isinstance(body, dict) else body
        try:
            # Who is turned away is told so before anything was sent, and left a little later.
            with contextlib.suppress(BrokenPipeError):
                connection.request(method, path, payload, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def infer(self, model: str, inputs: list[dict[str, Any]], **more: Any) -> Answer:  # noqa: ANN401
        """Send a JSON prediction."""
        return self.request("POST", f"/v2/models/{model}/infer", {"inputs": inputs, **more})

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Keep it from running for the length of a block, so that what is sent waits for it."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            # A signal takes a moment; who has ended is not waited for.
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """Stop it with SIGTERM, kill it if it does not listen, and clean up."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        return self.process.returncode


@contextlib.contextmanager
def daemon(*arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Daemon]:
    """Run a daemon for the length of a block."""
    with Daemon(arguments, environment) as running:
        yield running
