"""The chunk index: what is written is read back, and it adds up or is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.documents.chunks import (
    CHUNKS_MAX,
    INDEX_BYTES_MAX,
    Chunk,
    ChunkIndex,
    read_chunks,
    write_chunks,
)
from fleet.documents.errors import DocumentError

SHA = "ab" * 32


def _index() -> ChunkIndex:
    pieces = (Chunk(offset=0, size=5, sha256=SHA), Chunk(offset=5, size=6, sha256=SHA))
    return ChunkIndex(file_sha256=SHA, file_size=11, chunks=pieces)


@given(st.lists(st.tuples(st.integers(1, 10**6), st.binary(min_size=32, max_size=32)), max_size=9))
def test_a_chunk_index_is_read_back_as_it_was_written(rows: list[tuple[int, bytes]]) -> None:
    pieces, offset = [], 0
    for size, digest in rows:
        pieces.append(Chunk(offset=offset, size=size, sha256=digest.hex()))
        offset += size
    index = ChunkIndex(file_sha256=SHA, file_size=offset, chunks=tuple(pieces))
    assert read_chunks(write_chunks(index), "index") == index


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"file_size": 12}, "the chunks have 11 bytes, the file 12"),
        ({"sizes": [11]}, "1 sizes, but 64 bytes of digests"),
        ({"digests": "*"}, "digests are not base64"),
        ({"digests": "é"}, "digests are not base64"),
        ({"sizes": [0, 11]}, "sizes"),
        ({"file_sha256": "AB" * 32}, "file_sha256"),
        ({"sizes": [1] * (CHUNKS_MAX + 1)}, "sizes"),
    ],
)
def test_an_index_that_does_not_add_up_is_refused(changed: dict[str, Any], words: str) -> None:
    text = json.loads(write_chunks(_index())) | changed
    with pytest.raises(DocumentError, match=words):
        read_chunks(json.dumps(text).encode(), "index")


def test_an_index_with_gaps_is_not_written() -> None:
    pieces = (Chunk(offset=0, size=5, sha256=SHA), Chunk(offset=6, size=6, sha256=SHA))
    with pytest.raises(DocumentError, match="leave gaps"):
        write_chunks(ChunkIndex(file_sha256=SHA, file_size=11, chunks=pieces))
    with pytest.raises(DocumentError, match="not hexadecimal"):
        write_chunks(
            ChunkIndex(file_sha256=SHA, file_size=5, chunks=(Chunk(offset=0, size=5, sha256="x"),))
        )


def test_the_largest_index_is_within_its_bytes() -> None:
    size = 65_536
    pieces = tuple(Chunk(offset=n * size, size=size, sha256=SHA) for n in range(CHUNKS_MAX))
    data = write_chunks(ChunkIndex(file_sha256=SHA, file_size=CHUNKS_MAX * size, chunks=pieces))
    assert len(data) < INDEX_BYTES_MAX
    assert len(data) / CHUNKS_MAX < 52
