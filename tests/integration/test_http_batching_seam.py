"""Batching fits behind ``submit``: pipelined requests share a run, and ``api`` knows nothing."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import uvloop

from edge_runtime.api.connection import Door
from edge_runtime.api.handlers import Handlers
from edge_runtime.api.http import Budget
from edge_runtime.api.routes import Router
from edge_runtime.api.tables import data_routes
from edge_runtime.api.timeouts import Timeouts
from edge_runtime.catalog import Catalog
from edge_runtime.hardware import cpu_facts
from edge_runtime.inference import Inference
from edge_runtime.listeners import Listeners, bind_unix
from edge_runtime.loading import load_bundle
from edge_runtime.metrics import ServerStatistics
from edge_runtime.repository import discover
from edge_runtime.scheduling import Run, Scheduler
from edge_runtime.settings import Engine, Limits, Model
from tests.models import add_constant
from tests.wire import infer

pytestmark = pytest.mark.integration


class ToyBatcher:
    """Merges what arrives in one turn of the loop into one run.

    Attributes:
        sizes: Requests of every merged run.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._waiting: list[Run] = []
        self.sizes: list[int] = []

    def submit(self, run: Run) -> None:
        """Take one request's run."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self._waiting.append(run)

    def _flush(self) -> None:
        runs, self._waiting = self._waiting, []
        self.sizes.append(len(runs))
        first = runs[0]
        merged = Run(
            session=first.session,
            cost=first.cost,
            names=first.names,
            feeds={name: np.concatenate([run.feeds[name] for run in runs]) for name in first.feeds},
            rows=sum(run.rows for run in runs),
            request=first.request,
            done=lambda merged: split(merged, runs),
            received=first.received,
        )
        self._scheduler.submit(merged)


def split(merged: Run, runs: list[Run]) -> None:
    start = 0
    for run in runs:
        end = start + run.rows
        run.outputs = [output[start:end] for output in merged.outputs]
        run.error = merged.error
        run.queued, run.started, run.ended = merged.queued, merged.started, merged.ended
        run.done(run)
        start = end


@asynccontextmanager
async def served(model: Path, socket: Path) -> AsyncIterator[tuple[ToyBatcher, Catalog]]:
    """Compose what the daemon composes, with the toy in front of the scheduler."""
    loop = asyncio.get_running_loop()
    load = partial(
        load_bundle,
        engine=Engine(),
        settings=Model(),
        providers=("CPUExecutionProvider",),
        cpu=cpu_facts(),
        cpus=1,
    )
    catalog = Catalog(load)
    await catalog.apply("m", discover({"m": Model(path=str(model))}, ()).bundles["m"])
    scheduler = Scheduler(loop, threads=1, inline_limit_ns=500_000, queue_depth=8)
    toy = ToyBatcher(scheduler)

    async def reload(_: str) -> None:
        """Nothing is reloaded here."""

    statistics = ServerStatistics(time.time())
    handlers = Handlers(catalog, Inference(catalog, toy.submit), statistics, reload, Limits())
    router = Router(data_routes(handlers))
    door = Door(router.dispatch, Limits(), statistics, Timeouts(loop), Budget())
    listeners = Listeners()
    listeners.add(bind_unix(socket), door.connection)
    await listeners.start()
    try:
        yield toy, catalog
    finally:
        listeners.close()
        door.abort()
        await door.empty.wait()
        await scheduler.close(within_s=10)
        await catalog.close()


def test_two_pipelined_requests_share_one_run_and_get_their_own_rows(tmp_path: Path) -> None:
    model = add_constant(tmp_path / "m.onnx", 10.0)

    async def main() -> None:
        async with served(model, tmp_path / "s") as (toy, catalog):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
            writer.write(infer("m", [[1, 2]]) + infer("m", [[3, 4], [5, 6]]))
            first = await reader.readuntil(b"]}]}")
            second = await reader.readuntil(b"]}]}")
            assert b'"data":[11.0,12.0]' in first
            assert b'"data":[13.0,14.0,15.0,16.0]' in second
            assert toy.sizes == [2]
            assert catalog.peek("m").cost.seen == 1
            assert catalog.peek("m").statistics.rows == 3
            writer.close()
            await writer.wait_closed()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
