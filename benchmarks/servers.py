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
from benchmarks.processes import stop
from benchmarks.wire import Address, ask
from benchmarks.workload import Format, WrongAnswerError

OURS: Final = "edge-runtime"
FASTAPI: Final = "FastAPI"

READY_S: Final = 60.0
"""The longest wait for a server to become ready, in seconds."""

_POLL_S: Final = 0.02
_TAIL_LINES: Final = 12
_ENDING_S: Final = 1.0
"""From the loss of a server's connections until its end can be seen, in seconds, at most."""

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


def ours(models: Mapping[str, Path], scratch: Path, settings: Mapping[str, str]) -> Command:
    """Say how to start the daemon with one thread a run, otherwise with its defaults.

    Args:
        models: Files by model name.
        scratch: An empty folder of its own for sockets and state.
        settings: More settings, by dotted key such as ``batching.enabled``, as TOML text.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    port = free_port()
    script = Path(sys.executable).with_name("edge-runtime")
    arguments = [str(script), "serve", *(f"{name}={path}" for name, path in models.items())]
    arguments += ["--socket", str(scratch / "r.sock"), "--admin-socket", str(scratch / "a.sock")]
    arguments += ["--http", f"127.0.0.1:{port}", "--state-dir", str(scratch / "state")]
    settings = {"engine.intra_op_threads": "1"} | dict(settings)
    variables = {
        f"EDGE_RUNTIME__{key.upper().replace('.', '__')}": text for key, text in settings.items()
    }
    unix = str(scratch / "r.sock")
    return Command(OURS, arguments, environment() | variables, port, ("json", "binary"), unix)


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
        ServerError: It is not ready in time, or it ended while it was measured and that made the
            measurement fail; the message ends with the end of its log.
    """
    log = scratch / f"{command.name}-{command.port}.log"
    with spawned(command, log) as server:
        deadline = time.monotonic() + READY_S
        while not _is_ready(command.address):
            if server.process.poll() is not None or time.monotonic() > deadline:
                raise ServerError(f"{command.name} is not ready; its log ends with:{_tail(log)}")
            time.sleep(_POLL_S)
        try:
            yield server
        except (OSError, WrongAnswerError, subprocess.SubprocessError) as error:
            try:
                code = server.process.wait(_ENDING_S)
            except subprocess.TimeoutExpired:  # alive: the failure is another's
                raise error from None
            what = f"{command.name} ended with {code} while it was measured"
            raise ServerError(f"{what}; its log ends with:{_tail(log)}") from error


def _tail(log: Path) -> str:
    """Read the last lines of a log."""
    lines = log.read_text("utf-8", "replace").splitlines()[-_TAIL_LINES:]
    return "\n".join(["", *lines])


def _is_ready(address: Address) -> bool:
    """Ask once."""
    try:
        return ask(address, "GET", "/v2/health/ready", timeout_s=2.0).status == 200
    except OSError:
        return False
