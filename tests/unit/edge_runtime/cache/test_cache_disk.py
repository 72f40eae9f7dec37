"""A slow, hanging or overwhelmed disk holds up no request."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.cache import version_cache
from edge_runtime.cache.disk import READS_MAX, Disk
from edge_runtime.cache.entry import Entry
from edge_runtime.settings import Cache
from tests.caching import SETTLE_S, CachedModel, TurnableClock, is_answer, key, make_database
from tests.fakes import Gate

MANY = 2 * READS_MAX


@pytest.fixture
def gate() -> Gate:
    """Holds the disk's reads."""
    return Gate()


@pytest.fixture
def model(folder: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Iterator[CachedModel]:
    """A model whose answers are all on a disk that hangs."""
    make_database(folder)
    time, settings = TurnableClock(), Cache(ram_bytes=0)
    with CachedModel(folder, time, settings=settings) as before:
        for number in range(MANY):
            before.predict(number)
    after = CachedModel(folder, time, settings=settings)
    worker = disk_of(after).worker
    read = worker.read

    def hangs(key: bytes) -> Entry | None:
        gate()
        return read(key)

    monkeypatch.setattr(worker, "read", hangs)
    yield after
    gate.open()
    assert after.close()


def disk_of(model: CachedModel) -> Disk:
    disk = model.cache._parts.disk
    assert disk is not None
    return disk


def test_a_read_that_takes_too_long_is_a_miss(
    model: CachedModel, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_READ_S_MIN", "_READ_S_MAX", "_READ_S_UNKNOWN"):
        monkeypatch.setattr(version_cache, name, 0.001)
    asked = model.begin(1)
    assert gate.arrived()
    model.wait_until(lambda: bool(asked.tickets))
    assert model.begin(2).ticket, "while it hangs nobody asks it"
    gate.open()
    for name in ("_READ_S_MIN", "_READ_S_MAX", "_READ_S_UNKNOWN"):
        monkeypatch.setattr(version_cache, name, SETTLE_S)
    model.wait_until(lambda: not disk_of(model)._is_stalled)
    assert is_answer(model.ask(3).hit.outputs, 3), "it answers again, and is asked again"


def test_equal_questions_share_one_read(model: CachedModel, gate: Gate) -> None:
    asked = [model.begin(1) for _ in range(5)]
    assert gate.arrived()
    gate.open()
    model.wait_until(lambda: all(each.hits for each in asked))
    assert model.version.counters.disk_hits == 1
    assert model.version.counters.joined == 4


def test_reads_that_wait_are_bounded_and_the_rest_are_misses(
    model: CachedModel, gate: Gate
) -> None:
    asked = [model.begin(number) for number in range(READS_MAX + 10)]
    model.wait_until(lambda: all(each.tickets for each in asked[READS_MAX:]))
    assert not any(each.tickets or each.hits for each in asked[:READS_MAX])
    gate.open()
    model.wait_until(lambda: all(each.hits for each in asked[:READS_MAX]))


def test_reads_go_before_writes(model: CachedModel, gate: Gate) -> None:
    order: list[str] = []
    disk = disk_of(model)
    disk.read(key(1), SETTLE_S, lambda _: order.append("first read"))
    assert gate.arrived()
    disk.after(lambda: order.append("what was asked for before"))
    disk.read(key(2), SETTLE_S, lambda _: order.append("second read"))
    gate.open()
    model.wait_until(lambda: len(order) == 3)
    assert order == ["first read", "second read", "what was asked for before"]


def test_a_stop_does_not_wait_for_ever_and_leaves_no_request_behind(
    model: CachedModel, gate: Gate
) -> None:
    asked = model.begin(1)
    assert gate.arrived()
    assert model.loop.run_until_complete(model.cache.close(0.01)) is False
    model.wait_until(lambda: bool(asked.tickets))
    asked.ticket.failed()
    assert model.begin(2).ticket, "a request that comes late is a miss"
