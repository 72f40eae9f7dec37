"""The file, its tables made by the migrations: what is written, read, and let go."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.cache import store as module
from edge_runtime.cache.entry import CorruptEntryError, entry
from edge_runtime.cache.eviction import Held
from edge_runtime.cache.index import fingerprint
from edge_runtime.cache.life import Policy
from edge_runtime.cache.schema import SCHEMA_VERSION
from edge_runtime.cache.store import (
    ROW_BYTES,
    ForeignSchemaError,
    LogTooLongError,
    OlderSchemaError,
    Row,
    Store,
)
from edge_runtime.datatypes import BYTES
from edge_runtime.settings import Cache
from edge_runtime.tensors import Array, Tensor
from tests.caching import NOW_S as NOW
from tests.caching import POLICY, answer, key, make_database, row, subject


def is_kept(store: Store, number: int) -> bool:
    found = store.read(key(number))
    if found is None:
        return False
    assert found.run_ns == number
    assert set(found.tensors["x"].array.tolist()) == {number % 251}
    return True


Open = Callable[..., Store]


@pytest.fixture
def path(folder: Path) -> Path:
    """An empty migrated file."""
    return make_database(folder)


@pytest.fixture
def opened(path: Path) -> Iterator[Open]:
    """Opens the file; closes it in the end."""
    stores: list[Store] = []

    def open_(**settings: int) -> Store:
        stores.append(Store.open(path, Cache(**settings)))
        stores[-1].describe(subject(), POLICY)
        return stores[-1]

    yield open_
    for store in stores:
        store.close()


def test_what_is_written_is_there_after_a_restart(opened: Open, path: Path) -> None:
    store = opened()
    written = store.write([row(number) for number in range(100)], NOW)
    assert written.added == [fingerprint(key(number)) for number in range(100)]
    assert not written.gone
    store.close()
    again = Store.open(path, Cache())
    assert all(is_kept(again, number) for number in range(100))
    assert not is_kept(again, 100)
    assert sorted(again.fingerprints()) == sorted(written.added)
    assert again.held() == store.held()
    assert again.held()[subject().identity].entries == 100
    again.close()


def test_another_question_of_the_same_fingerprint_is_not_answered(opened: Open) -> None:
    store = opened()
    store.write([row(1)], NOW)
    other = key(1)[:8] + bytes(24)
    assert fingerprint(other) == fingerprint(key(1))
    assert store.read(other) is None
    store.write([Row(subject(), other, answer(2))], NOW)
    assert store.read(key(1)) is None
    assert store.held()[subject().identity].entries == 1


def test_a_newer_answer_takes_the_place_of_an_old_one(opened: Open) -> None:
    store = opened()
    store.write([row(1, size=5000)], NOW)
    written = store.write([row(1, created_s=NOW + 30)], NOW + 30)
    found = store.read(key(1))
    assert found is not None
    assert found.created_s == NOW + 30
    held = store.held()[subject().identity]
    assert held.entries == 1
    assert held.size_bytes < 5000
    assert not written.gone


def test_an_answer_that_died_and_came_back_in_one_batch_is_there(opened: Open) -> None:
    store = opened()
    store.write([row(1)], NOW)
    written = store.write([row(1, created_s=NOW + 200)], NOW + 200)
    assert written.added == [fingerprint(key(1))]
    assert not written.gone
    assert is_kept(store, 1)


def test_what_is_of_no_use_any_more_leaves_with_the_next_batch(opened: Open) -> None:
    store = opened()
    store.write([row(1), row(2, created_s=NOW + 50)], NOW + 50)
    written = store.write([row(3, created_s=NOW + 100)], NOW + 100)
    assert written.gone == {fingerprint(key(1))}
    assert written.evicted == {subject().identity: 1}
    assert [is_kept(store, number) for number in (1, 2, 3)] == [False, True, True]


def test_what_claims_to_be_from_the_future_leaves_too(opened: Open) -> None:
    store = opened()
    store.write([row(1)], NOW)
    store.write([row(2, created_s=NOW - 3600)], NOW - 3600)
    assert [is_kept(store, number) for number in (1, 2)] == [False, True]


def test_the_oldest_answers_of_a_model_leave_when_it_has_too_many(opened: Open) -> None:
    store = opened()
    small = Policy(60, max_bytes=10 * (ROW_BYTES + 100))
    one, two = subject("m", "1"), subject("m", "2")
    other = subject("other")
    store.describe(other, POLICY)
    store.write([row(1000 + number, other) for number in range(20)], NOW)
    store.describe(one, small)
    store.describe(two, small)
    for number in range(40):
        store.write([row(number, one if number % 2 else two)], NOW)
    held = store.held()
    assert held[one.identity].size_bytes + held[two.identity].size_bytes <= small.max_bytes
    assert held[other.identity].entries == 20
    kept = [number for number in range(40) if is_kept(store, number)]
    assert kept == list(range(kept[0], 40))
    assert len(kept) >= 5


@pytest.mark.parametrize("size", [1, 3000, 20_000, 200_000])
def test_the_file_stays_within_its_bytes_and_the_oldest_leave(
    opened: Open, path: Path, size: int
) -> None:
    limit = 8 * 2**20
    store = opened(disk_bytes=limit)
    per_batch = max(1, min(256, 2**20 // size))
    count = 0
    while count * (size + 100) < 2 * limit and count < 30_000:
        store.write([row(count + each, size=size) for each in range(per_batch)], NOW)
        count += per_batch
        files = sum(each.stat().st_size for each in path.parent.glob("cache.db*"))
        assert files <= limit, "with its log"
    kept = [number for number in range(count) if is_kept(store, number)]
    assert kept == list(range(kept[0], count))
    if kept[0]:
        assert len(kept) * (size + ROW_BYTES) > limit / 4, "it does not throw away what has room"


def test_there_are_no_more_answers_than_may_be(opened: Open) -> None:
    store = opened(disk_answers=10)
    for start in range(0, 40, 20):
        store.write([row(start + each) for each in range(20)], NOW)
    written = store.write([row(40 + each) for each in range(20)], NOW)
    assert store.held()[subject().identity].entries == 10
    assert sorted(store.fingerprints()) == sorted(set(written.added) - written.gone)
    assert [number for number in range(60) if is_kept(store, number)] == list(range(50, 60))


def test_rows_that_somebody_else_removed_are_missed_and_not_looked_for_without_end(
    opened: Open, path: Path
) -> None:
    store = opened()
    store.write([row(number) for number in range(10)], NOW)
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("DELETE FROM answers")
    other.close()
    store.describe(subject(), Policy(60, max_bytes=1))
    with pytest.raises(sqlite3.DatabaseError, match="fewer answers"):
        store.write([row(10)], NOW)


def test_an_answer_that_cannot_be_written_down_holds_up_no_other(opened: Open) -> None:
    store = opened()
    strings: Array = np.array(["\ud800"], object)
    bad = Row(subject(), key(1), entry({"x": Tensor(BYTES, strings)}, NOW, 0))
    written = store.write([bad, row(2)], NOW)
    assert written.refused == [subject().identity]
    assert is_kept(store, 2)


def test_a_batch_of_a_forgotten_version_is_left_out(opened: Open) -> None:
    store = opened()
    assert store.write([row(1, subject("unknown"))], NOW).added == []
    assert store.held() == {}


def test_a_version_is_forgotten_bit_by_bit(opened: Open) -> None:
    store = opened()
    other = subject(version="2")
    store.describe(other, POLICY)
    store.write([row(number) for number in range(600)], NOW)
    store.write([row(1000, other)], NOW)
    gone: set[int] = set()
    more = True
    steps = 0
    while more:
        some, more = store.forget(subject().identity)
        gone |= some
        steps += 1
    assert steps == 3
    assert gone == {fingerprint(key(number)) for number in range(600)}
    assert store.held() == {other.identity: store.held()[other.identity]}
    assert [each.identity for each in store.subjects()] == [other.identity]
    assert store.forget(subject().identity) == (set(), False)


def test_pages_that_nothing_needs_go_back_to_the_file_system(opened: Open, path: Path) -> None:
    store = opened()
    for start in range(0, 4096, 256):
        store.write([row(start + each, size=2000) for each in range(256)], NOW)
    store.describe(subject(version="2"), POLICY)
    before = path.stat().st_size
    assert before > 8 * 2**20
    while store.forget(subject().identity)[1]:
        pass
    for number in range(60):
        store.write([row(10_000 + number, subject(version="2"))], NOW)
    store.close()
    assert path.stat().st_size < before / 2


def test_a_new_digest_retires_the_old_one_and_may_be_taken_back(opened: Open) -> None:
    store = opened()
    second = subject(digest="second")
    store.write([row(1)], NOW)
    store.describe(second, POLICY)
    assert store.retired() == [subject().identity]
    assert [each.identity for each in store.subjects()] == [second.identity]
    store.describe(subject(), POLICY)
    assert store.retired() == [second.identity]
    assert is_kept(store, 1)


def test_describing_what_is_known_writes_nothing(opened: Open) -> None:
    store = opened()
    store.take_written_bytes()
    store.describe(subject(), POLICY)
    assert store.take_written_bytes() == 0
    store.describe(subject(), Policy(61))
    assert store.take_written_bytes() > 0


def test_what_is_written_is_measured(opened: Open) -> None:
    store = opened()
    store.take_written_bytes()
    total = 0
    for number in range(100):
        store.write([row(number, size=50_000)], NOW)
        total += store.take_written_bytes()
    assert 2 * 100 * 50_000 < total < 4 * 100 * 50_000


def test_a_reader_that_stays_stops_the_writing_before_the_log_fills_the_disk(
    opened: Open, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAL_BYTES_MAX", 2 * 2**20)
    store = opened()
    store.write([row(0)], NOW)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM answers").fetchone()
    store._connection.execute("PRAGMA busy_timeout = 1")

    def write_much() -> None:
        for number in range(100):
            store.write([row(number, size=100_000)], NOW)

    with pytest.raises(LogTooLongError):
        write_much()
    assert is_kept(store, 0)
    reader.close()
    store._tidy()
    store.write([row(200)], NOW)
    assert is_kept(store, 200)


# -- what is not believed ----------------------------------------------------------------------

TAMPER = (
    "UPDATE answers SET created_ms = 1 WHERE run_ns = 1",
    "UPDATE answers SET run_ns = 1 << 62 WHERE run_ns = 1",
    "UPDATE answers SET checksum = zeroblob(16) WHERE run_ns = 1",
    "UPDATE answers SET payload = x'' WHERE run_ns = 1",
)


@pytest.mark.parametrize("statement", TAMPER)
def test_a_row_that_was_tampered_with_is_refused(opened: Open, path: Path, statement: str) -> None:
    store = opened()
    store.write([row(1), row(2)], NOW)
    other = sqlite3.connect(path)
    other.execute(statement)
    other.commit()
    other.close()
    with pytest.raises(CorruptEntryError):
        store.read(key(1))
    store.discard(key(1))
    assert store.read(key(1)) is None
    assert is_kept(store, 2)
    assert store.held()[subject().identity].entries == 1


def test_rows_that_changed_places_are_refused(opened: Open, path: Path) -> None:
    store = opened()
    store.write([row(1), row(2)], NOW)
    other = sqlite3.connect(path)
    other.execute(
        "UPDATE answers SET payload = (SELECT payload FROM answers WHERE run_ns = 2),"
        " checksum = (SELECT checksum FROM answers WHERE run_ns = 2) WHERE run_ns = 1"
    )
    other.commit()
    other.close()
    with pytest.raises(CorruptEntryError):
        store.read(key(1))


@pytest.mark.parametrize("value", ["text", 5, 2.5])
def test_a_row_with_values_of_other_types_is_refused(
    opened: Open, path: Path, value: object
) -> None:
    store = opened()
    store.write([row(1)], NOW)
    other = sqlite3.connect(path)
    other.execute("UPDATE answers SET payload = ?, created_ms = ?", (value, "not a time"))
    other.commit()
    other.close()
    with pytest.raises(CorruptEntryError):
        store.read(key(1))


def test_a_description_that_makes_no_sense_is_left_out(opened: Open, path: Path) -> None:
    store = opened()
    store.describe(subject("other"), POLICY)
    other = sqlite3.connect(path)
    other.execute("UPDATE versions SET described = x'ff' WHERE model = 'm'")
    other.commit()
    other.close()
    assert [each.model for each in store.subjects()] == ["other"]


def test_an_empty_file_is_older_and_a_file_of_the_future_is_foreign(path: Path) -> None:
    path.write_bytes(b"")
    with pytest.raises(OlderSchemaError):
        Store.open(path, Cache())
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(ForeignSchemaError):
        Store.open(path, Cache())


def test_a_failed_transaction_leaves_the_counts_as_they_were(opened: Open) -> None:
    store = opened()
    store.write([row(1)], NOW)
    before = store.held()
    # A limit that lets SQLite fail in the middle, as a full disk would.
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError) as caught:
        store.write([row(number, size=10_000) for number in range(2, 50)], NOW)
    assert caught.value.sqlite_errorcode == sqlite3.SQLITE_FULL
    assert store.held() == before
    assert is_kept(store, 1)
    store._connection.execute("PRAGMA max_page_count = 100000")
    store.write([row(2)], NOW)
    assert store.held()[subject().identity] == Held(2, 2 * before[subject().identity].size_bytes)
