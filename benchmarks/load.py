"""Load from ``wrk``: so many connections, each sending its next request when answered."""

import json
import math
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.processes import stop
from benchmarks.workload import Workload, WrongAnswerError

MISSING: Final = "wrk is not installed: apt-get install wrk"

_GRACE_S: Final = 60
"""How much longer than asked ``wrk`` may run, in seconds: it waits for slow last answers."""

_SCRIPT: Final = """\
local requests = {{}}
local turn = 0
function init(args)
  for i, path in ipairs({{{paths}}}) do
    local file = assert(io.open(path, "rb"))
    requests[i] = wrk.format("POST", "{target}", {{{headers}}}, file:read("*a"))
    file:close()
  end
end
function request()
  turn = turn % #requests + 1
  return requests[turn]
end
function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format(
    '\\nRESULT {{"requests":%d,"duration_us":%d,"p50_us":%.1f,"p99_us":%.1f,' ..
    '"refused":%d,"failed":%d}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, failed))
end
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """One contender under one load for a short while."""

    per_s: float
    """Answers per second."""

    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Tally:
    """What ``wrk`` counted."""

    requests: int
    """Answers, refusals among them."""

    duration_us: int
    p50_us: float
    p99_us: float
    refused: int
    """Answers other than a success."""

    failed: int
    """Requests without an answer: errors of connections."""

    @property
    def good_per_s(self) -> float:
        """Successes per second."""
        return (self.requests - self.refused) / (self.duration_us / 1e6)

    @property
    def per_s(self) -> float:
        """Answers per second, refusals among them."""
        return self.requests / (self.duration_us / 1e6)

    def sample(self) -> Sample:
        """Take it as a load that must not be refused anything.

        Raises:
            WrongAnswerError: An answer was not a success, or there was none.
        """
        if self.refused or self.failed or not self.requests:
            raise WrongAnswerError(f"wrk: not every answer was a success: {self}")
        return Sample(self.per_s, self.p50_us / 1e3, self.p99_us / 1e3)


class Load:
    """A ``wrk`` that runs."""

    def __init__(self, process: subprocess.Popen[str], seconds: int) -> None:
        """Remember it.

        Args:
            process: ``wrk``.
            seconds: How long it was told to run.
        """
        self._process = process
        self._seconds = seconds

    def end(self) -> Tally:
        """End it before its time, and take what it counted.

        Raises:
            WrongAnswerError: It counted nothing.
        """
        self._process.send_signal(signal.SIGINT)
        return self.tally()

    def tally(self) -> Tally:
        """Wait for its end, and take what it counted.

        Raises:
            WrongAnswerError: It counted nothing.
        """
        output, complaint = self._process.communicate(timeout=self._seconds + _GRACE_S)
        return parse(output, complaint)


def installed() -> bool:
    """Say whether ``wrk`` can be run."""
    return shutil.which("wrk") is not None


def load(port: int, workload: Workload, connections: int, seconds: float, scratch: Path) -> Sample:
    """Load a server on loopback.

    Args:
        port: Its TCP port.
        workload: What to send, in turn.
        connections: Connections, each with one request under way.
        seconds: How long; in whole seconds ``wrk`` keeps the time itself.
        scratch: Folder for the generated script.

    Raises:
        WrongAnswerError: An answer was not a success.
    """
    whole = math.ceil(seconds)
    with loading(port, workload, connections, whole, scratch) as running:
        if seconds < whole:
            time.sleep(seconds)
            return running.end().sample()
        return running.tally().sample()


@contextmanager
def loading(
    port: int,
    workload: Workload,
    connections: int,
    seconds: int,
    scratch: Path,
    *,
    pause_ms: int = 0,
) -> Iterator[Load]:
    """Load a server on loopback while something else is measured.

    Args:
        port: Its TCP port.
        workload: What to send, in turn.
        connections: Connections, each with at most one request under way.
        seconds: How long.
        scratch: Folder for the generated script.
        pause_ms: Mean time between an answer and the connection's next request, in milliseconds.
    """
    path = scratch / f"{workload.model}-{workload.format}-{pause_ms}.lua"
    if not path.exists():
        path.write_text(script(workload, pause_ms), "utf-8")
    command = ["wrk", "--threads", "1", "--connections", str(connections)]
    command += ["--duration", f"{seconds}s", "--timeout", "30s", "--script", str(path)]
    process = subprocess.Popen(
        [*command, f"http://127.0.0.1:{port}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Load(process, seconds)
        finally:
            stop(process)


def parse(output: str, complaint: str = "") -> Tally:
    """Read what the generated script printed.

    Args:
        output: Standard output of ``wrk``.
        complaint: Its standard error, for the message.

    Raises:
        WrongAnswerError: It printed no result.
    """
    lines = [line for line in output.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise WrongAnswerError(f"wrk gave no result: {output} {complaint}")
    return Tally(**json.loads(lines[-1].removeprefix("RESULT ")))


def script(workload: Workload, pause_ms: int) -> str:
    """Write the Lua that makes ``wrk`` send these requests.

    Args:
        workload: What to send, in turn.
        pause_ms: As for ``loading``.
    """
    headers = ", ".join(f'["{name}"] = "{value}"' for name, value in workload.headers.items())
    paths = ", ".join(json.dumps(str(path.resolve())) for path in workload.bodies)
    text = _SCRIPT.format(target=workload.target, headers=headers, paths=paths)
    if not pause_ms:
        return text
    # Around the mean: with equal pauses all connections would ask at the same moments.
    return f"{text}function delay() return math.random(0, {2 * pause_ms}) end\n"
