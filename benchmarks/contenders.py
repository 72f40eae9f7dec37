"""The contenders of a row, all measured alike: so many requests under way, for so long."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from benchmarks.load import Sample, load
from benchmarks.processes import stop
from benchmarks.results import Line, line
from benchmarks.servers import FASTAPI, OURS, ROOT, Server, environment
from benchmarks.workload import Workload, verify

IN_PROCESS: Final = "in process"
SOCKET: Final = f"{OURS}, plain socket"
CLIENT: Final = f"{OURS}, edge_runtime.client"
FASTAPI_JSON: Final = f"{FASTAPI}, json"


class Contender(Protocol):
    """Something that answers, and its name."""

    @property
    def name(self) -> str:
        """What the tables call it."""

    def measure(self, connections: int, seconds: float) -> Sample:
        """Load it.

        Args:
            connections: Requests under way at once.
            seconds: How long.
        """


@dataclass(frozen=True, slots=True)
class Served:
    """A server, asked over TCP on loopback in one format."""

    server: Server
    workload: Workload
    scratch: Path

    @property
    def name(self) -> str:
        """What the tables call it."""
        return f"{self.server.command.name}, {self.workload.format}"

    def measure(self, connections: int, seconds: float) -> Sample:
        """Load it with ``wrk``.

        Args:
            connections: Connections, each with one request under way.
            seconds: How long.
        """
        port = self.server.command.port
        return load(port, self.workload, connections, seconds, self.scratch)

    def verify(self) -> None:
        """Check its answers.

        Raises:
            WrongAnswerError: One is not what the model answers.
        """
        verify(("127.0.0.1", self.server.command.port), self.workload)


@dataclass(frozen=True, slots=True)
class InProcess:
    """The loop on ``InferenceSession.run`` in a process of its own."""

    process: subprocess.Popen[str]
    most_callers: int
    name: str = IN_PROCESS

    def measure(self, connections: int, seconds: float) -> Sample:
        """Let it run.

        Args:
            connections: Caller threads, up to the contender's own limit.
            seconds: How long.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(min(connections, self.most_callers), seconds, file=self.process.stdin, flush=True)
        return Sample(**json.loads(self.process.stdout.readline()))


@contextmanager
def in_process(folder: Path, model: str, path: Path, most_callers: int) -> Iterator[InProcess]:
    """Start the in-process contender and stop it at the end.

    Args:
        folder: The cache folder.
        model: The model's name.
        path: Its file.
        most_callers: Threads that may call the session at once.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.in_process", str(folder), model, str(path)],
        env=environment(),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield InProcess(process, most_callers)
        finally:
            stop(process)


def interleave(
    contenders: Sequence[Contender],
    connections: int,
    rounds: int,
    seconds: float,
    tick: Callable[[], None],
) -> dict[str, list[Sample]]:
    """Load all contenders in turn, several times over, starting with another one each time.

    Args:
        contenders: Who is compared.
        connections: Requests under way at once.
        rounds: How many times over.
        seconds: Time of one contender in one round.
        tick: Called after each.

    Returns:
        Samples by contender, one a round.
    """
    samples: dict[str, list[Sample]] = {contender.name: [] for contender in contenders}
    for turn in range(rounds):
        first = turn % len(contenders)
        for contender in (*contenders[first:], *contenders[:first]):
            samples[contender.name].append(contender.measure(connections, seconds))
            tick()
    return samples


def compare(row: str, connections: int, samples: Mapping[str, Sequence[Sample]]) -> list[Line]:
    """Put each contender's rounds together, with its ratios to FastAPI and to the bare loop.

    Args:
        row: Name of the row.
        connections: Requests under way at once.
        samples: What ``interleave`` found.
    """
    return [
        line(
            row,
            connections,
            name,
            found,
            fastapi=samples[FASTAPI_JSON] if name != FASTAPI_JSON else None,
            in_process=samples[IN_PROCESS] if name != IN_PROCESS else None,
        )
        for name, found in samples.items()
    ]
