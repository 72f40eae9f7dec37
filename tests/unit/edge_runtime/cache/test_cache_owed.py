"""What could not be cleared on disk is not given, is told, and is cleared later."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.cache import disk, store
from edge_runtime.cache.schema import DATABASE, DIRECTORY
from edge_runtime.cache.worker import PAUSE_S
from edge_runtime.settings import Model
from tests.caching import DISK_ONLY, CachedModel, TurnableClock, entries_on_disk


@pytest.fixture
def time() -> TurnableClock:
    """A clock."""
    return TurnableClock()


@pytest.fixture
def model(
    state: Path, time: TurnableClock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CachedModel]:
    """A model with three answers, all on disk."""
    monkeypatch.setattr(store, "_BUSY_S", 0.01)
    monkeypatch.setattr(disk, "_RETRY_S_MIN", 0.001)
    with CachedModel(state, time, settings=DISK_ONLY) as cached:
        for number in range(3):
            cached.predict(number)
        cached.settle()
        assert all(cached.predict(number) for number in range(3))
        yield cached


@pytest.fixture
def lock(state: Path, model: CachedModel) -> Iterator[sqlite3.Connection]:
    """Somebody who holds the file."""
    del model
    other = sqlite3.connect(state / DIRECTORY / DATABASE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield other
    other.close()


def clear(model: CachedModel, name: str) -> str:
    told: list[str] = []
    model.cache.clear(name, told.append)
    model.wait_until(lambda: bool(told))
    model.settle()
    assert len(told) == 1
    return told[0]


def test_a_clear_that_fails_is_told_and_what_it_was_for_is_never_given_again(
    model: CachedModel, lock: sqlite3.Connection, time: TurnableClock
) -> None:
    assert "locked" in clear(model, "m")
    assert not any(model.predict(number) for number in range(3))
    lock.close()
    assert not any(model.predict(number) for number in range(3)), "before the pause is over"
    time.pass_(PAUSE_S)
    model.predict(10)
    model.settle()
    assert not any(model.predict(number) for number in range(3))
    model.settle()
    assert all(model.predict(number) for number in range(3)), "and are kept anew"


def test_a_clear_that_failed_is_done_when_it_is_asked_for_again(
    model: CachedModel, lock: sqlite3.Connection
) -> None:
    assert clear(model, "m")
    lock.close()
    assert not clear(model, "m")
    assert entries_on_disk(model) == 0
    assert not any(model.predict(number) for number in range(3))


def test_a_model_that_opts_out_and_in_again_while_the_file_is_locked_is_forgotten(
    model: CachedModel, lock: sqlite3.Connection, time: TurnableClock
) -> None:
    model.configure(Model())
    model.settle()
    model.configure(Model(cache_ttl_s=60))
    model.version = model.open()
    lock.close()
    time.pass_(PAUSE_S)
    model.settle()
    assert not any(model.predict(number) for number in range(3))
    model.settle()
    assert all(model.predict(number) for number in range(3))


def test_a_clear_that_failed_is_tried_again_without_being_asked(
    model: CachedModel, state: Path, lock: sqlite3.Connection, time: TurnableClock
) -> None:
    assert clear(model, "m")
    lock.close()
    time.pass_(PAUSE_S)
    retries = model.cache._parts.disk
    assert retries is not None
    retries._retry()  # what the timer calls
    model.wait_until(lambda: not retries._forgetting)
    looks = sqlite3.connect(state / DIRECTORY / DATABASE)
    assert looks.execute("SELECT count(*) FROM answers").fetchone() == (0,)
    looks.close()
