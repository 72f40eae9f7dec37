"""Pages of a mapped file leave memory when its last user goes."""

import mmap
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.mapped_weights import MappedWeights

_BYTES = 4 * 2**20
_SMAPS = Path("/proc/self/smaps")

pytestmark = pytest.mark.skipif(not _SMAPS.exists(), reason="the system does not show its maps")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of some pages."""
    path = tmp_path / "weights.bin"
    path.write_bytes(b"w" * _BYTES)
    return path


@pytest.fixture
def mapped(weights: Path) -> Iterator[mmap.mmap]:
    """The file, mapped and read, as ONNX Runtime does it."""
    with weights.open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE) as pages:
        assert pages[:] == b"w" * _BYTES
        yield pages


def _in_memory(path: Path) -> int:
    """Bytes of a mapped file that this process holds."""
    found = re.search(
        rf" {re.escape(str(path))}[^\n]*\n(?:.*\n)*?Rss: +(\d+) kB", _SMAPS.read_text()
    )
    assert found is not None
    return int(found[1]) * 1024


def test_pages_leave_memory_while_the_file_is_still_mapped(
    weights: Path, mapped: mmap.mmap
) -> None:
    held = MappedWeights(weights)
    assert _in_memory(weights) == _BYTES
    held.drop_pages()
    assert _in_memory(weights) == 0
    held.close()
    assert mapped[:] == b"w" * _BYTES  # they come back if somebody asks


def test_pages_stay_while_another_session_uses_them(weights: Path, mapped: mmap.mmap) -> None:
    first, second = MappedWeights(weights), MappedWeights(weights)
    first.drop_pages()
    first.close()
    assert _in_memory(weights) == _BYTES
    second.drop_pages()
    assert _in_memory(weights) == 0
    second.close()
    assert len(mapped) == _BYTES


def test_pages_of_other_files_stay(weights: Path, mapped: mmap.mmap, tmp_path: Path) -> None:
    other = tmp_path / "other.bin"
    other.write_bytes(b"o")
    held = MappedWeights(other)
    held.drop_pages()
    held.close()
    assert _in_memory(weights) == len(mapped)


def test_pages_of_a_removed_file_leave_memory(weights: Path, mapped: mmap.mmap) -> None:
    held = MappedWeights(weights)
    weights.unlink()
    held.drop_pages()
    assert _in_memory(weights) == 0
    held.close()
    assert len(mapped) == _BYTES


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        MappedWeights(tmp_path / "weights.bin")
