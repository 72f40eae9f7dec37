"""Under systemd: sockets that were open before the daemon, and words about its state."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.daemons import COMMAND, STOP_S, UnixConnection
from tests.handover_packets import ask
from tests.models import identity
from tests.wire import Wire, infer, numbers, request

pytestmark = pytest.mark.integration

# Puts the descriptors at 3, 4, ... and becomes the daemon, as systemd's executor does.
LAUNCHER = """
import json, os, sys
given, command = json.loads(sys.argv[1]), sys.argv[2:]
high = [os.dup2(fd, 200 + place) for place, fd in enumerate(given)]
for place, fd in enumerate(high):
    os.dup2(fd, 3 + place)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(given)))
os.closerange(3 + len(given), 300)
os.execv(command[0], command)
"""
INFER = infer("m", [[1.0, 2.0]])
LIVE = request("GET", "/v2/health/live")


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="er-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def model(folder: Path) -> Path:
    return identity(folder / "m.onnx")


@pytest.fixture
def words(folder: Path) -> Iterator[socket.socket]:
    """What systemd listens on for notifications."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(folder / "notify"))
        sock.settimeout(STOP_S)
        yield sock


def listening(path: Path, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, kind)
    before = os.umask(0o117)
    try:
        sock.bind(str(path))
    finally:
        os.umask(before)
    sock.listen()
    return sock


@contextmanager
def launched(
    sockets: Mapping[str, socket.socket], *arguments: str, notify: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a daemon that is handed these sockets; it is stopped in the end."""
    environment = {**os.environ, "LISTEN_FDNAMES": ":".join(sockets)}
    if notify is not None:
        environment["NOTIFY_SOCKET"] = str(notify)
    given = [sock.fileno() for sock in sockets.values()]
    command = [sys.executable, "-c", LAUNCHER, json.dumps(given), COMMAND, "serve", *arguments]
    process = subprocess.Popen(command, env=environment, pass_fds=given, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=STOP_S)


@contextmanager
def all_three(folder: Path, host: str) -> Iterator[dict[str, socket.socket]]:
    """Open every kind of door."""
    with ExitStack() as stack:
        yield {
            "runtime": stack.enter_context(listening(folder / "d")),
            "admin": stack.enter_context(listening(folder / "a")),
            "http": stack.enter_context(socket.create_server((host, 0))),
        }


def connected(path: Path) -> Wire:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(STOP_S)
    sock.connect(str(path))
    return Wire(sock)


def test_sockets_from_systemd_are_served_and_outlive_the_daemon(folder: Path, model: Path) -> None:
    data, admin = folder / "data.sock", folder / "other.sock"
    with listening(data) as first, listening(admin) as second:
        sockets = {"runtime": first, "admin": second}
        with connected(data) as early:
            early.send(INFER)  # before anybody serves: it waits in the backlog
            with launched(sockets, f"m={model}") as process:
                answer = early.answer()
                while answer.status in {404, 503}:  # the model is still being found and loaded
                    early.send(INFER)
                    answer = early.answer()
                assert numbers(answer) == [1.0, 2.0]
                management = UnixConnection(admin)
                management.request("POST", "/v2/repository/models/m/load")
                assert management.getresponse().status == 200
                management.close()
        assert process.returncode == 0
        assert data.is_socket()
        assert admin.is_socket()
        with connected(data) as late, launched(sockets, f"m={model}") as process:
            late.send(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert late.answer().status == 200
        assert process.returncode == 0


def test_a_hand_over_socket_from_systemd_is_served_and_outlives_the_daemon(
    folder: Path, model: Path
) -> None:
    path = folder / "h"
    with listening(folder / "d") as data, listening(folder / "a") as admin:
        sockets = {"runtime": data, "admin": admin}
        # Whoever passes no hand-over socket has none.
        with launched(sockets, f"m={model}"):
            with connected(folder / "d") as wire:  # answered once every door is there
                wire.send(LIVE)
                assert wire.answer().status == 200
            assert not (folder / "handover.sock").exists()
        with listening(path, socket.SOCK_SEQPACKET) as handover:
            sockets["handover"] = handover
            for _ in range(2):
                with launched(sockets, f"m={model}") as process:
                    assert ask(path, {"op": "open", "sha256": "0" * 64}) == {"ok": None}
                assert process.returncode == 0
            assert path.is_socket()


def test_a_loopback_socket_from_systemd_is_served(folder: Path, model: Path) -> None:
    with all_three(folder, "127.0.0.1") as sockets, launched(sockets, f"m={model}"):
        wire = Wire(socket.create_connection(sockets["http"].getsockname(), STOP_S))
        wire.send(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert wire.answer().status == 200
        wire.close()


def test_a_socket_from_systemd_beyond_loopback_is_refused(folder: Path, model: Path) -> None:
    everywhere = "0.0.0.0"  # noqa: S104 - what must not be served
    with all_three(folder, everywhere) as sockets, launched(sockets, f"m={model}") as process:
        assert process.wait(STOP_S) == 1
        assert process.stderr is not None
        assert b"loopback" in process.stderr.read()


def test_systemd_hears_ready_reloading_and_stopping_in_their_order(
    folder: Path, model: Path, words: socket.socket
) -> None:
    with listening(folder / "d") as data, listening(folder / "a") as admin:
        sockets = {"runtime": data, "admin": admin}
        with launched(sockets, f"m={model}", notify=folder / "notify") as process:
            assert words.recv(4096) == b"READY=1"
            with connected(folder / "d") as wire:  # ready means ready
                wire.send(INFER)
                assert numbers(wire.answer()) == [1.0, 2.0]
            process.send_signal(signal.SIGHUP)
            reloading = words.recv(4096).split(b"\n")
            assert reloading[0] == b"RELOADING=1"
            assert reloading[1].startswith(b"MONOTONIC_USEC=")
            assert words.recv(4096) == b"READY=1"
            process.terminate()
            assert words.recv(4096) == b"STOPPING=1"
            assert process.wait(STOP_S) == 0


def test_a_daemon_that_cannot_start_never_says_ready(folder: Path, words: socket.socket) -> None:
    (folder / "bad.onnx").write_bytes(b"no model")
    with listening(folder / "d") as data, listening(folder / "a") as admin:
        sockets = {"runtime": data, "admin": admin}
        notify = folder / "notify"
        with launched(sockets, f"m={folder / 'bad.onnx'}", notify=notify) as process:
            assert process.wait(STOP_S) == 1
    words.setblocking(False)  # noqa: FBT003 - the socket's own signature
    said = b""
    while True:
        try:
            said += words.recv(4096)
        except BlockingIOError:
            break
    assert b"READY=1" not in said
