"""A scheduler on a real loop, runs to give it, and what came out of it."""

import asyncio
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

import numpy as np

from edge_runtime.batching import Lane, Run
from edge_runtime.scheduling import Scheduler
from edge_runtime.tensors import Array
from tests.fakes import lane as fresh_lane

LIMIT_NS = 500_000
QUEUE_DEPTH = 3
CLOSE_S = 10.0
WAIT_S = 60.0


@dataclass
class Request:
    """A request whose client may leave."""

    cancelled: bool = False


def feeds(rows: int, value: float = 1.0) -> dict[str, Array]:
    """Give inputs of the fake session's model: ``sum`` will be twice the value."""
    return {name: np.full((rows, 2), value, "<f4") for name in ("a", "b")}


class Bench:
    """A scheduler, and what came out of it in order.

    Args:
        threads: Of its pool.
        queue_depth: Runs that may wait for it.

    Attributes:
        finished: The runs that are done.
    """

    def __init__(self, threads: int = 1, queue_depth: int = QUEUE_DEPTH) -> None:
        self.scheduler = Scheduler(
            asyncio.get_running_loop(),
            threads=threads,
            inline_limit_ns=LIMIT_NS,
            queue_depth=queue_depth,
        )
        self.finished: list[Run] = []
        self._changed = asyncio.Event()

    def submit(self, lane: Lane | None = None, **fields: Any) -> Run:  # noqa: ANN401 - a run's own
        """Submit a run; it has one row of ones, of a model that nobody knows, if not told else."""
        rows = fields.setdefault("rows", 1)
        fields.setdefault("feeds", feeds(rows))
        made = lane or fresh_lane()
        run = Run(
            **{
                "lane": made,
                "names": ["sum"],
                "size": made.size(rows, fields["feeds"]),
                "request": Request(),
                "done": self.done,
                "received": perf_counter_ns(),
                **fields,
            }
        )
        self.scheduler.submit(run)
        return run

    def done(self, run: Run) -> None:
        """Note that a run is done."""
        self.finished.append(run)
        self._changed.set()

    async def until_finished(self, count: int) -> list[Run]:
        """Wait until so many runs are done."""
        async with asyncio.timeout(WAIT_S):
            while len(self.finished) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.finished
