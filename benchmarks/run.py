"""``make bench``: runs the rows, prints the tables and writes ``docs/performance.md``."""

import argparse
import dataclasses
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from tqdm import tqdm

from benchmarks import load, machine, report
from benchmarks.bench import QUICK, Bench, Plan
from benchmarks.registry import ROWS
from benchmarks.results import Outcome
from benchmarks.servers import ROOT, ServerError, environment
from benchmarks.workload import WrongAnswerError

CACHE: Final = ROOT / "build" / "benchmarks"
PAGE: Final = ROOT / "docs" / "performance.md"

_STRANGERS_LIMIT: Final = 0.1
"""Share of all cores: when other programs take more, the page says so."""

_EXIT_FAILED: Final = 1
_EXIT_USAGE: Final = 4
_EXIT_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    Args:
        arguments: The command line; ``None`` for the process's own.

    Returns:
        Exit code: 0 when everything was measured, whatever the targets; 4 when something that is
        needed is missing.
    """
    options = _parser().parse_args(arguments)
    if not load.installed():
        print(load.MISSING, file=sys.stderr)
        return _EXIT_USAGE
    if shutil.which("edge-runtime", path=Path(sys.executable).parent) is None:
        print("edge-runtime is not installed beside this Python: pip install -e .", file=sys.stderr)
        return _EXIT_USAGE
    signal.signal(signal.SIGTERM, _terminated)
    facts = machine.facts()
    strangers = machine.Strangers()
    try:
        everything = [name for name in ROWS if ROWS[name].quick or not options.quick]
        outcome = _measure(_plan(options), options.only or everything)
    except (ServerError, WrongAnswerError) as error:
        print(error, file=sys.stderr)
        return _EXIT_FAILED
    except KeyboardInterrupt:
        print("interrupted; every server was stopped", file=sys.stderr)
        return _EXIT_INTERRUPTED
    share = strangers.share()
    facts["CPU time taken by others meanwhile"] = f"{share:.0%} of all cores"
    if share > _STRANGERS_LIMIT:
        outcome.notes.append(
            f"Others took {share:.0%} of all cores while this ran: measure again before quoting it."
        )
    date = f"{datetime.now(tz=UTC):%Y-%m-%d}"
    print(report.tables(outcome))
    text = report.to_json(outcome, facts, date)
    if options.json:
        options.json.write_text(text, "utf-8")
    if not options.quick and not options.only:
        (CACHE / "results.json").write_text(text, "utf-8")
        PAGE.write_text(report.markdown(outcome, facts, date), "utf-8")
    return 0


class _Parser(argparse.ArgumentParser):
    """Ends with the project's exit code for wrong usage."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end.

        Args:
            message: What argparse says.
        """
        self.print_usage(sys.stderr)
        self.exit(_EXIT_USAGE, f"{self.prog}: {message}\n")


def _measure(plan: Plan, names: Sequence[str]) -> Outcome:
    """Run rows one after the other."""
    outcome = Outcome()
    CACHE.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as scratch,
        tqdm(total=1 + sum(ROWS[name].steps(plan) for name in names), disable=None) as progress,
    ):

        def tick() -> None:
            progress.update()

        progress.set_description("models and requests")
        command = [sys.executable, "-m", "benchmarks.cases", str(CACHE)]
        subprocess.run(command, env=environment(), cwd=ROOT, start_new_session=True, check=True)
        tick()
        for name in names:
            progress.set_description(name)
            began = time.monotonic()
            outcome.add(ROWS[name].run(Bench(CACHE, Path(scratch), plan, tick)))
            progress.write(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return outcome


def _plan(options: argparse.Namespace) -> Plan:
    plan = QUICK if options.quick else Plan()
    if options.agent_idle_s is None:
        return plan
    return dataclasses.replace(plan, agent_idle_s=options.agent_idle_s)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no time; write seconds above 0, such as 600")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m benchmarks.run",
        description="Measure the daemon against an in-process session and a FastAPI server.",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="smoke test: a moment of all rows but the slowest, no page written",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=ROWS,
        metavar="ROW",
        help=f"one row of {', '.join(ROWS)}; may be given again; no page written",
    )
    parser.add_argument(
        "--agent-idle-s",
        type=_seconds,
        metavar="SECONDS",
        help="how long the idle agent is watched (180)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    return parser


def _terminated(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    """Turn SIGTERM into an exception, so that every server is stopped."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
