"""Which bytes of a new file come from old ones on this disk, and which over the network; pure.

The plan goes forwards through the file, because what is there of a file is always its beginning.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from fleet.documents.chunks import Chunk, ChunkIndex

GAP_BYTES: Final = 4096
"""What could be copied between two missing pieces is fetched with them up to this size: a request
of its own costs about a kibibyte of headers, and a round trip."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A chunk that an old file has too.

    Attributes:
        chunk: The chunk of the new file.
        file_sha256: The old file; empty: the new file itself, where a chunk comes twice in it.
        offset: Where it begins there.
    """

    chunk: Chunk
    file_sha256: str
    offset: int

    @property
    def end(self) -> int:
        """Where the new file is whole up to afterwards."""
        return self.chunk.offset + self.chunk.size


@dataclass(frozen=True, slots=True)
class Fetch:
    """Bytes that only the network has.

    Attributes:
        begin: The first one's place in the new file.
        end: The place after the last.
    """

    begin: int
    end: int

    @property
    def size(self) -> int:
        """How many they are."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class ReusePlan:
    """What makes up the rest of a file, in order and without gaps.

    Attributes:
        pieces: The pieces.
        fetch_bytes: Bytes that come over the network.
        copy_bytes: Bytes that come from old files.
    """

    pieces: tuple[Copy | Fetch, ...]
    fetch_bytes: int
    copy_bytes: int


def plan_of(
    new: ChunkIndex,
    olds: Sequence[ChunkIndex],
    *,
    begin: int = 0,
    damaged: Collection[tuple[str, int]] = (),
    gap_bytes: int = GAP_BYTES,
) -> ReusePlan:
    """Decide where the rest of a file comes from.

    Args:
        new: The file's chunks.
        olds: Chunks of files that are on this disk, the likeliest first.
        begin: So many bytes of the new file are there already.
        damaged: Files, named as in ``Copy``, and places in them where the chunk is another one.
        gap_bytes: Largest run of copies that is fetched with what is around it.
    """
    known = _known(olds, damaged)
    pieces: list[Copy | Fetch] = []
    for chunk in new.chunks:
        end = chunk.offset + chunk.size
        found = known.get((chunk.sha256, chunk.size))
        if found is None and ("", chunk.offset) not in damaged:
            known[chunk.sha256, chunk.size] = ("", chunk.offset)
        if end <= begin:
            continue
        if found is not None:
            pieces.append(Copy(chunk, *found))
        else:
            pieces.append(Fetch(max(begin, chunk.offset), end))
    merged = tuple(_merged(pieces, begin, gap_bytes))
    fetch_bytes = sum(piece.size for piece in merged if isinstance(piece, Fetch))
    return ReusePlan(merged, fetch_bytes, new.file_size - begin - fetch_bytes)


def _known(
    olds: Iterable[ChunkIndex], damaged: Collection[tuple[str, int]]
) -> dict[tuple[str, int], tuple[str, int]]:
    """Find where each chunk of the old files lies, in the first file that has it."""
    known: dict[tuple[str, int], tuple[str, int]] = {}
    for old in olds:
        for chunk in old.chunks:
            if (old.file_sha256, chunk.offset) not in damaged:
                known.setdefault((chunk.sha256, chunk.size), (old.file_sha256, chunk.offset))
    return known


def _merged(pieces: Sequence[Copy | Fetch], begin: int, gap_bytes: int) -> Iterable[Copy | Fetch]:
    """Join neighbours that are fetched, and fetch small copies between them too."""
    pending: Fetch | None = None
    gap: list[Copy] = []
    for piece in pieces:
        if isinstance(piece, Copy):
            gap.append(piece)
            if pending is None or piece.end - pending.end > gap_bytes:
                if pending is not None:
                    yield pending
                    pending = None
                yield from gap
                gap = []
        elif pending is not None:
            pending, gap = Fetch(pending.begin, piece.end), []
        else:
            pending = Fetch(max(begin, piece.begin), piece.end)
    if pending is not None:
        yield pending
    yield from gap
