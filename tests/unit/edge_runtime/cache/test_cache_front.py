"""Answers in memory: bounded by bytes, the least recently used leave first."""

from collections import OrderedDict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.cache.counters import Counters
from edge_runtime.cache.entry import Entry, entry
from edge_runtime.cache.front import Front
from edge_runtime.datatypes import BY_NAME
from edge_runtime.tensors import Tensor

UINT8 = BY_NAME["UINT8"]


def sized(elements: int) -> Entry:
    return entry({"x": Tensor(UINT8, np.zeros(elements, np.uint8))}, 0, 0)


EMPTY = sized(0).size_bytes


def front(limit: int = 10**9) -> Front:
    return Front(limit)


def test_the_least_recently_used_of_all_models_leaves_first() -> None:
    kept = front(4 * EMPTY)
    one, two = kept.room("one"), kept.room("two")
    one.limit_bytes = two.limit_bytes = 10**9
    counters = Counters()
    for room, key in [(one, b"a"), (two, b"b"), (one, b"c"), (two, b"d")]:
        kept.put(room, key, sized(0), 0, counters)
    assert kept.get(one, b"a")
    kept.put(two, b"e", sized(0), 0, counters)
    assert kept.get(two, b"b") is None
    assert kept.get(one, b"a")
    kept.put(two, b"f", sized(0), 0, counters)
    assert kept.get(one, b"c") is None
    assert counters.evicted == 2


def test_a_model_that_reaches_its_own_limit_pushes_out_only_its_own() -> None:
    kept = front()
    greedy, modest = kept.room("greedy"), kept.room("modest")
    greedy.limit_bytes, modest.limit_bytes = 2 * EMPTY, 10**9
    counters, others = Counters(), Counters()
    kept.put(modest, b"0", sized(0), 0, others)
    for number in range(10):
        kept.put(greedy, bytes([number]), sized(0), 0, counters)
    assert list(greedy.residents) == [b"\x08", b"\x09"]
    assert kept.get(modest, b"0")
    assert (counters.evicted, others.evicted) == (8, 0)


def test_an_answer_that_would_push_out_most_others_is_not_kept() -> None:
    kept = front(10_000)
    room = kept.room("m")
    room.limit_bytes = 10**9
    kept.put(room, b"small", sized(0), 0, Counters())
    kept.put(room, b"large", sized(5_000), 0, Counters())
    assert list(room.residents) == [b"small"]


def test_a_new_answer_takes_the_place_of_an_old_one() -> None:
    kept = front()
    room = kept.room("m")
    room.limit_bytes = 10**9
    counters = Counters()
    kept.put(room, b"k", sized(1000), 1, counters)
    kept.put(room, b"k", sized(0), 2, counters)
    found = kept.get(room, b"k")
    assert found is not None
    assert found.born_s == 2
    assert (counters.ram_entries, counters.ram_bytes, kept.size_bytes) == (1, EMPTY, EMPTY)


def test_what_a_version_kept_can_be_dropped_without_its_siblings() -> None:
    kept = front()
    room = kept.room("m")
    room.limit_bytes = 10**9
    first, second = Counters(), Counters()
    kept.put(room, b"1", sized(0), 0, first)
    kept.put(room, b"2", sized(0), 0, second)
    kept.drop_owner(room, first)
    assert list(room.residents) == [b"2"]
    assert (first.ram_bytes, second.ram_bytes) == (0, EMPTY)
    kept.clear()
    assert (kept.size_bytes, second.ram_entries) == (0, 0)


moves = st.lists(
    st.tuples(st.sampled_from(["put", "get", "drop"]), st.integers(0, 8), st.integers(0, 900)),
    max_size=60,
)


@given(moves, st.integers(EMPTY, 8 * EMPTY))
def test_it_is_what_a_plain_ordered_dictionary_would_be(
    done: list[tuple[str, int, int]], limit: int
) -> None:
    kept = front(10**9)
    room = kept.room("m")
    room.limit_bytes = limit
    counters = Counters()
    plain: OrderedDict[bytes, int] = OrderedDict()
    for what, number, elements in done:
        key = bytes([number])
        if what == "put":
            size = EMPTY + elements
            kept.put(room, key, sized(elements), 0, counters)
            plain.pop(key, None)
            if size <= limit:
                plain[key] = size
            while sum(plain.values()) > limit:
                plain.popitem(last=False)
        elif what == "get":
            assert (kept.get(room, key) is not None) is (key in plain)
            if key in plain:
                plain.move_to_end(key)
        else:
            kept.drop(room, key)
            plain.pop(key, None)
        assert list(room.residents) == list(plain)
        assert room.size_bytes == kept.size_bytes == counters.ram_bytes == sum(plain.values())
        assert counters.ram_entries == len(plain)


def test_the_room_of_a_model_is_kept_while_anything_is_in_it() -> None:
    kept, counters = front(), Counters()
    room = kept.room("m")
    room.limit_bytes = 10**9
    kept.put(room, b"a", sized(0), 0, counters)
    kept.close_room("m")
    assert kept.room("m") is room
    kept.drop_owner(room, counters)
    kept.close_room("m")
    kept.close_room("never there")
    assert kept.room("m") is not room
