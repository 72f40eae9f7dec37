"""What one user notices of another: the modest one's waits alone and beside a greedy one.

To the daemon they are two users: the modest one comes over the Unix socket, where the kernel says
who it is; the greedy one over TCP, where everybody together is one user without a name.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from benchmarks.bench import Bench, warm
from benchmarks.cases import DIGITS
from benchmarks.load import Sample, loading
from benchmarks.paced import Wait, ask_paced
from benchmarks.results import Entry, Outcome, at_most, percentile, ratios, spread
from benchmarks.servers import Server, started
from benchmarks.workload import WrongAnswerError, read_workload

TABLE: Final = "Fair shares"
NOBODY: Final = "nobody"
ANOTHER: Final = "another daemon"
SAME: Final = "the same daemon"

_RAMP_S: Final = 0.3
"""From the start of the greedy user until the modest one is measured, in seconds."""

_LONG_ENOUGH_S: Final = 60
"""The greedy user is ended when the modest one was measured."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two users of one daemon."""

    modest: str
    """The model that the modest user asks, one request at a time."""

    per_s: float
    """The modest user's pace."""

    greedy: str
    """The model that the greedy user asks, as fast as it can."""

    connections: int
    """The greedy user's."""

    @property
    def words(self) -> str:
        """What the tables call it."""
        return f"{self.modest} beside {self.connections} connections to {self.greedy}"


DIGITS_PAIR: Final = Pair(DIGITS, 100, DIGITS, 32)
POOL_PAIR: Final = Pair("squeezenet", 20, "squeezenet", 32)
SLOW_PAIR: Final = Pair(DIGITS, 100, "resnet50", 4)


@dataclass(frozen=True, slots=True)
class Round:
    """One situation, once: what the modest user waited, and what the greedy one got."""

    waits: list[Wait]
    greedy: Sample | None

    def percentile_ms(self, percent: float) -> float:
        """Give a percentile of the modest user's waits, in milliseconds."""
        return percentile([wait.ms for wait in self.waits], percent)


def digits_row(bench: Bench) -> Outcome:
    """Short runs, on the event loop's thread."""
    plan = bench.plan
    return conclude(DIGITS_PAIR, measure(bench, DIGITS_PAIR, plan.fair_rounds, plan.fair_s), 1.5)


def pool_row(bench: Bench) -> Outcome:
    """Longer runs, in the pool."""
    plan = bench.plan
    return conclude(POOL_PAIR, measure(bench, POOL_PAIR, plan.fair_rounds, plan.fair_pool_s), 1.5)


def beside_row(bench: Bench) -> Outcome:
    """A short run beside one that takes a thousand times as long; a fact, without a target."""
    plan = bench.plan
    return conclude(SLOW_PAIR, measure(bench, SLOW_PAIR, plan.beside_rounds, plan.fair_s), None)


def measure(bench: Bench, pair: Pair, rounds: int, seconds: float) -> dict[str, list[Round]]:
    """Measure a modest user alone, beside a greedy one, and while that one asks another daemon.

    Args:
        bench: What every row needs.
        pair: The users.
        rounds: How often each situation is measured.
        seconds: How long each time.

    Returns:
        One entry a round, by situation.
    """
    found: dict[str, list[Round]] = {NOBODY: [], ANOTHER: [], SAME: []}
    situations = list(found)
    models = list(dict.fromkeys((pair.modest, pair.greedy)))
    with ExitStack() as stack:
        servers: list[Server] = []
        for name in ("this daemon", "another daemon"):
            command = bench.daemon(*models, name=name, formats=("binary",))
            server = stack.enter_context(started(command, bench.scratch))
            for model in models:
                warm(bench, server, model, pair.connections)
            servers.append(server)
        this, another = servers
        loaded: Mapping[str, Server | None] = {NOBODY: None, ANOTHER: another, SAME: this}
        for turn in range(rounds):
            first = turn % len(situations)
            for situation in (*situations[first:], *situations[:first]):
                found[situation].append(_round(bench, pair, this, loaded[situation], seconds))
                bench.tick()
    return found


def conclude(pair: Pair, found: Mapping[str, Sequence[Round]], limit: float | None) -> Outcome:
    """Put the rounds together.

    Args:
        pair: The users.
        found: One entry a round, by situation; the rounds of all situations belong together.
        limit: The target: p99 beside over p99 while the other one asks another daemon; ``None``:
            there is none.
    """
    p50, p99 = (
        {
            situation: [one.percentile_ms(percent) for one in rounds]
            for situation, rounds in found.items()
        }
        for percent in (50, 99)
    )
    outcome = Outcome()
    for situation, rounds in found.items():
        got = [one.greedy.per_s for one in rounds if one.greedy is not None]
        outcome.entries.append(
            Entry(
                TABLE,
                {
                    "modest user": f"{pair.modest}, {pair.per_s:g} per s",
                    "greedy user": f"{pair.greedy}, {pair.connections} connections",
                    "the greedy user asks": situation,
                    "p50 ms": spread(p50[situation]).median,
                    "p99 ms": spread(p99[situation]),
                    "p99 over nobody": ratios(p99[situation], p99[NOBODY]),
                    "p99 over another daemon": ratios(p99[situation], p99[ANOTHER]),
                    "greedy per s": spread(got).median if got else None,
                },
            )
        )
    if limit is not None:
        what = f"p99 of {pair.words}, over the same load on another daemon"
        times = ratios(p99[SAME], p99[ANOTHER])
        outcome.targets.append(at_most(what, times.median, limit, "x"))
    return outcome


def _round(
    bench: Bench, pair: Pair, server: Server, loaded: Server | None, seconds: float
) -> Round:
    """Let the modest user ask a server for a while, and the greedy one the same or another."""
    address = server.command.address
    modest = read_workload(bench.folder, pair.modest, "binary")
    if loaded is None:
        return Round(_checked(ask_paced(address, modest, pair.per_s, seconds)), None)
    greedy = read_workload(bench.folder, pair.greedy, "binary")
    port = loaded.command.port
    with loading(port, greedy, pair.connections, _LONG_ENOUGH_S, bench.scratch) as load:
        time.sleep(_RAMP_S)
        waits = ask_paced(address, modest, pair.per_s, seconds)
        sample = load.end().sample()
    return Round(_checked(waits), sample)


def _checked(waits: list[Wait]) -> list[Wait]:
    """Make sure that the modest user was answered.

    Raises:
        WrongAnswerError: It was refused something.
    """
    refused = [wait.status for wait in waits if wait.status != 200]
    if refused:
        raise WrongAnswerError(f"the modest user was refused {len(refused)} times: {refused[:5]}")
    return waits
