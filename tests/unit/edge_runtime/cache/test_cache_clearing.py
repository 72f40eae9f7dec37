"""Clearing, changed settings, and limits."""

from pathlib import Path

import pytest

from edge_runtime.settings import Cache, Model
from tests.caching import (
    RAM_ONLY,
    RUN_NS,
    CachedModel,
    TurnableClock,
    entries_on_disk,
    outputs,
)

# -- clearing and settings ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "m"])
def test_clearing_takes_effect_in_memory_on_disk_and_for_reads_under_way(
    state: Path, name: str
) -> None:
    time = TurnableClock()
    with CachedModel(state, time) as before:
        for number in range(900):
            before.predict(number)
    with CachedModel(state, time) as model:
        assert model.predict(0)
        under_way = model.begin(1)
        model.wait_for(lambda done: model.cache.clear(name, lambda _: done()))
        under_way.ticket.failed()
        model.wait_until(lambda: entries_on_disk(model) == 0)
        assert not any(model.predict(number) for number in range(900))
        model.settle()
        assert model.predict(2)
    with CachedModel(state, time) as after:
        assert after.predict(2)
        assert not after.predict(1000)


def test_clearing_one_model_leaves_the_others(folder: Path) -> None:
    with CachedModel(folder, settings=RAM_ONLY) as model:
        model.cache.configure({"m": Model(cache_ttl_s=60), "n": Model(cache_ttl_s=60)})
        model.predict(1)
        other = model.cache.open("n", "1", "d", (), model.version.subject.signature)
        assert other is not None
        model.version = other
        model.predict(1)
        model.cache.clear("m")
        assert model.predict(1)


def test_two_models_of_the_same_content_are_kept_apart(state: Path) -> None:
    both = {"m": Model(cache_ttl_s=60), "n": Model(cache_ttl_s=60)}
    with CachedModel(state) as model:
        model.cache.configure(both)
        waits = model.begin(1)
        same = model.version.subject
        other = model.cache.open("n", "1", same.digest, ("CPUExecutionProvider",), same.signature)
        assert other is not None
        model.version = other
        assert not model.predict(1)
        waits.ticket.done(outputs(1), RUN_NS)
        model.settle()
        assert entries_on_disk(model) == 2


def test_a_model_that_opts_out_is_forgotten(state: Path) -> None:
    with CachedModel(state) as model:
        model.predict(1)
        model.settle()
        model.configure(Model())
        assert model.ask(1).tickets == [None]
        assert model.cache.open("m", "1", "first", (), model.version.subject.signature) is None
        model.wait_until(lambda: entries_on_disk(model) == 0)


def test_new_settings_hold_at_once_for_what_is_kept_already(folder: Path) -> None:
    with CachedModel(folder, settings=RAM_ONLY) as model:
        for number in range(10):
            model.predict(number)
        model.time.pass_(10)
        size = model.cache.memory_bytes
        model.configure(Model(cache_ttl_s=60, cache_max_bytes=size // 2))
        assert model.cache.memory_bytes <= size // 2
        assert model.predict(9)
        model.configure(Model(cache_ttl_s=5))
        assert not model.predict(9)


def test_an_answer_larger_than_the_models_share_is_kept_nowhere(state: Path) -> None:
    with CachedModel(state, model=Model(cache_ttl_s=60, cache_max_bytes=500)) as model:
        model.predict(1)
        model.settle()
        assert (entries_on_disk(model), model.cache.memory_bytes) == (0, 0)
        assert model.version.counters.dropped == 1


def test_more_than_the_queue_takes_is_not_written_and_counted(state: Path) -> None:
    with CachedModel(state, settings=Cache(queue_bytes=10_000)) as model:
        for number in range(50):
            model.predict(number)
        dropped = model.version.counters.dropped
        assert dropped
        model.settle()
        assert entries_on_disk(model) == 50 - dropped


def test_nothing_is_written_when_the_hours_bytes_are_spent(state: Path) -> None:
    with CachedModel(state, settings=Cache(written_bytes_per_hour=1)) as model:
        for number in range(3):
            model.predict(number)
            model.settle()
        assert entries_on_disk(model) == 1
        assert model.version.counters.dropped == 2
        file = model.cache.status().file
        assert file is not None
        assert "in this hour" in file.problem
        assert file.written_bytes_this_hour > 1
        assert all(model.predict(number) for number in range(3)), "memory goes on"
        model.time.pass_(3600)
        model.predict(3)
        model.settle()
        assert entries_on_disk(model) == 1, "the first ones' time was over"
