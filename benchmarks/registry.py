"""All rows of the benchmark, in the order in which they run."""

from collections.abc import Mapping
from typing import Final

from benchmarks import (
    agent,
    agent_download,
    agent_outbox,
    fairness_rows,
    loading_rows,
    release_rows,
    rows,
)
from benchmarks.batching_rows import batching_row
from benchmarks.bench import Row
from benchmarks.cache_rows import cache_row
from benchmarks.overload_rows import overload_row

ROWS: Final[Mapping[str, Row]] = {
    # First those that want no other process about.
    "memory": Row(rows.memory_row, lambda plan: 2 * plan.memory_rounds),
    "idle": Row(rows.idle_row, lambda _: 2),
    "start": Row(rows.start_row, lambda plan: plan.start_rounds + 1),
    "restart": Row(
        loading_rows.restart_row, lambda plan: 3 * (plan.restart_rounds + 1), quick=False
    ),
    "unix": Row(rows.unix_row, lambda _: 1),
    "arena": Row(rows.arena_row, lambda plan: 2 * plan.image_rounds),
    "digits": Row(
        rows.digits_row, lambda plan: len(plan.digits_connections) * 4 * plan.digits_rounds
    ),
    "squeezenet": Row(
        rows.squeezenet_row, lambda plan: len(plan.image_connections) * 4 * plan.image_rounds
    ),
    "resnet50": Row(rows.resnet50_row, lambda plan: 2 * 4 * plan.slow_rounds, quick=False),
    "batching": Row(
        batching_row, lambda plan: 2 * (plan.batching_one_rounds + plan.batching_many_rounds)
    ),
    "fairness": Row(fairness_rows.digits_row, lambda plan: 3 * plan.fair_rounds),
    "fairness-pool": Row(fairness_rows.pool_row, lambda plan: 3 * plan.fair_rounds, quick=False),
    "short-beside-long": Row(
        fairness_rows.beside_row, lambda plan: 3 * plan.beside_rounds, quick=False
    ),
    "overload": Row(overload_row, lambda plan: plan.overload_rounds + plan.overload_large_rounds),
    "cache": Row(cache_row, lambda plan: 2 * (plan.cache_long_rounds + 2 * plan.cache_rounds)),
    "loading": Row(loading_rows.beside_row, lambda plan: 2 * plan.loading_rounds, quick=False),
    "release": Row(
        release_rows.release_row, lambda plan: len(release_rows.WAYS) * plan.release_rounds
    ),
    "agent": Row(agent.agent_row, lambda _: 3, quick=False),
    "agent-outbox": Row(agent_outbox.outbox_row, lambda _: 10, quick=False),
    "agent-download": Row(agent_download.download_row, lambda _: len(agent_download.WAYS)),
}
