"""What a large model costs: its start with and without a cached graph, and p99 beside its loads."""

import dataclasses
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.bench import Bench
from benchmarks.cases import DIGITS
from benchmarks.paced import ask_paced
from benchmarks.results import Fact, Outcome, at_most, percentile, ratios, spread
from benchmarks.servers import Command, ours, started
from benchmarks.startup import first_prediction_s
from benchmarks.wire import ask
from benchmarks.workload import WrongAnswerError, read_workload

LARGE: Final = "resnet50"
WITHOUT: Final = "without the cache of graphs"
FIRST: Final = "first start"
LATER: Final = "later start"

_PER_S: Final = 300
"""Requests to the small model: a twentieth of what it could answer."""

_RAMP_S: Final = 0.1
_ONE_GRAPH_BYTES: Final = 150 * 2**20
"""Room for one graph of the large model: two that take turns are both made anew every time."""


def restart_row(bench: Bench) -> Outcome:
    """Time starts of a daemon with a large model, from process start to the first prediction."""
    workload = read_workload(bench.folder, LARGE, "binary")
    starts: dict[str, list[float]] = {WITHOUT: [], FIRST: [], LATER: []}
    for turn in range(bench.plan.restart_rounds + 1):
        cached = bench.daemon(LARGE, name=FIRST)
        commands = [
            bench.daemon(LARGE, name=WITHOUT, settings={"engine.graph_cache_bytes": "0"}),
            cached,
            dataclasses.replace(cached, name=LATER),  # on the state that the first one left
        ]
        for command in commands:
            took_s = first_prediction_s(command, workload, bench.scratch)
            if turn:  # the first round filled the page cache
                starts[command.name].append(took_s)
            bench.tick()
        shutil.rmtree(Path(cached.unix or "").parent)
    what = f"{LARGE}: start to first prediction"
    facts = [Fact(what, name, "s", spread(took)) for name, took in starts.items()]
    outcome = Outcome(facts=facts)
    for name in (FIRST, WITHOUT):
        times = ratios(starts[LATER], starts[name])
        outcome.facts.append(Fact(what, f"{LATER} over {name}", "x", times))
        if name == FIRST:
            words = f"{LARGE}: later start over first start"
            outcome.targets.append(at_most(words, times.median, 0.7, "x"))
    return outcome


def beside_row(bench: Bench) -> Outcome:
    """Measure a small model's p99 while a large one is swapped again and again."""
    outcome = Outcome()
    for words, settings in (
        ("is optimised and loaded", {"engine.graph_cache_bytes": str(_ONE_GRAPH_BYTES)}),
        ("is loaded from the cache", {}),
    ):
        alone: list[float] = []
        beside: list[float] = []
        loads: list[float] = []
        with _swappable(bench, settings) as (command, swap):
            for _ in range(bench.plan.loading_rounds):
                alone.append(_p99_ms(bench, command))
                with swap.again_and_again() as times:
                    beside.append(_p99_ms(bench, command))
                loads += times
                bench.tick()
        what = f"{DIGITS} p99, {_PER_S} requests per s"
        outcome.facts.append(Fact(what, f"while nothing is loaded ({words})", "ms", spread(alone)))
        outcome.facts.append(Fact(what, f"while {LARGE} {words}", "ms", spread(beside)))
        outcome.facts.append(Fact("time of such a load", f"{LARGE} {words}", "s", spread(loads)))
        over = ratios(beside, alone)
        target = f"{DIGITS} p99 while {LARGE} {words}, over p99 alone"
        outcome.facts.append(Fact(target, "paired rounds", "x", over))
        outcome.targets.append(at_most(target, over.median, 1.2, "x"))
    return outcome


class Swap:
    """Puts one of two files with the same weights in place of a served model, in turn.

    Args:
        served: The file that is served.
        files: Two models of different digests.
        admin: The daemon's admin socket.
    """

    def __init__(self, served: Path, files: list[Path], admin: str) -> None:
        self._served = served
        self._files = files
        self._admin = admin

    def once(self) -> None:
        """Swap, and wait until the daemon has loaded it.

        Raises:
            WrongAnswerError: It cannot.
        """
        self._files.reverse()
        link = self._served.with_suffix(".new")
        link.hardlink_to(self._files[0])
        link.replace(self._served)
        answer = ask(self._admin, "POST", f"/v2/repository/models/{LARGE}/load")
        if answer.status != 200:
            raise WrongAnswerError(f"{LARGE} is not loaded: {answer.body[:300]!r}")

    @contextmanager
    def again_and_again(self) -> Iterator[list[float]]:
        """Swap in a thread for the length of a block; gives the seconds of each load."""
        times: list[float] = []
        over = threading.Event()
        failures: list[Exception] = []

        def work() -> None:
            try:
                while not over.is_set():
                    began = time.perf_counter()
                    self.once()
                    times.append(time.perf_counter() - began)
            except (OSError, WrongAnswerError) as error:
                failures.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            time.sleep(_RAMP_S)
            yield times
        finally:
            over.set()
            thread.join()
        if failures:
            raise failures[0]


@contextmanager
def _swappable(bench: Bench, settings: dict[str, str]) -> Iterator[tuple[Command, Swap]]:
    """Serve the small model and a copy of the large one that may be swapped."""
    folder = bench.scratch / f"s{time.monotonic_ns()}"
    folder.mkdir()
    files = []
    for letter in b"ab":
        file = folder / f"{letter}.onnx"
        # A doc_string of one letter (field 6 of ModelProto): another digest, the same model.
        file.write_bytes(bench.model(LARGE).read_bytes() + bytes((0x32, 1, letter)))
        files.append(file)
    served = folder / "served.onnx"
    served.hardlink_to(files[0])
    command = ours({DIGITS: bench.model(DIGITS), LARGE: served}, folder / "d", settings)
    swap = Swap(served, files, str(folder / "d" / "a.sock"))
    try:
        with started(command, bench.scratch):
            for _ in files:
                swap.once()  # what can be cached, is
            yield command, swap
    finally:
        shutil.rmtree(folder)


def _p99_ms(bench: Bench, command: Command) -> float:
    """Ask the small model for a while."""
    workload = read_workload(bench.folder, DIGITS, "binary")
    waits = ask_paced(command.address, workload, _PER_S, bench.plan.loading_s)
    if any(wait.status != 200 for wait in waits):
        raise WrongAnswerError(f"{DIGITS}: not every answer was a success")
    return percentile([wait.ms for wait in waits], 99)
