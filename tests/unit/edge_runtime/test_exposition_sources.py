"""Scrapes and Triton's statistics of what the daemon is really made of."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge_runtime.api.answers import model_statistics
from edge_runtime.api.exchange import Exchange
from edge_runtime.api.handlers import Handlers
from edge_runtime.api.metric_sources import Sources
from edge_runtime.api.routes import Router
from edge_runtime.api.scraping import scrape
from edge_runtime.api.tables import data_routes
from edge_runtime.cache.predictions import PredictionCache
from edge_runtime.catalog import Catalog
from edge_runtime.hardware import cpu_facts
from edge_runtime.inference import Inference
from edge_runtime.metrics import ServerStatistics
from edge_runtime.protocol.schemas import Duration, MemoryUsage
from edge_runtime.scheduling import Scheduler
from edge_runtime.settings import Cache, Limits, Model
from tests.fakes import WAIT_S, FakeLoader, bundle

if TYPE_CHECKING:
    from edge_runtime.cache.ticket import Hit

pytestmark = pytest.mark.asyncio

CACHED = {"m": Model(cache_ttl_s=60.0)}


class Client:
    """A connection that keeps its answers."""

    peer = cast("Any", None)
    is_draining = False

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.status = 0
        self.answer: Any = b""

    def answered(self, exchange: Exchange) -> None:
        """Take an answer."""
        self.status, self.answer = exchange.status, exchange.answer
        self.gone.set()


def samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def value(text: str, name: str, **labels: str) -> float:
    (only,) = [
        number
        for sample, has, number in samples(text)
        if sample == name and labels.items() <= has.items()
    ]
    return only


def cache_in_memory(folder: Path) -> PredictionCache:
    cache = PredictionCache(
        asyncio.get_running_loop(),
        Cache(disk_bytes=0),
        folder,
        runtime_version="1",
        cpu=cpu_facts(),
    )
    cache.configure(CACHED)
    return cache


async def test_a_scrape_tells_what_the_cache_did(tmp_path: Path) -> None:
    catalog = Catalog(FakeLoader())
    cache = cache_in_memory(tmp_path)
    await catalog.apply("m", {1: bundle("m", 1)}, CACHED["m"])
    loaded = catalog.peek("m")
    kept = cache.open("m", "1", loaded.digest, ("CPU",), loaded.signature)
    assert kept is not None
    feeds = {name: np.ones((1, 2), np.float32) for name in ("a", "b")}
    answers: list[Hit] = []

    def run(ticket: Any) -> None:  # noqa: ANN401 - the cache's own
        ticket.done([np.zeros((1, 2), np.float32)], 10**9)

    for _ in range(3):
        kept.fetch(feeds, ["sum"], None, answers.append, run)
    sources = Sources(catalog, ServerStatistics(0.0), cache=cache)
    text = (await scrape(sources, ""))[0].decode()
    requests = "edge_runtime_cache_requests_total"
    assert len(answers) == 2
    assert value(text, requests, model="m", version="1", outcome="memory_hit") == 2
    assert value(text, requests, outcome="miss") == 1
    assert value(text, requests, outcome="disk_hit") == 0
    assert value(text, "edge_runtime_cache_answers", store="memory") == 1
    assert value(text, "edge_runtime_cache_size_bytes", store="memory") > 0
    assert value(text, "edge_runtime_cache_seconds_total", outcome="hit") > 0
    told = model_statistics(loaded, kept.counters).inference_stats
    assert told.cache_hit == Duration(2, kept.counters.hit_ns)
    assert told.cache_miss == Duration(1, kept.counters.miss_ns)
    await catalog.close()


async def test_a_model_without_cache_has_no_numbers_of_one(tmp_path: Path) -> None:
    catalog = Catalog(FakeLoader())
    await catalog.apply("n", {1: bundle("n", 1)})
    sources = Sources(catalog, ServerStatistics(0.0), cache=cache_in_memory(tmp_path))
    text = (await scrape(sources, ""))[0].decode()
    assert not [name for name, _, _ in samples(text) if name == "edge_runtime_cache_answers"]
    assert value(text, "edge_runtime_model_loaded", model="n") == 1
    await catalog.close()


async def test_a_scrape_tells_what_waits_and_runs() -> None:
    catalog = Catalog(FakeLoader())
    scheduler = Scheduler(asyncio.get_running_loop(), threads=1, inline_limit_ns=0, queue_depth=4)
    sources = Sources(catalog, ServerStatistics(0.0), scheduler)
    text = (await scrape(sources, ""))[0].decode()
    assert value(text, "edge_runtime_runs_waiting") == 0
    assert value(text, "edge_runtime_runs_running") == 0
    assert await scheduler.close(WAIT_S)
    await catalog.close()


async def test_memory_is_what_was_measured_and_nothing_for_a_version_that_left() -> None:
    catalog = Catalog(FakeLoader())
    await catalog.apply("m", {1: bundle("m", 1)})
    loaded = catalog.peek("m")
    loaded.size_bytes = 4321
    assert model_statistics(loaded).memory_usage == [MemoryUsage("CPU", 0, 4321)]
    assert model_statistics(loaded, in_memory=False).memory_usage == []
    text = (await scrape(Sources(catalog, ServerStatistics(0.0)), ""))[0].decode()
    assert value(text, "edge_runtime_model_size_bytes", model="m", version="1") == 4321
    await catalog.close()


async def test_others_have_their_turn_while_many_versions_are_scraped() -> None:
    loader = FakeLoader()
    catalog = Catalog(loader)
    for number in range(40):
        await catalog.apply(f"m{number}", {1: bundle(f"m{number}", 1)})
    loop = asyncio.get_running_loop()
    turns = 0
    going = True

    def turn() -> None:
        nonlocal turns
        turns += 1
        if going:
            loop.call_soon(turn)

    await scrape(Sources(catalog, ServerStatistics(0.0)), "")  # the first one imports
    turn()
    before = turns
    await scrape(Sources(catalog, ServerStatistics(0.0)), "")
    going = False
    assert turns - before > 1
    await catalog.close()


async def test_a_scrape_goes_on_while_versions_come_and_go() -> None:
    catalog = Catalog(FakeLoader())
    for number in range(20):
        await catalog.apply(f"m{number}", {1: bundle(f"m{number}", 1)})
    sources = Sources(catalog, ServerStatistics(0.0))
    scraping = asyncio.ensure_future(scrape(sources, "application/openmetrics-text"))
    for number in range(20):
        await catalog.apply(f"m{number}", {})
        await catalog.apply(f"n{number}", {1: bundle(f"n{number}", 1)})
    text, content_type = await scraping
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")
    await catalog.close()


async def test_a_scrape_that_fails_is_answered() -> None:
    nothing = cast("Any", None)
    catalog = Catalog(FakeLoader())
    inference = Inference(catalog, nothing)
    handlers = Handlers(catalog, inference, ServerStatistics(0.0), nothing, Limits())
    handlers.sources = nothing
    client = Client()
    exchange = Exchange(client)
    exchange.target = b"/metrics"
    Router(data_routes(handlers)).dispatch(exchange)
    async with asyncio.timeout(WAIT_S):
        await client.gone.wait()
    assert client.status == 500
    await catalog.close()
