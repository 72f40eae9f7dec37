"""Cuts a file where its content says so, with FastCDC: the only import of ``fastcdc``.

The same bytes give the same chunks on every machine: nothing random is in it. Devices never cut;
they read the signed index.
"""

import mmap
from hashlib import sha256
from pathlib import Path
from typing import Final

from fastcdc import fastcdc

from fleet.documents.chunks import CHUNKS_MAX, Chunk, ChunkIndex

AVERAGE_BYTES: Final = 16_384
"""Average size of a chunk: its row in the index is about 1/340 of that. ``docs/downloads.md`` has
what other sizes cost. Another one would share no chunk with what was released before."""
LEAST_FILE_BYTES: Final = 1_048_576
"""Smaller files have no index: to fetch them whole costs little more than to ask for parts."""
_MIN_SHARE: Final = 4
_MAX_TIMES: Final = 4


def chunk_index(path: Path, file_sha256: str) -> ChunkIndex:
    """Cut a file.

    Args:
        path: The file, not empty.
        file_sha256: Of all its bytes, in hexadecimal.

    Raises:
        OSError: It cannot be read.
    """
    size = path.stat().st_size
    average = AVERAGE_BYTES
    while size > average * (CHUNKS_MAX // 2):
        average *= 2
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        chunks = _cut(mapped, average)
        while len(chunks) > CHUNKS_MAX:  # content that is cut much oftener than the average
            average *= 2
            chunks = _cut(mapped, average)
    return ChunkIndex(file_sha256=file_sha256, file_size=size, chunks=chunks)


def _cut(mapped: mmap.mmap, average: int) -> tuple[Chunk, ...]:
    cuts = fastcdc(
        mapped,
        min_size=average // _MIN_SHARE,
        avg_size=average,
        max_size=average * _MAX_TIMES,
        hf=sha256,
    )
    return tuple(Chunk(offset=cut.offset, size=cut.length, sha256=cut.hash) for cut in cuts)
