"""What batching costs one caller, and what it gains many."""

from collections.abc import Iterable
from typing import Final

from benchmarks.bench import Bench
from benchmarks.cases import DIGITS
from benchmarks.results import Entry, Outcome, at_least
from benchmarks.switch import Switched, on_and_off

TABLE: Final = "Batching: digits-int8, binary"
_MANY: Final = 32


def batching_row(bench: Bench) -> Outcome:
    """Compare the daemon with batching on and off, with one caller and with many."""
    plan = bench.plan
    settings = {
        "batching on": {"batching.enabled": "true"},
        "batching off": {"batching.enabled": "false"},
    }
    loads = [(1, plan.batching_one_rounds), (_MANY, plan.batching_many_rounds)]
    return conclude(on_and_off(bench, DIGITS, settings, loads, plan.batching_s))


def conclude(found: Iterable[Switched]) -> Outcome:
    """Make the table and hold it against the target.

    Args:
        found: One comparison for each number of connections.
    """
    outcome = Outcome()
    for each in found:
        for side in (each.on, each.off):
            cells = {"connections": str(each.connections)} | side.cells()
            cells["rows of a run"] = side.counted.rows_per_run
            cells["per s, on over off"] = each.rate if side is each.on else None
            outcome.entries.append(Entry(TABLE, cells))
        if each.connections == 1:
            what = "digits-int8, 1 connection, batching on over off"
            outcome.targets.append(at_least(what, each.rate.median, 0.97, "x"))
    return outcome
