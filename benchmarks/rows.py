"""The rows of the benchmark: what is compared with what, and how often."""

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.cases import DIGITS, MODELS_FILE
from benchmarks.contenders import (
    CLIENT,
    IN_PROCESS,
    SOCKET,
    Contender,
    Served,
    compare,
    in_process,
    interleave,
)
from benchmarks.footprint import Memory, memory, wakes_per_s
from benchmarks.results import Fact, Line, Outcome, at_least, at_most, ratios, spread
from benchmarks.servers import (
    FASTAPI,
    OURS,
    ROOT,
    Command,
    Server,
    environment,
    fastapi,
    ours,
    started,
)
from benchmarks.startup import first_prediction_s, import_s
from benchmarks.workload import read_workload

IMPORT: Final = "python -c 'import onnxruntime'"
UNIX_MODEL: Final = "squeezenet"
"""Its input is the 600 kB one: 1x3x224x224 float32, 602,112 bytes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How often, and for how many seconds; the full plan takes under six minutes."""

    warm: bool = True
    digits_connections: tuple[int, ...] = (1, 8, 32)
    digits_rounds: int = 7
    digits_s: int = 1
    image_rounds: int = 4
    image_s: int = 2
    slow_rounds: int = 3
    slow_s: int = 3
    unix_rounds: int = 15
    unix_turns: int = 30
    memory_rounds: int = 3
    start_rounds: int = 9
    settle_s: float = 3.0
    idle_s: float = 12.0


QUICK: Final = Plan(
    warm=False,
    digits_connections=(1, 32),
    digits_rounds=1,
    image_rounds=1,
    image_s=1,
    slow_rounds=1,
    slow_s=1,
    unix_rounds=2,
    unix_turns=5,
    memory_rounds=1,
    start_rounds=1,
    settle_s=0.5,
    idle_s=2.0,
)
"""A smoke test: no number means anything."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What every row needs."""

    folder: Path
    """The cache folder, with the models and requests."""

    scratch: Path
    """A short-lived folder with a short path: Unix sockets lie in it."""

    plan: Plan
    tick: Callable[[], None]

    def model(self, name: str) -> Path:
        """Give a model's file.

        Args:
            name: The model.
        """
        return Path(json.loads((self.folder / MODELS_FILE).read_text("utf-8"))[name])

    def commands(self, name: str) -> list[Command]:
        """Say how to start both servers with one model.

        Args:
            name: The model.
        """
        models = {name: self.model(name)}
        return [ours(models, self.scratch / f"d{time.monotonic_ns()}"), fastapi(models)]


@dataclass(frozen=True, slots=True)
class Row:
    """A part that can be run alone with ``--only``."""

    run: Callable[[Bench], Outcome]
    steps: Callable[[Plan], int]
    """How often it calls ``tick``."""


def memory_row(bench: Bench) -> Outcome:
    """Measure both servers' memory after a load, each with no other contender about."""
    found: dict[str, list[Memory]] = {OURS: [], FASTAPI: []}
    for _ in range(bench.plan.memory_rounds):
        for command in bench.commands(DIGITS):
            with started(command, bench.scratch) as server:
                _warm(bench, server, DIGITS, 32)
                found[command.name].append(memory(server.pid))
            bench.tick()
    outcome = Outcome()
    for name, measured in found.items():
        what = "memory after a load of digits-int8"
        pss = spread([one.pss_mb for one in measured])
        rss = spread([one.rss_mb for one in measured])
        outcome.facts.append(Fact(f"{what}, PSS", name, "MB", pss))
        outcome.facts.append(Fact(f"{what}, RSS", name, "MB", rss))
        if name == OURS:
            outcome.targets.append(at_most("PSS serving digits-int8", pss.median, 75, "MB"))
    sharers = max(one.sharers for measured in found.values() for one in measured)
    if sharers:
        outcome.notes.append(
            f"While memory was read, up to {sharers} other processes mapped ONNX Runtime too: "
            "the PSS is smaller than it would be alone; the RSS is its upper limit."
        )
    return outcome


def idle_row(bench: Bench) -> Outcome:
    """Count both servers' wakes after a load, when nobody asks any more."""
    outcome = Outcome()
    windows = 3
    for command in bench.commands(DIGITS):
        with started(command, bench.scratch) as server:
            _warm(bench, server, DIGITS, 32)
            time.sleep(bench.plan.settle_s)
            seconds = bench.plan.idle_s / windows
            wakes = spread([wakes_per_s(server.pid, seconds) for _ in range(windows)])
        outcome.facts.append(Fact("wakes while idle", command.name, "per s", wakes))
        if command.name == OURS:
            outcome.targets.append(at_most("wakes while idle", wakes.median, 2, "per s"))
        bench.tick()
    return outcome


def start_row(bench: Bench) -> Outcome:
    """Time both servers from process start to the first prediction, and the bare import."""
    workload = read_workload(bench.folder, DIGITS, "json")
    imports: list[float] = []
    starts: dict[str, list[float]] = {OURS: [], FASTAPI: []}
    for turn in range(bench.plan.start_rounds + 1):
        import_took_s = import_s()
        found = {
            command.name: first_prediction_s(command, workload, bench.scratch)
            for command in bench.commands(DIGITS)
        }
        if turn:  # the first round filled the page cache
            imports.append(import_took_s)
            for name, took_s in found.items():
                starts[name].append(took_s)
        bench.tick()
    outcome = Outcome([], [Fact(IMPORT, "Python", "s", spread(imports))])
    for name, seconds in starts.items():
        outcome.facts.append(Fact("start to first prediction", name, "s", spread(seconds)))
        times = ratios(seconds, imports)
        outcome.facts.append(Fact("start to first prediction over import", name, "x", times))
        if name == OURS:
            what = "start to first prediction over the import alone"
            outcome.targets.append(at_most(what, times.median, 3, "x"))
    return outcome


def unix_row(bench: Bench) -> Outcome:
    """Measure what serving adds to a prediction with 600 kB of input over the Unix socket."""
    plan = bench.plan
    command, _ = bench.commands(UNIX_MODEL)
    with started(command, bench.scratch) as server:
        _warm(bench, server, UNIX_MODEL, 1)
        arguments: list[object] = [bench.folder, UNIX_MODEL, bench.model(UNIX_MODEL), command.unix]
        arguments += [plan.unix_rounds, plan.unix_turns]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.latency", *map(str, arguments)],
            env=environment(),
            cwd=ROOT,
            start_new_session=True,
            stdout=subprocess.PIPE,
            check=True,
        )
    bench.tick()
    rounds = json.loads(done.stdout)
    what = f"{UNIX_MODEL} p50, 600 kB binary over the Unix socket"
    outcome = Outcome()
    for name in (IN_PROCESS, SOCKET, CLIENT):
        taken = spread([one[name] for one in rounds])
        outcome.facts.append(Fact(what, name, "ms", taken))
    for name in (SOCKET, CLIENT):
        added = spread([one[name] - one[IN_PROCESS] for one in rounds])
        outcome.facts.append(Fact("the same: added, paired rounds", name, "ms", added))
        if name == SOCKET:
            what = "added by serving 600 kB over the Unix socket"
            outcome.targets.append(at_most(what, added.median, 0.5, "ms"))
    return outcome


def digits_row(bench: Bench) -> Outcome:
    """Load digits-int8 with 1, 8 and 32 connections."""
    plan = bench.plan
    # A second caller thread makes so short a run slower, not faster.
    lines = _throughput(
        bench,
        DIGITS,
        plan.digits_connections,
        callers=1,
        rounds=plan.digits_rounds,
        seconds=plan.digits_s,
    )
    outcome = Outcome(lines)
    for one in lines:
        if one.connections == 32 and one.contender.startswith(OURS) and one.to_fastapi:
            what = f"{one.contender}: digits-int8, 32 connections, over FastAPI"
            outcome.targets.append(at_least(what, one.to_fastapi.median, 5, "x"))
    return outcome


def squeezenet_row(bench: Bench) -> Outcome:
    """Load squeezenet with 1 and 4 connections."""
    plan = bench.plan
    rounds, seconds = plan.image_rounds, plan.image_s
    return Outcome(
        _throughput(bench, "squeezenet", (1, 4), callers=4, rounds=rounds, seconds=seconds)
    )


def resnet50_row(bench: Bench) -> Outcome:
    """Load resnet50 with 1 and 4 connections; a run takes long, so a round does too."""
    plan = bench.plan
    rounds, seconds = plan.slow_rounds, plan.slow_s
    return Outcome(
        _throughput(bench, "resnet50", (1, 4), callers=4, rounds=rounds, seconds=seconds)
    )


def arena_row(bench: Bench) -> Outcome:
    """Compare the daemon with ONNX Runtime's memory arena off and on (its default)."""
    plan = bench.plan
    memories: list[Memory] = []
    with ExitStack() as stack:
        contenders: list[Contender] = []
        for setting, words in (("false", "arena off"), ("true", "arena on")):
            scratch = bench.scratch / f"d{time.monotonic_ns()}"
            command = ours({UNIX_MODEL: bench.model(UNIX_MODEL)}, scratch, memory_arena=setting)
            command = dataclasses.replace(command, name=words, formats=("binary",))
            server = stack.enter_context(started(command, bench.scratch))
            contenders += _warm(bench, server, UNIX_MODEL, 4)
            memories.append(memory(server.pid))
        samples = interleave(contenders, 1, plan.image_rounds, plan.image_s, bench.tick)
    what = f"{UNIX_MODEL}, binary, 1 connection"
    outcome = Outcome()
    for (name, found), used in zip(samples.items(), memories, strict=True):
        p50 = spread([one.p50_ms for one in found])
        outcome.facts.append(Fact(f"{what}: p50", name, "ms", p50))
        rss = spread([used.rss_mb])
        outcome.facts.append(Fact(f"{UNIX_MODEL}, after 4 connections, RSS", name, "MB", rss))
    off, on = samples.values()
    times = ratios([one.per_s for one in on], [one.per_s for one in off])
    outcome.facts.append(Fact(f"{what}: answers per second, arena on over off", OURS, "x", times))
    return outcome


ROWS: Final[Mapping[str, Row]] = {
    # First those that want no other process about.
    "memory": Row(memory_row, lambda plan: 2 * plan.memory_rounds),
    "idle": Row(idle_row, lambda _: 2),
    "start": Row(start_row, lambda plan: plan.start_rounds + 1),
    "unix": Row(unix_row, lambda _: 1),
    "arena": Row(arena_row, lambda plan: 2 * plan.image_rounds),
    "digits": Row(digits_row, lambda plan: len(plan.digits_connections) * 4 * plan.digits_rounds),
    "squeezenet": Row(squeezenet_row, lambda plan: 2 * 4 * plan.image_rounds),
    "resnet50": Row(resnet50_row, lambda plan: 2 * 4 * plan.slow_rounds),
}


def _throughput(
    bench: Bench,
    model: str,
    levels: Sequence[int],
    *,
    callers: int,
    rounds: int,
    seconds: int,
) -> list[Line]:
    """Interleave all contenders at several numbers of connections."""
    with ExitStack() as stack:
        path = bench.model(model)
        contenders: list[Contender] = [
            stack.enter_context(in_process(bench.folder, model, path, callers))
        ]
        for command in bench.commands(model):
            server = stack.enter_context(started(command, bench.scratch))
            contenders += _warm(bench, server, model, max(levels))
        lines: list[Line] = []
        for connections in levels:
            samples = interleave(contenders, connections, rounds, seconds, bench.tick)
            lines += compare(model, connections, samples)
        return lines


def _warm(bench: Bench, server: Server, model: str, connections: int) -> list[Served]:
    """Check a server's answers and load it for a second, in every format it speaks."""
    ways = [
        Served(server, read_workload(bench.folder, model, form), bench.scratch)
        for form in server.command.formats
    ]
    for way in ways:
        way.verify()
        if bench.plan.warm:
            way.measure(connections, 1)
    return ways
