"""The plan of a download: every byte once, in order, from the disk where the disk has it."""

from hypothesis import given
from hypothesis import strategies as st

from agent.download.reuse import Copy, Fetch, plan_of
from fleet.documents.chunks import ChunkIndex
from tests.agent_downloads import chunked

# Few letters, so that files share chunks.
FILES = st.lists(st.sampled_from([b"aaaa", b"bbbb", b"cccc", b"dddd"]), max_size=12).map(b"".join)


def _index(data: bytes) -> ChunkIndex:
    return chunked(data, 4)


@given(
    new=FILES,
    olds=st.lists(FILES, max_size=3),
    share=st.floats(0, 1),
    gap=st.sampled_from([0, 4, 8, 100]),
)
def test_every_missing_byte_is_planned_once_and_copies_are_right(
    new: bytes, olds: list[bytes], share: float, gap: int
) -> None:
    begin = int(share * len(new))
    indexes = [_index(old) for old in olds]
    content = {index.file_sha256: old for index, old in zip(indexes, olds, strict=True)}
    plan = plan_of(_index(new), indexes, begin=begin, gap_bytes=gap)
    at = begin
    fetched = copied = 0
    for piece in plan.pieces:
        if isinstance(piece, Fetch):
            assert piece.begin == at
            fetched += piece.size
        else:
            assert piece.chunk.offset <= at
            source = content[piece.file_sha256] if piece.file_sha256 else new[: piece.chunk.offset]
            chunk = source[piece.offset : piece.offset + piece.chunk.size]
            assert chunk == new[piece.chunk.offset : piece.end]
            copied += piece.end - at
        at = piece.end
    assert at == len(new)
    assert (plan.fetch_bytes, plan.copy_bytes) == (fetched, copied)


@given(new=FILES, old=FILES)
def test_without_gaps_only_what_no_file_has_is_fetched(new: bytes, old: bytes) -> None:
    plan = plan_of(_index(new), [_index(old)], gap_bytes=0)
    chunks = {new[at : at + 4] for at in range(0, len(new), 4)}
    known = {old[at : at + 4] for at in range(0, len(old), 4)}
    assert plan.fetch_bytes == 4 * len(chunks - known)


def test_two_missing_chunks_side_by_side_are_one_request() -> None:
    plan = plan_of(_index(b"aaaabbbbccccdddd"), [_index(b"aaaadddd")])
    assert [piece for piece in plan.pieces if isinstance(piece, Fetch)] == [Fetch(4, 12)]


def test_a_small_copy_between_two_missing_chunks_is_fetched_with_them() -> None:
    new, old = _index(b"aaaabbbbcccc"), _index(b"bbbb")
    assert plan_of(new, [old], gap_bytes=4).pieces == (Fetch(0, 12),)
    assert len(plan_of(new, [old], gap_bytes=3).pieces) == 3


def test_a_small_copy_at_the_end_is_copied() -> None:
    plan = plan_of(_index(b"aaaabbbb"), [_index(b"bbbb")], gap_bytes=100)
    assert [type(piece) for piece in plan.pieces] == [Fetch, Copy]


def test_a_damaged_place_is_not_copied_from() -> None:
    new, old = _index(b"aaaa"), _index(b"aaaa")
    damaged = {(old.file_sha256, 0)}
    assert plan_of(new, [old], damaged=damaged).pieces == (Fetch(0, 4),)


def test_another_old_file_takes_the_place_of_a_damaged_one() -> None:
    new, old, older = _index(b"bbbbaaaa"), _index(b"aaaacccc"), _index(b"ddddaaaa")
    plan = plan_of(new, [old, older], damaged={(old.file_sha256, 0)})
    (copy,) = [piece for piece in plan.pieces if isinstance(piece, Copy)]
    assert (copy.file_sha256, copy.offset) == (older.file_sha256, 4)
