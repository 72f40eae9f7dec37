"""``python -m benchmarks.quantize``: edge-quantize against the plain recipes, on whole networks.

Every network is quantised by the installed command, by ``quantize_static`` and ``quantize_dynamic``
with their defaults, by the usual recipe for CPUs with VNNI, and by NNCF where it is installed. Then
all results of a network are timed in turn with its float model, round by round.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from benchmarks import machine
from benchmarks.plain_quantisers import PLAIN, PlainError
from benchmarks.quantize_cases import CASES, Case, Files
from benchmarks.quantize_page import PAGE, Line, page, table
from quantize.data.reading import read_data
from quantize.evaluation import outputs_of, rows_that_work, score
from quantize.execution import open_runner
from quantize.latency import compare
from quantize.metrics import metric
from quantize.model.storage import stored_bytes
from quantize.records import Latency, Score

ROUNDS: Final = 3
RUNS: Final = 20
_ROWS: Final = 16
_OURS: Final = "edge-quantize"


class Made(NamedTuple):
    """What a contender made of a network.

    Attributes:
        file: The model; ``None``: it made none.
        note: How it ended.
    """

    file: Path | None
    note: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    Args:
        arguments: The command line; ``None`` for the process's own.

    Returns:
        0 when everything was measured, whatever the numbers.
    """
    options = _parser().parse_args(arguments)
    strangers = machine.Strangers()
    lines: list[Line] = []
    for name in options.only or list(CASES):
        print(f"{name} ...", file=sys.stderr, flush=True)
        lines += _network(CASES[name], options.time_budget)
        print(table(lines), file=sys.stderr, flush=True)
    text = page(lines, machine.facts(), strangers.share(), datetime.now(tz=UTC).date().isoformat())
    print(text)
    if not options.only:
        PAGE.write_text(text, "utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantize", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(CASES), help="these networks, no page")
    parser.add_argument("--time-budget", default="90s", help="of each search (default: 90s)")
    return parser


def _network(case: Case, budget: str) -> list[Line]:
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as name:
        folder = Path(name)
        model, data, evaluate = case.make(folder)
        begun = time.monotonic()
        made = {_OURS: _ours(case, (model, data, evaluate), folder, budget)}
        seconds = {_OURS: time.monotonic() - begun}
        for contender, quantise in PLAIN.items():
            begun = time.monotonic()
            destination = folder / f"{len(made)}.onnx"
            try:
                quantise(model, data, destination)
                made[contender] = Made(destination, "")
            except PlainError as error:
                made[contender] = Made(None, str(error))
            seconds[contender] = time.monotonic() - begun
        times = _times(model, made, data)
        scores = _scores(model, made, evaluate or data)
        return [
            Line(
                network=case.name,
                contender=contender,
                latency=times.get(contender, ()),
                size_ratio=stored_bytes(each.file) / stored_bytes(model) if each.file else None,
                score=scores.get(contender),
                seconds=seconds[contender],
                note=each.note,
            )
            for contender, each in made.items()
        ]


def _ours(case: Case, files: Files, folder: Path, budget: str) -> Made:
    model, data, evaluate = files
    command = shutil.which("edge-quantize", path=Path(sys.executable).parent)
    assert command is not None, "edge-quantize is not installed beside this Python"
    output = folder / "bundle"
    options = ["--evaluate", str(evaluate)] if evaluate else []
    done = subprocess.run(
        [command, model, "--data", data, *options, "--time-budget", budget, "--floor",
         str(case.floor), "--quiet", "--json", "-o", output],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if not done.stdout:
        return Made(None, f"exit {done.returncode}: {done.stderr.strip()[-300:]}")
    report = json.loads(done.stdout)
    note = f"exit {done.returncode}, {report['ending']}: {report['chosen'] or 'float kept'}"
    shipped = report["shipped"]
    return Made(output / shipped[0]["file"] if shipped else None, note)


def _times(model: Path, made: dict[str, Made], data: Path) -> dict[str, tuple[Latency, ...]]:
    """Time every contender's model in turn with the float model, round by round."""
    with open_runner(model) as runner:
        feeds = [*read_data(data, runner.signature).take(range(4)).feeds(1)]
    files = {name: each.file for name, each in made.items() if each.file is not None}
    found: dict[str, list[Latency]] = {name: [] for name in files}
    for number in range(ROUNDS):
        for name, file in files.items():
            found[name].append(compare(file, model, feeds, threads=1, runs=RUNS, seed=number))
    return {name: tuple(each) for name, each in found.items()}


def _scores(model: Path, made: dict[str, Made], data: Path) -> dict[str, Score]:
    """Score every contender's model on the samples that decide."""
    with open_runner(model) as runner:
        samples = read_data(data, runner.signature)
        found = metric("auto", has_labels=samples.labels is not None, signature=runner.signature)
        rows = rows_that_work(runner, samples, _ROWS, found.outputs)
        reference = outputs_of(runner, samples, rows, found.outputs)
    scores = {}
    for name, each in made.items():
        if each.file is None:
            continue
        with open_runner(each.file) as runner:
            rows = rows_that_work(runner, samples, _ROWS, found.outputs)
            outputs = outputs_of(runner, samples, rows, found.outputs)
        if all(np.isfinite(array).all() for array in outputs.values()):
            scores[name] = score(found, outputs, reference, samples.labels, confidence=0.95)
    return scores


if __name__ == "__main__":
    sys.exit(main())
