"""What is left of the work done when ten times as much is asked: goodput, refusals, memory."""

import time
from dataclasses import dataclass
from typing import Final

from benchmarks.bench import Bench, warm
from benchmarks.cases import THUMBNAIL
from benchmarks.footprint import memory
from benchmarks.load import load, loading
from benchmarks.paced import ask_paced
from benchmarks.results import Entry, Outcome, at_least, percentile, spread
from benchmarks.servers import Server, started
from benchmarks.workload import Workload, WrongAnswerError, read_workload

TABLE: Final = "Overload"
TIMES: Final = 10
"""Offered requests over what the daemon can do at its best."""

_PACE: Final = 12
"""What is aimed at to offer ``TIMES``: a connection waits for answers too, not only pauses."""

_CONNECTIONS: Final = 256
_QUEUE_DEPTH: Final = 8
_LEVELS: Final = (2, 4, 8)
"""Numbers of connections at which the peak is looked for; none of them fills the queue."""

_PEAK_S: Final = 1
_PROBES_PER_S: Final = 50
_RAMP_S: Final = 0.3
_LONG_ENOUGH_S: Final = 60
"""The overload is ended when the refusals were timed."""


@dataclass(frozen=True, slots=True)
class Overload:
    """One overload, after the peak was looked for."""

    peak_per_s: float
    """Answers per second at the best number of connections."""

    good_per_s: float
    """Successes per second in the overload."""

    offered_per_s: float
    """Requests per second in the overload."""

    refusals_ms: list[float]
    """How long single refusals took, seen by one more caller."""

    rss_mb: float
    """Memory of the daemon at its end."""


def overload_row(bench: Bench) -> Outcome:
    """Overload the daemon with small requests for long runs, and with large ones."""
    plan = bench.plan
    outcome = Outcome()
    for model, words, rounds in (
        (THUMBNAIL, "squeezenet, 768 bytes", plan.overload_rounds),
        ("squeezenet", "squeezenet, 600 kB", plan.overload_large_rounds),
    ):
        if rounds:
            before_mb, found = measure(bench, model, rounds)
            outcome.add(conclude(words, before_mb, found, target=model == THUMBNAIL))
    return outcome


def measure(bench: Bench, model: str, rounds: int) -> tuple[float, list[Overload]]:
    """Overload the daemon with one model.

    Args:
        bench: What every row needs.
        model: The model.
        rounds: How often.

    Returns:
        The daemon's memory before the first time, in MB, and the rounds.
    """
    workload = read_workload(bench.folder, model, "binary")
    settings = {"engine.queue_depth": str(_QUEUE_DEPTH)}
    found: list[Overload] = []
    command = bench.daemon(model, formats=("binary",), settings=settings)
    with started(command, bench.scratch) as server:
        warm(bench, server, model, max(_LEVELS))
        before_mb = memory(server.pid).rss_mb
        for _ in range(rounds):
            found.append(_round(bench, server, workload))
            bench.tick()
    return before_mb, found


def pause_ms(connections: int, per_s: float) -> int:
    """Say how long a connection pauses so that all of them ask so many times a second.

    Args:
        connections: How many ask.
        per_s: Requests per second of all together, if answers took no time.

    Returns:
        At least 1, in milliseconds.
    """
    return max(1, round(1000 * connections / per_s))


def conclude(words: str, before_mb: float, found: list[Overload], *, target: bool) -> Outcome:
    """Put the rounds together.

    Args:
        words: What the tables call the model.
        before_mb: Memory of the daemon before the first overload.
        found: The rounds.
        target: Whether the goodput is held against the target.

    Raises:
        WrongAnswerError: Nothing was refused, so it was no overload.
    """
    refusals = [one.refusals_ms for one in found if one.refusals_ms]
    if not refusals:
        raise WrongAnswerError(f"overload of {words}: nothing was refused")
    kept = spread([one.good_per_s / one.peak_per_s for one in found])
    grown_mb = found[-1].rss_mb - found[0].rss_mb
    outcome = Outcome()
    outcome.entries.append(
        Entry(
            TABLE,
            {
                "requests": words,
                "peak per s": spread([one.peak_per_s for one in found]).median,
                "offered x peak": spread(
                    [one.offered_per_s / one.peak_per_s for one in found]
                ).median,
                "successes per s": spread([one.good_per_s for one in found]).median,
                "successes x peak": kept,
                "503 p50 ms": spread([percentile(one, 50) for one in refusals]),
                "503 p99 ms": spread([percentile(one, 99) for one in refusals]),
                "RSS MB before": before_mb,
                "RSS MB after each": spread([one.rss_mb for one in found]),
                "grew MB, first to last": grown_mb,
            },
        )
    )
    if target:
        what = f"successes at {TIMES} times the load over the peak, {words}"
        outcome.targets.append(at_least(what, kept.median, 0.9, "x"))
    return outcome


def _round(bench: Bench, server: Server, workload: Workload) -> Overload:
    """Look for the peak, then overload, while one more caller tells how refusals feel."""
    port = server.command.port
    scratch = bench.scratch
    peak = max(load(port, workload, level, _PEAK_S, scratch).per_s for level in _LEVELS)
    seconds = bench.plan.overload_s
    pause = pause_ms(_CONNECTIONS, _PACE * peak)
    with loading(port, workload, _CONNECTIONS, _LONG_ENOUGH_S, scratch, pause_ms=pause) as running:
        time.sleep(_RAMP_S)
        # Over TCP like the others: as another user it would be preferred to them.
        waits = ask_paced(("127.0.0.1", port), workload, _PROBES_PER_S, seconds)
        tally = running.end()
    if tally.failed:
        raise WrongAnswerError(f"overload: {tally.failed} connections failed: {tally}")
    return Overload(
        peak_per_s=peak,
        good_per_s=tally.good_per_s,
        offered_per_s=tally.per_s,
        refusals_ms=[wait.ms for wait in waits if wait.status == 503],
        rss_mb=memory(server.pid).rss_mb,
    )
