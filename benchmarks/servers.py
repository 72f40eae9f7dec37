"""Starts the servers under test, waits until they answer, and stops them whatever happens."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.peers import MODELS_VARIABLE
from benchmarks.wire import Address, ask
from benchmarks.workload import Format

OURS: Final = "edge-runtime"
FASTAPI: Final = "FastAPI"

READY_S: Final = 60.0
"""The longest wait for a server to become ready, in seconds."""

_STOP_S: Final = 15.0
_POLL_S: Final = 0.02
ROOT: Final = Path(__file__).parents[1]


class ServerError(Exception):
    """A server did not start, or ended before it was asked to."""


@dataclass(frozen=True, slots=True)
class Command:
    """How to start a server, and where it will listen."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    port: int
    formats: tuple[Format, ...]
    """What it understands."""

    unix: str | None = None

    @property
    def address(self) -> Address:
        """Where to ask: the Unix socket if there is one."""
        return self.unix or ("127.0.0.1", self.port)


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers."""

    command: Command
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid


def environment() -> dict[str, str]:
    """Give what every child process gets: no telemetry, and no settings from outside."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("EDGE_RUNTIME__")}
    return kept | {"ORT_DISABLE_TELEMETRY": "1"}


def ours(models: Mapping[str, Path], scratch: Path, **engine: str) -> Command:
    """Say how to start the daemon with one thread a run, otherwise with its defaults.

    Args:
        models: Files by model name.
        scratch: An empty folder of its own for sockets and state.
        **engine: More settings of its ``[engine]`` section.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    port = free_port()
    script = Path(sys.executable).with_name("edge-runtime")
    arguments = [str(script), "serve", *(f"{name}={path}" for name, path in models.items())]
    arguments += ["--socket", str(scratch / "r.sock"), "--admin-socket", str(scratch / "a.sock")]
    arguments += ["--http", f"127.0.0.1:{port}", "--state-dir", str(scratch / "state")]
    engine = {"intra_op_threads": "1"} | engine
    settings = {f"EDGE_RUNTIME__ENGINE__{key.upper()}": value for key, value in engine.items()}
    return Command(
        OURS, arguments, environment() | settings, port, ("json", "binary"), str(scratch / "r.sock")
    )


def fastapi(models: Mapping[str, Path]) -> Command:
    """Say how to start the FastAPI peer: one worker, uvloop, httptools, no access log.

    Args:
        models: Files by model name.
    """
    port = free_port()
    arguments = [sys.executable, "-m", "uvicorn", "--factory"]
    arguments += ["benchmarks.peers.fastapi_server:create_app", "--app-dir", str(ROOT)]
    arguments += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    arguments += ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    arguments += ["--log-level", "warning"]
    pairs = ";".join(f"{name}={path}" for name, path in models.items())
    return Command(FASTAPI, arguments, environment() | {MODELS_VARIABLE: pairs}, port, ("json",))


def free_port() -> int:
    """Find a TCP port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def spawned(command: Command, log: Path) -> Iterator[Server]:
    """Start a process and stop it at the end, whatever happens.

    It runs in a session of its own, so that Ctrl-C reaches only the one that measures, which then
    stops it in order.

    Args:
        command: What to start.
        log: File for what it writes.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command.arguments,
            env=command.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Server(command, process)
    finally:
        stop(process)


@contextmanager
def started(command: Command, scratch: Path) -> Iterator[Server]:
    """Start a server, wait until it is ready, and stop it at the end.

    Args:
        command: What to start.
        scratch: Folder for its log.

    Raises:
        ServerError: It is not ready in time; the message ends with the end of its log.
    """
    log = scratch / f"{command.name}-{command.port}.log"
    with spawned(command, log) as server:
        deadline = time.monotonic() + READY_S
        while not _is_ready(command.address):
            if server.process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text("utf-8", "replace")[-2000:]
                raise ServerError(f"{command.name} is not ready: {tail}")
            time.sleep(_POLL_S)
        yield server


def stop(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """End a process by its id: asked first, forced after a while.

    Args:
        process: A child of this process.
    """
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        pass  # forced below, as after a second Ctrl-C
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _is_ready(address: Address) -> bool:
    """Ask once."""
    try:
        return ask(address, "GET", "/v2/health/ready", timeout_s=2.0).status == 200
    except OSError:
        return False
