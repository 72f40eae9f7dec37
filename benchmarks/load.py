"""Load from ``wrk``: so many connections, each sending its next request when answered."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

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


def installed() -> bool:
    """Say whether ``wrk`` can be run."""
    return shutil.which("wrk") is not None


def load(port: int, workload: Workload, connections: int, seconds: int, scratch: Path) -> Sample:
    """Load a server on loopback.

    Args:
        port: Its TCP port.
        workload: What to send, in turn.
        connections: Connections, each with one request under way.
        seconds: How long.
        scratch: Folder for the generated script.

    Raises:
        WrongAnswerError: An answer was not a success.
    """
    script = scratch / f"{workload.model}-{workload.format}.lua"
    if not script.exists():
        script.write_text(_lua(workload), "utf-8")
    command = ["wrk", "--threads", "1", "--connections", str(connections)]
    command += ["--duration", f"{seconds}s", "--timeout", "30s", "--script", str(script)]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + _GRACE_S,
    )
    return parse(done.stdout, done.stderr)


def parse(output: str, complaint: str = "") -> Sample:
    """Read what the generated script printed.

    Args:
        output: Standard output of ``wrk``.
        complaint: Its standard error, for the message.

    Raises:
        WrongAnswerError: An answer was not a success, or there was none.
    """
    lines = [line for line in output.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise WrongAnswerError(f"wrk gave no result: {output} {complaint}")
    result = json.loads(lines[-1].removeprefix("RESULT "))
    if result["refused"] or result["failed"] or not result["requests"]:
        raise WrongAnswerError(f"wrk: not every answer was a success: {result}")
    return Sample(
        per_s=result["requests"] / (result["duration_us"] / 1e6),
        p50_ms=result["p50_us"] / 1e3,
        p99_ms=result["p99_us"] / 1e3,
    )


def _lua(workload: Workload) -> str:
    """Write the script that makes ``wrk`` send these requests."""
    headers = ", ".join(f'["{name}"] = "{value}"' for name, value in workload.headers.items())
    paths = ", ".join(json.dumps(str(path.resolve())) for path in workload.bodies)
    return _SCRIPT.format(target=workload.target, headers=headers, paths=paths)
