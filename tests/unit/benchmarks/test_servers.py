"""A server that ends while it is measured is named, with what it said last."""

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks.paced import ask_paced
from benchmarks.servers import Command, ServerError, environment, ours, started
from benchmarks.workload import Workload

READY_ONCE = """\
import http.server, os, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass

server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
for _ in range(int(sys.argv[2])):
    server.handle_request()
print("out of memory, said the server", flush=True)
os._exit(3)
"""


Commands = Callable[[int], Command]


@pytest.fixture
def command() -> Iterator[Commands]:
    """Say how to start a server that answers so many requests, and ends."""
    with ExitStack() as held:

        def make(requests: int) -> Command:
            # Bound, and never listening: until the server has started, nobody else gets this port.
            holding = held.enter_context(socket.socket())
            holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holding.bind(("127.0.0.1", 0))
            port = holding.getsockname()[1]
            arguments = [sys.executable, "-c", READY_ONCE, str(port), str(requests)]
            return Command("toy", arguments, environment(), port, ("json",))

        yield make


def workload(folder: Path, bodies: int) -> Workload:
    paths = tuple(folder / f"{index}.body" for index in range(bodies))
    for index, path in enumerate(paths):
        path.write_bytes(b"body %d" % index)
    return Workload("toy", "json", {}, paths, ({},) * bodies)


def test_a_server_that_ends_while_it_is_measured_is_named_with_its_last_words(
    command: Commands, tmp_path: Path
) -> None:
    toy = command(1)
    with (
        pytest.raises(ServerError, match=r"toy ended with 3 .*:\nout of memory, said the server"),
        started(toy, tmp_path),
    ):
        ask_paced(toy.address, workload(tmp_path, 1), 1000, 30)


def test_a_failure_of_another_is_not_blamed_on_a_server_that_lives(
    command: Commands, tmp_path: Path
) -> None:
    with (
        pytest.raises(ConnectionError, match="somebody else"),
        started(command(1000), tmp_path),
    ):
        raise ConnectionError("somebody else")


def test_the_one_that_ended_is_named_among_several(command: Commands, tmp_path: Path) -> None:
    lives, ends = command(1000), command(1)
    with (
        pytest.raises(ServerError, match="ended with 3"),
        started(ends, tmp_path),
        started(lives, tmp_path),
    ):
        ask_paced(ends.address, workload(tmp_path, 1), 1000, 30)


def test_a_server_that_never_gets_ready_is_named_with_its_last_words(
    command: Commands, tmp_path: Path
) -> None:
    with (
        pytest.raises(ServerError, match=r"toy is not ready; .*:\nout of memory"),
        started(command(0), tmp_path),
    ):
        pass


def test_settings_reach_the_daemon_as_its_environment(tmp_path: Path) -> None:
    settings = {"models.digits.cache_ttl_s": "60", "engine.intra_op_threads": "2"}
    told = ours({"digits": tmp_path / "m.onnx"}, tmp_path / "state", settings).environment
    assert told["EDGE_RUNTIME__MODELS__DIGITS__CACHE_TTL_S"] == "60"
    assert told["EDGE_RUNTIME__ENGINE__INTRA_OP_THREADS"] == "2"


class _Every(BaseHTTPRequestHandler):
    """Refuses every third request."""

    protocol_version = "HTTP/1.1"
    bodies: list[bytes]

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(503 if len(self.bodies) % 3 == 0 else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def refusing() -> Iterator[tuple[int, list[bytes]]]:
    """Serve, and give the port and the bodies that came."""
    bodies: list[bytes] = []
    handler = type("Handler", (_Every,), {"bodies": bodies})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port, bodies
        finally:
            server.shutdown()
            thread.join()


def test_a_paced_caller_sends_its_requests_in_turn_and_keeps_refusals(tmp_path: Path) -> None:
    with refusing() as (port, bodies):
        waits = ask_paced(("127.0.0.1", port), workload(tmp_path, 2), 200, 0.2)
    assert bodies == [b"body %d" % (index % 2) for index in range(len(waits))]
    assert [wait.status for wait in waits] == [
        503 if index % 3 == 2 else 200 for index in range(len(waits))
    ]
    assert all(wait.ms > 0 for wait in waits)


def test_a_paced_caller_asks_at_least_once(tmp_path: Path) -> None:
    with refusing() as (port, _):
        assert len(ask_paced(("127.0.0.1", port), workload(tmp_path, 1), 0.001, 1e-9)) == 1
