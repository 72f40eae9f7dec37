"""What the prediction cache saves where a run is long, and costs where it is not."""

from typing import Final

from benchmarks.bench import Bench
from benchmarks.cases import DIGITS
from benchmarks.results import Entry, Outcome, at_least
from benchmarks.switch import Switched, on_and_off

TABLE: Final = "Prediction cache: requests repeat, binary"
_TTL_S: Final = "3600"


def cache_row(bench: Bench) -> Outcome:
    """Compare the daemon with the cache on and off, for a long run and for a short one."""
    plan = bench.plan
    outcome = Outcome()
    for model, loads in (
        ("squeezenet", [(1, plan.cache_long_rounds)]),
        (DIGITS, [(1, plan.cache_rounds), (32, plan.cache_rounds)]),
    ):
        settings = {"cache on": {f"models.{model}.cache_ttl_s": _TTL_S}, "cache off": {}}
        found = on_and_off(bench, model, settings, loads, plan.cache_s)
        outcome.add(conclude(model, found, target=model == DIGITS))
    return outcome


def conclude(model: str, found: list[Switched], *, target: bool) -> Outcome:
    """Make one model's part of the table.

    Args:
        model: The model.
        found: One comparison for each number of connections.
        target: Whether the cache must cost next to nothing.
    """
    outcome = Outcome()
    for each in found:
        for side in (each.on, each.off):
            cells = {"model": model, "connections": str(each.connections)} | side.cells()
            cells["hits, % of requests"] = 100 * side.counted.hit_share
            cells["per s, on over off"] = each.rate if side is each.on else None
            cells["p50, on over off"] = each.p50 if side is each.on else None
            outcome.entries.append(Entry(TABLE, cells))
        if target:
            what = f"{model}-int8, connections: {each.connections}, cache on over off"
            outcome.targets.append(at_least(what, each.rate.median, 0.95, "x"))
    return outcome
