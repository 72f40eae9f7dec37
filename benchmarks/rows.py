"""The first rows: footprint, start, and throughput beside a FastAPI server."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from benchmarks.bench import Bench, warm
from benchmarks.cases import DIGITS
from benchmarks.contenders import (
    CLIENT,
    IN_PROCESS,
    SOCKET,
    Contender,
    compare,
    in_process,
    interleave,
)
from benchmarks.footprint import Memory, memory, wakes_per_s
from benchmarks.results import Fact, Line, Outcome, at_least, at_most, ratios, spread
from benchmarks.servers import FASTAPI, OURS, ROOT, environment, started
from benchmarks.startup import first_prediction_s, import_s
from benchmarks.workload import read_workload

IMPORT: Final = "python -c 'import onnxruntime'"
UNIX_MODEL: Final = "squeezenet"
"""Its input is the 600 kB one: 1x3x224x224 float32, 602,112 bytes."""


def memory_row(bench: Bench) -> Outcome:
    """Measure both servers' memory after a load, each with no other contender about."""
    found: dict[str, list[Memory]] = {OURS: [], FASTAPI: []}
    for _ in range(bench.plan.memory_rounds):
        for command in bench.commands(DIGITS):
            with started(command, bench.scratch) as server:
                warm(bench, server, DIGITS, 32)
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
            warm(bench, server, DIGITS, 32)
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
        warm(bench, server, UNIX_MODEL, 1)
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
            limit = 8 if one.contender.endswith("json") else 9
            outcome.targets.append(at_least(what, one.to_fastapi.median, limit, "x"))
    return outcome


def squeezenet_row(bench: Bench) -> Outcome:
    """Load squeezenet with 1 and 4 connections."""
    plan = bench.plan
    levels, rounds, seconds = plan.image_connections, plan.image_rounds, plan.image_s
    return Outcome(
        _throughput(bench, "squeezenet", levels, callers=4, rounds=rounds, seconds=seconds)
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
            settings = {"engine.memory_arena": setting}
            command = bench.daemon(UNIX_MODEL, name=words, formats=("binary",), settings=settings)
            server = stack.enter_context(started(command, bench.scratch))
            contenders += warm(bench, server, UNIX_MODEL, 4)
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
            contenders += warm(bench, server, model, max(levels))
        lines: list[Line] = []
        for connections in levels:
            samples = interleave(contenders, connections, rounds, seconds, bench.tick)
            lines += compare(model, connections, samples)
        return lines
