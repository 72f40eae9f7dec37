"""What a run found: medians with their spread, and the targets they are held against."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.load import Sample


@dataclass(frozen=True, slots=True)
class Spread:
    """One number from several rounds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Line:
    """One contender under one load; its ratios were taken round by round."""

    row: str
    connections: int
    contender: str
    per_s: Spread
    p50_ms: Spread
    p99_ms: Spread
    to_fastapi: Spread | None = None
    """Answers per second over FastAPI's."""

    to_in_process: Spread | None = None
    """Answers per second over the in-process loop's."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One measured number that is not a rate."""

    what: str
    contender: str
    unit: str
    value: Spread


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a table that a row has for itself."""

    table: str
    """The table's heading; entries of several rows may share a table."""

    cells: "Mapping[str, Cell]"
    """By column heading; all entries of a table have the same ones."""


Cell = str | float | Spread | None
"""What a table of a row's own holds; ``None`` stays empty."""


@dataclass(frozen=True, slots=True)
class Target:
    """What was to be reached, and what was."""

    what: str
    wanted: str
    value: float
    unit: str
    reached: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """The findings of one row, or of all of them."""

    lines: list[Line] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, other: "Outcome") -> None:
        """Take over the findings of a row.

        Args:
            other: The row's.
        """
        self.lines.extend(other.lines)
        self.facts.extend(other.facts)
        self.entries.extend(other.entries)
        self.targets.extend(other.targets)
        self.notes.extend(other.notes)


def spread(values: Sequence[float]) -> Spread:
    """Take the median and the extremes.

    Args:
        values: One number a round.
    """
    return Spread(statistics.median(values), min(values), max(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """Take the smallest value that at least this share of all values does not exceed.

    Args:
        values: At least one, in any order.
        percent: 0 to 100.

    Source:
        The nearest-rank method: a value that was measured, never one between two.
    """
    rank = math.ceil(percent / 100 * len(values))
    return sorted(values)[max(rank, 1) - 1]


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Divide round by round, then take the median.

    Args:
        above: One number a round.
        below: The denominator of the same rounds.
    """
    return spread([left / right for left, right in zip(above, below, strict=True)])


def line(
    row: str,
    connections: int,
    contender: str,
    samples: Sequence[Sample],
    *,
    fastapi: Sequence[Sample] | None,
    in_process: Sequence[Sample] | None,
) -> Line:
    """Put one contender's rounds together.

    Args:
        row: Name of the row.
        connections: Requests under way at once.
        contender: Its name.
        samples: One a round.
        fastapi: FastAPI's, of the same rounds; ``None`` for no ratio.
        in_process: The in-process loop's; ``None`` for no ratio.
    """
    rate = [sample.per_s for sample in samples]
    return Line(
        row,
        connections,
        contender,
        spread(rate),
        spread([sample.p50_ms for sample in samples]),
        spread([sample.p99_ms for sample in samples]),
        ratios(rate, [sample.per_s for sample in fastapi]) if fastapi else None,
        ratios(rate, [sample.per_s for sample in in_process]) if in_process else None,
    )


def at_most(what: str, value: float, limit: float, unit: str) -> Target:
    """Hold a number against an upper limit, both in ``unit``."""
    return Target(what, f"<= {limit:g} {unit}".strip(), value, unit, value <= limit)


def at_least(what: str, value: float, limit: float, unit: str) -> Target:
    """Hold a number against a lower limit, both in ``unit``."""
    return Target(what, f">= {limit:g} {unit}".strip(), value, unit, value >= limit)
