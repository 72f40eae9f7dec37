"""A folder whose owner plays tricks while it is read."""

import os
import socket
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import (
    ArtifactError,
    DigestMismatchError,
    EdgeRuntimeError,
    ManifestError,
    ModelLoadError,
)
from edge_runtime.manifest import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    Manifest,
    TensorDescription,
    Variant,
    check_file_name,
)
from edge_runtime.store.layout import check_paths
from edge_runtime.store.reading import CHUNK_BYTES, BundleSource, SourceLimits
from edge_runtime.store.source import source_of
from edge_runtime.store.store import Store
from tests.store_bundles import (
    LIMITS,
    ONNX,
    accept,
    contents,
    folder,
    install,
    published,
    taken,
)

SECRET = b"not for everybody"


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """A bundle with a secret beside it."""
    (tmp_path / "secret").write_bytes(SECRET)
    return folder(tmp_path / "in", published())


@contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the names are what is counted


def test_a_folder_is_read_by_its_path_and_by_its_descriptor(inside: Path) -> None:
    before = descriptors()
    bundle = published()
    with opened(inside) as descriptor:
        for where in (inside, descriptor):
            with source_of(where, LIMITS) as source:
                assert source.head() == (bundle[MANIFEST_FILE], None)
                assert taken(source, *contents(), "nowhere", "a/nowhere") == contents()
                assert source.ignored([*bundle, "b.onnx"]) == ()
                assert sorted(source.ignored([])) == sorted(bundle)
        os.fstat(descriptor)  # it stays the caller's
    assert descriptors() == before


def test_a_folder_that_is_open_for_its_path_only_will_do(inside: Path) -> None:
    descriptor = os.open(inside, os.O_PATH | os.O_DIRECTORY)
    with source_of(descriptor, LIMITS) as source:
        assert source.head()[0] == published()[MANIFEST_FILE]
        assert taken(source, "b.onnx") == {"b.onnx": ONNX}
    os.close(descriptor)


def test_a_folder_that_is_renamed_is_still_the_one_that_was_opened(
    inside: Path, tmp_path: Path
) -> None:
    with source_of(inside, LIMITS) as source:
        source.head()
        inside.rename(tmp_path / "elsewhere")
        folder(inside, {**published(), "b.onnx": b"evil"})
        assert taken(source, "b.onnx") == {"b.onnx": ONNX}


@pytest.mark.parametrize("name", ["b.onnx", "a/model.onnx", MANIFEST_FILE, SIGNATURE_FILE])
@pytest.mark.parametrize("to", ["../secret", "/etc/passwd", "a/weights.bin", "loop"])
def test_a_link_is_refused_wherever_it_leads(name: str, to: str, inside: Path) -> None:
    before = descriptors()
    (inside / name).unlink(missing_ok=True)
    (inside / name).symlink_to(name if to == "loop" else to)
    store = Store(inside.parent / "store", reserve_bytes=0, bundle_bytes=10**6)
    with pytest.raises(ModelLoadError, match="is a link, or lies behind one"):
        install(store, inside)
    assert store.names() == []
    assert descriptors() == before


@pytest.mark.parametrize("to", ["..", "/", "goldens"])
def test_a_folder_that_is_a_link_is_refused(to: str, inside: Path) -> None:
    (inside / "a").rename(inside / "b")
    (inside / "a").symlink_to("b" if to == "goldens" else to)
    with (
        source_of(inside, LIMITS) as source,
        pytest.raises(ModelLoadError, match="is a link, or lies behind one"),
    ):
        taken(source, "a/model.onnx")


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "device"])
def test_what_is_no_regular_file_is_refused_without_waiting(
    kind: str, folder_of_mine: Path
) -> None:
    inside = folder(folder_of_mine / "in", published())
    path = inside / "b.onnx"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    else:
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
        except PermissionError:
            pytest.skip("only root may make a device")
    with source_of(inside, LIMITS) as source, pytest.raises(ModelLoadError) as caught:
        taken(source, "b.onnx")
    assert "b.onnx" in caught.value.message


class Changing:
    """A folder of which one file changes after each part that is read of it."""

    def __init__(self, source: BundleSource, path: Path, change: Callable[[int], object]) -> None:
        self.shown, self.head, self.close = source.shown, source.head, source.close
        self.ignored, self.lacks = source.ignored, source.lacks
        self._source, self._path, self._change = source, path, change

    def contents(self, wanted: Collection[str]) -> Iterator[tuple[str, Iterable[bytes]]]:
        """Change what is being read."""
        for path, chunks in self._source.contents(wanted):
            yield path, self._changed(chunks)

    def _changed(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            yield chunk
            with self._path.open("r+b") as file:
                self._change(file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda file: os.pwrite(file, b"evil", 2 * CHUNK_BYTES), "SHA-256"),
        (lambda file: os.truncate(file, CHUNK_BYTES), "bytes instead of"),
        (lambda file: os.truncate(file, 9 * CHUNK_BYTES), "more than"),
    ],
    ids=["rewritten", "cut", "grown"],
)
def test_a_file_that_changes_while_it_is_read_is_refused(
    change: Callable[[int], object], why: str, tmp_path: Path
) -> None:
    large = bytes(3 * CHUNK_BYTES)
    inside = folder(tmp_path / "in", published(files={"m.onnx": ONNX, "z": large}))
    store = Store(tmp_path / "store", reserve_bytes=0, bundle_bytes=10**8)
    with (
        Changing(source_of(inside, LIMITS), inside / "z", change) as source,
        pytest.raises(DigestMismatchError, match=why),
    ):
        store.install(source, check=accept)
    assert store.names() == []
    assert not [*(tmp_path / "store" / "blobs").iterdir()]


def test_unknown_files_are_counted_within_limits(tmp_path: Path) -> None:
    inside = folder(tmp_path / "in", published())
    for number in range(50):
        (inside / f"extra{number}").touch()
    (inside / "out").symlink_to("/")
    with source_of(inside, LIMITS) as source:
        found = source.ignored(published())
    assert len(found) == 20
    with source_of(inside, SourceLimits(bundle_bytes=1, entries=3)) as source:
        assert len(source.ignored(())) <= 3


@pytest.mark.parametrize("where", ["nowhere", "nul\0", "x" * 300])
def test_what_cannot_be_opened_is_told(where: str, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="cannot read"):
        source_of(tmp_path / where, LIMITS)


def test_what_is_neither_folder_nor_file_is_refused() -> None:
    before = descriptors()
    with pytest.raises(ModelLoadError, match="neither a folder nor a tar file"):
        source_of(Path("/dev/null"), LIMITS)
    with pytest.raises(ModelLoadError, match="cannot read the bundle that was handed over"):
        source_of(10_000, LIMITS)
    assert descriptors() == before


# Names


PARTS = st.one_of(
    st.sampled_from(["..", ".", "", "a", "manifest.json", "manifest.sig", "x" * 255, "x" * 256]),
    st.text(max_size=8),
    st.text(min_size=60, max_size=130),
)
PATHS = st.lists(PARTS, min_size=1, max_size=6).map("/".join)


@given(PATHS)
def test_a_path_that_is_accepted_stays_within_the_folder_and_can_be_made(path: str) -> None:
    tensor = TensorDescription("x", "FP32", (-1,))
    try:
        check_file_name(path)
        check_paths(
            Manifest(
                name="m",
                version=1,
                inputs=(tensor,),
                outputs=(tensor,),
                variants=(Variant("v", path, "0" * 64, 1),),
            ),
            "here",
        )
    except ManifestError:
        return
    parts = path.split("/")
    assert not {"", ".", ".."} & set(parts)
    assert parts[0] not in {MANIFEST_FILE, SIGNATURE_FILE}
    assert all(0 < len(os.fsencode(part)) <= 255 for part in parts)
    assert len(os.fsencode(path)) < 4096 - 1024
    assert "\0" not in path


@given(path=PATHS)
def test_no_path_leads_out_of_a_folder(path: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Also one that nobody has checked: it is a file within, nothing, or refused."""
    base = tmp_path_factory.getbasetemp() / "paths"
    if not base.exists():
        folder(base / "in", published())
    with source_of(base / "in", LIMITS) as source:
        try:
            check_file_name(path)
            found = taken(source, path)
        except EdgeRuntimeError as error:
            assert isinstance(error, ArtifactError)  # noqa: PT017 - most paths raise nothing
            return
    assert set(found.values()) <= set(published().values())
