"""Chunks: the same everywhere, and the same again where the content is."""

import random
from hashlib import sha256
from pathlib import Path

import pytest

from fleet.documents.chunks import CHUNKS_MAX, ChunkIndex, read_chunks, write_chunks
from fleet.repository import chunking
from fleet.repository.chunking import AVERAGE_BYTES, chunk_index

SIZE = 6_000_000
DATA = random.Random(7).randbytes(SIZE)  # noqa: S311 - the same bytes every time


def _index(folder: Path, data: bytes) -> ChunkIndex:
    path = folder / "file"
    path.write_bytes(data)
    return chunk_index(path, sha256(data).hexdigest())


def _new_bytes(old: ChunkIndex, new: ChunkIndex) -> int:
    known = {chunk.sha256 for chunk in old.chunks}
    return sum(chunk.size for chunk in new.chunks if chunk.sha256 not in known)


def test_chunks_are_the_file_piece_by_piece(tmp_path: Path) -> None:
    index = _index(tmp_path, DATA)
    assert b"".join(DATA[c.offset : c.offset + c.size] for c in index.chunks) == DATA
    for chunk in index.chunks:
        data = DATA[chunk.offset : chunk.offset + chunk.size]
        assert sha256(data).hexdigest() == chunk.sha256
    assert read_chunks(write_chunks(index), "index") == index


def test_boundaries_never_change_from_one_release_of_this_program_to_the_next(
    tmp_path: Path,
) -> None:
    index = _index(tmp_path, DATA)
    sizes = [chunk.size for chunk in index.chunks]
    assert sizes[:4] == [17_018, 17_659, 14_953, 18_682]
    digest = sha256(write_chunks(index)).hexdigest()
    assert digest == "337a844ca24ebe5a8e46514ecdd8fe3b645f4f105470a3b2213a02157297c531"


def test_chunks_have_about_the_average_size(tmp_path: Path) -> None:
    index = _index(tmp_path, DATA)
    assert SIZE / AVERAGE_BYTES / 1.5 < len(index.chunks) < SIZE / AVERAGE_BYTES * 1.5
    sizes = [chunk.size for chunk in index.chunks[:-1]]
    assert min(sizes) >= AVERAGE_BYTES // 4
    assert max(sizes) <= AVERAGE_BYTES * 4


def test_bytes_put_in_at_the_front_cost_a_chunk_or_two(tmp_path: Path) -> None:
    old, new = _index(tmp_path, DATA), _index(tmp_path, b"one more header" + DATA)
    assert _new_bytes(old, new) < 4 * AVERAGE_BYTES


def test_a_file_that_changes_by_a_twentieth_costs_little_more_than_that(tmp_path: Path) -> None:
    changed = bytearray(DATA)
    changed[3_000_000:3_300_000] = random.Random(8).randbytes(300_000)  # noqa: S311
    new = _new_bytes(_index(tmp_path, DATA), _index(tmp_path, bytes(changed)))
    assert 300_000 <= new < 300_000 + 5 * AVERAGE_BYTES


def test_rows_that_change_all_over_a_file_cost_a_third_of_it_and_its_index_a_third_of_a_percent(
    tmp_path: Path,
) -> None:
    changed, row = bytearray(DATA), 4096
    for place in range(0, SIZE - row, 20 * row):  # one row in twenty
        changed[place : place + row] = random.Random(place).randbytes(row)  # noqa: S311
    old, new = _index(tmp_path, DATA), _index(tmp_path, bytes(changed))
    assert _new_bytes(old, new) < 0.36 * SIZE
    assert len(write_chunks(new)) < 0.0033 * SIZE


@pytest.mark.parametrize("data", [b"x", b"ab" * 100, bytes(64), DATA[:10_000]])
def test_small_files_are_one_chunk(tmp_path: Path, data: bytes) -> None:
    index = _index(tmp_path, data)
    assert [chunk.size for chunk in index.chunks] == [len(data)]


def test_zeros_are_cut_into_equal_pieces(tmp_path: Path) -> None:
    index = _index(tmp_path, bytes(3_000_000))
    assert len({chunk.sha256 for chunk in index.chunks[:-1]}) == 1


def test_a_file_with_too_many_chunks_gets_larger_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunking, "CHUNKS_MAX", 20)
    index = _index(tmp_path, DATA)
    assert 1 < len(index.chunks) <= 20
    assert max(chunk.size for chunk in index.chunks) > AVERAGE_BYTES * 4
    assert CHUNKS_MAX > 20
