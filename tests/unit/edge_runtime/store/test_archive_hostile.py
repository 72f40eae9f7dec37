"""Tar files that somebody hostile made, or that were damaged on the way: refused, and no more."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import ArtifactError, ManifestError, ModelLoadError
from edge_runtime.manifest import MANIFEST_FILE, SIGNATURE_FILE
from edge_runtime.store.archive import ArchiveSource
from edge_runtime.store.reading import SourceLimits
from edge_runtime.store.source import source_of
from edge_runtime.store.store import Store
from tests.store_bundles import LIMITS, ONNX, archive, install, piped, published, taken

FORMS = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}
BUNDLE = published(signature=b"signed")


def store(base: Path) -> Store:
    return Store(base / "store", reserve_bytes=0, bundle_bytes=10**6)


def _typed(kind: bytes, linkname: str = "") -> Callable[[tarfile.TarInfo], None]:
    def change(entry: tarfile.TarInfo) -> None:
        if entry.name == "b.onnx":
            entry.type, entry.linkname, entry.size = kind, linkname, 0

    return change


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (tarfile.CONTTYPE, "of the unknown kind b'7'"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
        (b"V", "of the unknown kind b'V'"),
    ],
)
@pytest.mark.parametrize("through_pipe", [False, True], ids=["file", "pipe"])
def test_what_is_no_regular_file_is_refused(
    kind: bytes,
    what: str,
    through_pipe: bool,  # noqa: FBT001 - a parameter of the table
    tmp_path: Path,
) -> None:
    path = archive(tmp_path / "in.tar", published(), change=_typed(kind, "../../etc/passwd"))
    with piped(path) as reader, pytest.raises(ModelLoadError) as caught:
        install(store(tmp_path), reader if through_pipe else path)
    assert f"'b.onnx' is {what}; a bundle holds regular files and folders only" in (
        caught.value.message
    )
    assert store(tmp_path).names() == []


@pytest.mark.parametrize(
    "name", ["/b", "../b", "a/../b", "a/../../b", "/", "..", "a//b", "a\nb", "a\\b", ".", "./../b"]
)
@pytest.mark.parametrize("form", FORMS)
def test_a_name_that_leads_elsewhere_is_refused(name: str, form: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "in.tar", {**published(), name: b"x"}, FORMS[form])
    with pytest.raises(ArtifactError):
        install(store(tmp_path), path)
    assert store(tmp_path).names() == []


def _doubled(tmp_path: Path, name: str) -> Path:
    with tarfile.open(tmp_path / "in.tar", "w") as tar:
        for each, data in [*BUNDLE.items(), (name, b"evil")]:
            entry = tarfile.TarInfo(each)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return tmp_path / "in.tar"


@pytest.mark.parametrize("name", ["b.onnx", "./b.onnx", MANIFEST_FILE, SIGNATURE_FILE])
def test_a_name_that_is_there_twice_is_refused(name: str, tmp_path: Path) -> None:
    path = _doubled(tmp_path, name)
    with pytest.raises(ManifestError, match="is there twice"):
        install(store(tmp_path), path)
    with piped(path) as reader, pytest.raises(ManifestError):
        install(store(tmp_path), reader)
    assert store(tmp_path).names() == []


@pytest.mark.parametrize("suffix", ["gz", "xz"])
def test_a_packed_archive_is_refused_unread(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"in.tar.{suffix}"
    with tarfile.open(path, f"w:{suffix}") as tar:  # type: ignore[call-overload]
        tar.addfile(tarfile.TarInfo("x"))
    with pytest.raises(ModelLoadError, match=r"is not a tar archive|its end mark"):
        install(store(tmp_path), path)


@pytest.mark.parametrize("data", [b"", b"x", bytes(511), b"<html>" * 1000], ids=len)
def test_what_is_no_archive_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "in.tar").write_bytes(data)
    with pytest.raises(ModelLoadError):
        install(store(tmp_path), tmp_path / "in.tar")


def test_an_archive_that_was_cut_anywhere_is_refused(tmp_path: Path) -> None:
    data = archive(
        tmp_path / "in.tar", published(files={"m.onnx": ONNX, "z": b"z" * 600})
    ).read_bytes()
    end = data.rstrip(b"\0")
    for length in range(0, len(end) + 512, 61):
        (tmp_path / "cut.tar").write_bytes(data[:length])
        with pytest.raises(ArtifactError):
            install(store(tmp_path), tmp_path / "cut.tar")
        with piped(tmp_path / "cut.tar") as reader, pytest.raises(ArtifactError):
            install(store(tmp_path), reader)
        assert store(tmp_path).names() == []


def header(name: str = "x", **values: object) -> bytes:
    """Make a header block whose checksum is right."""
    entry = tarfile.TarInfo(name)
    for key, value in values.items():
        setattr(entry, key, value)
    return entry.tobuf(tarfile.GNU_FORMAT)


def block(data: bytes, kind: bytes, size_bytes: int | None = None) -> bytes:
    """Make an extended header."""
    size_bytes = len(data) if size_bytes is None else size_bytes
    padding = bytes(-len(data) % 512)
    return header("././@ext", type=kind, size=size_bytes) + data + padding


HUGE = {
    "file": header(size=2**62),
    "file, binary": header(size=8 * 2**30),
    "all": b"".join(header(f"f{number}", size=0) for number in range(2000)),
    "pax": block(b"", tarfile.XHDTYPE, 2**40),
    "name": block(b"", tarfile.GNUTYPE_LONGNAME, 2**40),
    "many pax": block(b"11 comment=\n"[:12], tarfile.XGLTYPE) * 2000,
    "folder": header("d/", size=2**40, type=tarfile.DIRTYPE),
    "negative": header()[:124] + b"\xff" * 12 + header()[136:],
}


@pytest.mark.parametrize("what", HUGE)
def test_sizes_and_counts_beyond_the_limits_are_refused_without_memory(
    what: str, tmp_path: Path
) -> None:
    limits = SourceLimits(bundle_bytes=10**6, entries=1000)
    path = tmp_path / "in.tar"
    path.write_bytes(archive(path, published()).read_bytes().rstrip(b"\0"))
    data = path.read_bytes()
    path.write_bytes(HUGE[what] + data + bytes(-len(data) % 512) + bytes(1024))
    with source_of(path, limits) as source, pytest.raises(ArtifactError):
        source.head()


def pax(*records: tuple[str, bytes]) -> bytes:
    """Make the records of a pax header."""
    made = b""
    for key, value in records:
        rest = b" " + key.encode() + b"=" + value + b"\n"
        length = len(rest) + len(str(len(rest)))
        length += len(str(length)) - len(str(len(rest)))
        made += str(length).encode() + rest
    return made


ODD = {
    "path leads out": block(pax(("path", b"../out")), tarfile.XHDTYPE),
    "path is absolute": block(pax(("path", b"/etc/x")), tarfile.XHDTYPE),
    "path is the manifest": block(pax(("path", MANIFEST_FILE.encode())), tarfile.XHDTYPE),
    "path is not UTF-8": block(pax(("path", b"\xff")), tarfile.XHDTYPE),
    "path has a zero": block(pax(("path", b"a\0b")), tarfile.XHDTYPE),
    "path is empty": block(pax(("path", b"")), tarfile.XHDTYPE),
    "path twice": block(pax(("path", b"a"), ("path", b"b")), tarfile.XHDTYPE),
    "path for all": block(pax(("path", b"a")), tarfile.XGLTYPE),
    "size is no number": block(pax(("size", b"-1")), tarfile.XHDTYPE),
    "size is huge": block(pax(("size", b"9" * 19)), tarfile.XHDTYPE),
    "size is endless": block(pax(("size", b"9" * 4000)), tarfile.XHDTYPE),
    "link": block(pax(("linkpath", b"../out")), tarfile.XHDTYPE),
    "sparse": block(pax(("GNU.sparse.major", b"1"), ("GNU.sparse.size", b"9")), tarfile.XHDTYPE),
    "no length": block(b"path=x\n", tarfile.XHDTYPE),
    "long length": block(b"99 path=x\n", tarfile.XHDTYPE),
    "short length": block(b"5 path=x\n", tarfile.XHDTYPE),
    "zero length": block(b"0 path=x\n", tarfile.XHDTYPE),
    "no key": block(b"5 =x\n", tarfile.XHDTYPE),
    "cut": header("././@ext", type=tarfile.XHDTYPE, size=700) + b"x" * 512,
    "GNU name leads out": block(b"../out\0", tarfile.GNUTYPE_LONGNAME),
    "GNU link": block(b"../out\0", tarfile.GNUTYPE_LONGLINK),
    "two names": block(b"a\0", tarfile.GNUTYPE_LONGNAME) + block(pax(("path", b"b")), b"x"),
    "no file": b"",
}


@pytest.mark.parametrize("what", ODD)
def test_odd_extended_headers_are_refused(what: str, tmp_path: Path) -> None:
    path = tmp_path / "in.tar"
    tail = b"" if what == "no file" else header("x", size=0)
    begin = archive(path, published()).read_bytes()
    begin = begin[: -(-len(begin.rstrip(b"\0")) // 512) * 512]
    odd = ODD[what] or block(pax(("path", b"x")), tarfile.XHDTYPE)
    path.write_bytes(begin + odd + tail + bytes(1024))
    with pytest.raises(ArtifactError):
        install(store(tmp_path), path)
    with piped(path) as reader, pytest.raises(ArtifactError):
        install(store(tmp_path), reader)
    assert store(tmp_path).names() == []


def test_harmless_extended_headers_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "in.tar"
    data = archive(path, published()).read_bytes()
    comment = block(pax(("comment", b"\xff any bytes")), tarfile.XGLTYPE)
    times = block(pax(("mtime", b"1.5"), ("LIBARCHIVE.xattr.user.x", b"\0\xff")), tarfile.XHDTYPE)
    path.write_bytes(comment + times + data)
    install(store(tmp_path), path)
    store(tmp_path).verify("m", 1)


# Anything at all

NAMES = st.one_of(
    st.sampled_from(["manifest.json", "a", "a/b", "./a", "../a", "/a", "a/", "", "x" * 300]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200),
)
ENTRIES = st.lists(
    st.tuples(
        NAMES,
        st.binary(max_size=1100),
        st.sampled_from([*map(bytes, (b"0", b"0", b"0", b"0", b"0", b"5", b"2", b"1", b"3"))]),
    ),
    max_size=6,
)


def _written(entries: list[tuple[str, bytes, bytes]], form: int) -> bytes | None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, data, kind in entries:
            entry = tarfile.TarInfo(name)
            entry.type = kind
            entry.size = len(data) if kind == b"0" else 0
            try:
                tar.addfile(entry, io.BytesIO(data))
            except ValueError:  # a name that the format cannot hold
                return None
    return buffer.getvalue()


def _read(data: bytes, wanted: list[str]) -> dict[str, bytes]:
    descriptor = os.memfd_create("in.tar")
    os.write(descriptor, data)
    with ArchiveSource(descriptor, "in.tar", LIMITS) as source:
        manifest, _ = source.head()
        return {MANIFEST_FILE: manifest, **taken(source, *wanted)}


@given(ENTRIES, st.sampled_from(list(FORMS.values())))
def test_what_is_read_is_what_was_written(
    entries: list[tuple[str, bytes, bytes]], form: int
) -> None:
    data = _written([(MANIFEST_FILE, b"{}", b"0"), *entries], form)
    if data is None:
        return
    files = {name.removeprefix("./"): content for name, content, kind in entries if kind == b"0"}
    try:
        found = _read(data, list(files))
    except ArtifactError:
        return
    assert {kind for _, _, kind in entries} <= {b"0", b"5"}
    assert found == {MANIFEST_FILE: b"{}", **{n: c for n, c in files.items() if n[-1:] != "/"}}


@given(
    ENTRIES,
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8),
    st.integers(0, 20_000),
)
def test_a_damaged_archive_is_read_or_refused_and_nothing_else(
    entries: list[tuple[str, bytes, bytes]], changes: list[tuple[int, int]], length: int
) -> None:
    written = _written([(MANIFEST_FILE, b"{}", b"0"), *entries], tarfile.PAX_FORMAT)
    data = bytearray(written or b"")[:length]
    for place, value in changes:
        if place < len(data):
            data[place] = value
    try:
        _read(bytes(data), ["a", "a/b"])
    except ArtifactError as error:
        assert error.message.startswith("in.tar: ")  # noqa: PT017 - many are read


@given(st.binary(max_size=3000))
def test_any_bytes_are_refused(data: bytes) -> None:
    try:
        _read(data, ["a"])
    except ArtifactError as error:
        assert error.message.startswith("in.tar: ")  # noqa: PT017 - every byte may be right


@given(st.binary(min_size=1, max_size=600), st.sampled_from([b"x", b"g", b"L"]))
def test_any_extended_header_is_read_or_refused(data: bytes, kind: bytes) -> None:
    archive_bytes = _written([(MANIFEST_FILE, b"{}", b"0")], tarfile.GNU_FORMAT)
    assert archive_bytes is not None
    try:
        found = _read(block(data, kind) + archive_bytes, [])
    except ArtifactError as error:
        assert error.message.startswith("in.tar: ")  # noqa: PT017 - some are harmless
        return
    assert found == {MANIFEST_FILE: b"{}"}
