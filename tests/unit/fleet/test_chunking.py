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
    assert sizes[:4] == [50_366, 17_946, 48_732, 104_427]
    digest = sha256(write_chunks(index)).hexdigest()
    assert digest == "c68cf81918c15374919a5681dabe6167bbc73792648a66bad47f6a9a8d277d67"


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
