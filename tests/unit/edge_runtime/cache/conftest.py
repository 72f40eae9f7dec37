"""Fixtures of the cache's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.cache import version_cache
from edge_runtime.cache.folder import Folder
from edge_runtime.cache.schema import DATABASE, DIRECTORY
from edge_runtime.cache.worker import Worker
from edge_runtime.settings import Cache
from tests.caching import (
    POLICY,
    RAM_ONLY,
    SETTLE_S,
    CachedModel,
    Make,
    Seen,
    TurnableClock,
    make_database,
    subject,
)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a busy machine take its time: the cache itself gives up a slow disk."""
    for name in ("_READ_S_MIN", "_READ_S_MAX", "_READ_S_UNKNOWN", "_STALE_READ_S"):
        monkeypatch.setattr(version_cache, name, SETTLE_S)


@pytest.fixture
def state(folder: Path) -> Path:
    """A state directory with an empty cache."""
    make_database(folder)
    return folder


@pytest.fixture
def model(folder: Path) -> Iterator[CachedModel]:
    """A model whose answers are kept in memory."""
    with CachedModel(folder, settings=RAM_ONLY) as cached:
        yield cached


@pytest.fixture
def time() -> TurnableClock:
    """A clock."""
    return TurnableClock()


@pytest.fixture
def seen() -> Seen:
    """What the worker told."""
    return Seen()


@pytest.fixture
def make(folder: Path, time: TurnableClock, seen: Seen) -> Iterator[Make]:
    """Makes workers that have opened the same folder; closes them."""
    workers: list[Worker] = []

    def make_(*, migrated: bool = True, **settings: int) -> Worker:
        if migrated and not (folder / DIRECTORY).exists():
            make_database(folder)
        worker = Worker(
            Folder(folder / DIRECTORY), Cache(**settings), time.clock, seen.opened.append
        )
        worker.describe(subject(), POLICY)
        worker.open()
        workers.append(worker)
        return worker

    yield make_
    for worker in workers:
        worker.close()


@pytest.fixture
def database(folder: Path) -> Path:
    """Where the file is."""
    return folder / DIRECTORY / DATABASE
