"""A ``.part`` file: whatever lies there, only right bytes are built upon."""

import hashlib
import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.download.entity_tags import read_tags, tags_file, write_tags
from agent.download.part import DISK, BadChunkError, Part
from agent.errors import StateError
from tests.agent_downloads import chunked, noise, sha256

SIZE = 10
DATA = noise(95)
CHUNKS = chunked(DATA, SIZE).chunks


def _part(path: Path) -> Part:
    return Part(path, CHUNKS, lambda: None)


@given(there=st.integers(0, 120), wrong=st.integers(0, 119), size=st.integers(1, 40))
def test_goes_on_from_the_last_right_byte(there: int, wrong: int, size: int) -> None:
    found = bytearray(DATA + noise(25, seed=1))[:there]
    if wrong < there:
        found[wrong] ^= 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.part"
        path.write_bytes(found)
        part = _part(path)
        right = there if wrong >= there else wrong // SIZE * SIZE
        whole_chunks = min(there, len(DATA)) // SIZE * SIZE
        if wrong < there and wrong < whole_chunks:
            assert part.length == right
        elif wrong >= there:
            assert part.length == min(there, len(DATA))
        blamed = []
        while not part.is_whole:
            try:
                part.append(DATA[part.length : part.length + size], "server")
            except BadChunkError as error:
                blamed.append((error.origins, error.chunk.offset == part.length))
        assert all(DISK in origins and is_cut for origins, is_cut in blamed)
        assert part.sha256() == sha256(DATA)
        part.finish(Path(folder) / "x")
        part.close()
        assert (Path(folder) / "x").read_bytes() == DATA


@given(
    pieces=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    cut=st.floats(0, 1),
    data=st.data(),
)
def test_digests_are_right_after_a_cut(pieces: list[int], cut: float, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        part = _part(Path(folder) / "x.part")
        for size in pieces:
            part.append(DATA[part.length : part.length + size], "server")
        to = part.verified + int(cut * (part.length - part.verified))
        part.cut(to)
        assert part.length == to
        assert part.sha256() == sha256(DATA[:to])
        assert part.path.stat().st_size == to
        more = data.draw(st.integers(0, len(DATA) - to))
        part.append(DATA[to : to + more], "server")
        assert part.sha256() == sha256(DATA[: to + more])
        part.close()


def test_a_wrong_chunk_names_who_gave_bytes_of_it(tmp_path: Path) -> None:
    part = _part(tmp_path / "x.part")
    part.append(DATA[:15], "one")
    with pytest.raises(BadChunkError) as error:
        part.append(b"\0" * 5, "other")
    assert error.value.origins == {"one", "other"}
    assert part.length == part.verified == 10
    part.append(DATA[10:], "other")
    assert part.is_whole
    part.close()


def test_more_bytes_than_the_file_has_are_never_written(tmp_path: Path) -> None:
    part = _part(tmp_path / "x.part")
    with pytest.raises(ValueError, match="more bytes"):
        part.append(DATA + b"x", "one")
    assert part.path.stat().st_size == 0
    part.close()


def test_counts_equal_bytes(tmp_path: Path) -> None:
    part = _part(tmp_path / "x.part")
    part.append(DATA[:25], "one")
    assert part.same(5, memoryview(DATA[5:25])) == 20
    assert part.same(5, memoryview(DATA[5:8] + b"\0\0")) == 3
    assert part.same(24, memoryview(DATA[24:25])) == 1
    part.close()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"precious")
    (tmp_path / "x.part").symlink_to(tmp_path / "other")
    with pytest.raises(StateError):
        _part(tmp_path / "x.part")
    assert (tmp_path / "other").read_bytes() == b"precious"


def test_a_finished_file_can_be_read_by_the_runtime(tmp_path: Path) -> None:
    part = _part(tmp_path / "x.part")
    part.append(DATA, "one")
    part.finish(tmp_path / "x")
    part.close()
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644
    assert hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest() == sha256(DATA)


def test_a_file_has_its_name_only_when_its_bytes_are_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = _part(tmp_path / "x.part")
    part.append(DATA, "one")
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        done.append("folder" if is_folder else "file")
        fsync(descriptor)

    def note_replace(old: Path, new: Path) -> None:
        done.append("name")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    part.finish(tmp_path / "x")
    part.close()
    assert done == ["file", "name", "folder"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"u": 1}', '{"u": "W/\\"weak\\""}', "[" * 100_000, '{"u": "a\\r\\n"}']
)
def test_tags_that_cannot_be_used_are_none(tmp_path: Path, text: str) -> None:
    tags_file(tmp_path / "x.part").write_text(text, "utf-8")
    assert read_tags(tmp_path / "x.part") == {}


def test_tags_are_kept(tmp_path: Path) -> None:
    write_tags(tmp_path / "x.part", {"http://a/x": '"1"'})
    assert read_tags(tmp_path / "x.part") == {"http://a/x": '"1"'}
    assert len(list(tmp_path.iterdir())) == 1
