"""A setting on and off: two daemons that differ in nothing else, loaded in turn."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.bench import Bench, warm
from benchmarks.contenders import Contender, interleave
from benchmarks.counters import Counters, read_counters
from benchmarks.load import Sample
from benchmarks.results import Cell, Spread, ratios, spread
from benchmarks.servers import Server, started


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two daemons under one load."""

    name: str
    samples: Sequence[Sample]
    counted: Counters
    """What it counted itself meanwhile."""

    def cells(self) -> dict[str, Cell]:
        """Give what a table says of it: medians."""
        return {
            "contender": self.name,
            "per s": spread([one.per_s for one in self.samples]).median,
            "p50 ms": spread([one.p50_ms for one in self.samples]).median,
            "p99 ms": spread([one.p99_ms for one in self.samples]).median,
            "CPU us an answer": self.counted.cpu_us,
        }


@dataclass(frozen=True, slots=True)
class Switched:
    """Both daemons under one load, round by round."""

    connections: int
    on: Side
    off: Side

    @property
    def rate(self) -> Spread:
        """Answers per second, on over off."""
        on, off = self.on.samples, self.off.samples
        return ratios([one.per_s for one in on], [one.per_s for one in off])

    @property
    def p50(self) -> Spread:
        """Median time of an answer, on over off."""
        on, off = self.on.samples, self.off.samples
        return ratios([one.p50_ms for one in on], [one.p50_ms for one in off])


def on_and_off(
    bench: Bench,
    model: str,
    settings: Mapping[str, Mapping[str, str]],
    loads: Sequence[tuple[int, int]],
    seconds: float,
) -> list[Switched]:
    """Compare two daemons, in binary.

    Args:
        bench: What every row needs.
        model: What both serve.
        settings: Of the daemon with the setting on, then of the other one, by what the tables
            call them.
        loads: Numbers of connections, each with how many rounds it gets.
        seconds: Time of one daemon in one round.
    """
    found: list[Switched] = []
    with ExitStack() as stack:
        contenders: list[Contender] = []
        servers: list[Server] = []
        for name, values in settings.items():
            command = bench.daemon(model, name=name, formats=("binary",), settings=values)
            server = stack.enter_context(started(command, bench.scratch))
            contenders += warm(bench, server, model, max(connections for connections, _ in loads))
            servers.append(server)
        for connections, rounds in loads:
            before = [read_counters(server, model) for server in servers]
            samples = interleave(contenders, connections, rounds, seconds, bench.tick)
            on, off = (
                Side(server.command.name, taken, read_counters(server, model).since(old))
                for server, taken, old in zip(servers, samples.values(), before, strict=True)
            )
            found.append(Switched(connections, on, off))
    return found
