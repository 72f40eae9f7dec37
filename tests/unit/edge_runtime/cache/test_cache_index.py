"""The table of what is on disk is a set, whatever is put in and taken out."""

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.cache.index import KeyIndex, fingerprint

# Few homes and many neighbours, so that walks are long and gaps must be closed; and the edges.
crowded = st.integers(1, 200) | st.sampled_from([-1, 2**63 - 1, -(2**63)])


@given(st.lists(st.tuples(st.booleans(), crowded), max_size=200))
def test_it_holds_what_was_put_in_and_not_taken_out(done: list[tuple[bool, int]]) -> None:
    index, plain = KeyIndex(64), set[int]()
    for adds, number in done:
        if adds:
            added = index.add(number)
            assert added is (number in plain or len(plain) < 64)
            if added:
                plain.add(number)
        else:
            index.discard(number)
            plain.discard(number)
        assert len(index) == len(plain)
        for each in plain:
            assert each in index
    for number in range(1, 201):
        assert (number in index) is (number in plain)


def test_its_memory_is_fixed_and_small() -> None:
    index = KeyIndex(65_536)
    assert len(index._table) * index._table.itemsize == 2 * 65_536 * 8
    index.add_all(range(1, 100_000))
    assert len(index) == 65_536
    index.clear()
    assert len(index) == 0
    assert 5 not in index


@given(st.binary(min_size=32, max_size=32))
def test_a_fingerprint_fits_an_integer_of_sqlite(key: bytes) -> None:
    number = fingerprint(key)
    assert -(2**63) <= number < 2**63
    index = KeyIndex(1)
    assert index.add(number)
    assert number in index
    index.discard(number)
    assert number not in index
