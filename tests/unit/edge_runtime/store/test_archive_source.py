"""Tar files: what tools make is read, and what somebody hostile makes is refused."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from edge_runtime.errors import ArtifactError, DigestMismatchError, ManifestError, ModelLoadError
from edge_runtime.manifest import MANIFEST_FILE, SIGNATURE_FILE
from edge_runtime.store.reading import SourceLimits
from edge_runtime.store.source import source_of
from edge_runtime.store.store import Store
from tests.store_bundles import LIMITS, ONNX, archive, contents, install, piped, published, taken

FORMS = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}
LONG = "/".join(["folder" * 10] * 3) + "/file.bin"
BUNDLE = published(signature=b"signed")


def everything(where: Path | int, *wanted: str) -> tuple[bytes, bytes | None, dict[str, bytes]]:
    with source_of(where, LIMITS) as source:
        manifest, signature = source.head()
        return manifest, signature, taken(source, *wanted)


def store(base: Path) -> Store:
    return Store(base / "store", reserve_bytes=0, bundle_bytes=10**6)


# What tools make


@pytest.mark.parametrize("form", FORMS)
def test_an_archive_of_each_format_is_read(form: str, tmp_path: Path) -> None:
    files = {**contents(), LONG: b"deep", "größe/ß.bin": b"text"}
    bundle = published(files=files)
    path = archive(tmp_path / "in.tar", bundle, FORMS[form])
    expected = (bundle[MANIFEST_FILE], None, files)
    assert everything(path, *files) == expected
    for over_socket in (False, True):
        with piped(path, over_socket=over_socket) as reader:
            assert everything(reader, *files) == expected
    install(store(tmp_path), path)
    store(tmp_path).verify("m", 1)


def test_folders_in_it_and_a_dot_before_its_names_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "in.tar"
    with tarfile.open(path, "w") as tar:
        for name in (".", "./a", "./empty/"):
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE
            tar.addfile(entry)
        for name, data in BUNDLE.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    assert everything(path, *contents()) == (BUNDLE[MANIFEST_FILE], b"signed", contents())


def test_the_order_does_not_matter_in_a_file(tmp_path: Path) -> None:
    path = archive(tmp_path / "in.tar", dict(reversed(BUNDLE.items())))
    assert everything(path, *contents()) == (BUNDLE[MANIFEST_FILE], b"signed", contents())


def test_through_a_pipe_the_manifest_comes_first(tmp_path: Path) -> None:
    late = archive(tmp_path / "late.tar", dict(reversed(BUNDLE.items())))
    with piped(late) as reader, pytest.raises(ModelLoadError, match="before its other files"):
        everything(reader)
    # A signature that is only seen once files were taken must not be taken for none.
    unsigned_first = {name: BUNDLE[name] for name in sorted(BUNDLE, key=SIGNATURE_FILE.__eq__)}
    path = archive(tmp_path / "signature.tar", unsigned_first)
    with piped(path) as reader, pytest.raises(ManifestError, match=r"manifest\.sig comes after"):
        everything(reader, *contents())


def test_unknown_files_are_passed_over_and_told(tmp_path: Path) -> None:
    bundle = {**published(), "README": b"x" * 5000, "b/notes": b""}
    path = archive(tmp_path / "in.tar", bundle)
    assert install(store(tmp_path), path).ignored == ("README", "b/notes")
    with piped(path) as reader:
        done = install(Store(tmp_path / "2", reserve_bytes=0, bundle_bytes=10**6), reader)
    assert done.ignored == ("README", "b/notes")


def test_a_descriptor_keeps_its_place(tmp_path: Path) -> None:
    path = archive(tmp_path / "in.tar", BUNDLE)
    with path.open("rb") as file:
        file.seek(77)
        assert everything(file.fileno(), *contents())[2] == contents()
        assert file.tell() == 77
        # Nor does it matter that whoever handed it over reads on meanwhile.
        with source_of(file.fileno(), LIMITS) as source:
            source.head()
            file.seek(5)
            assert taken(source, "b.onnx") == {"b.onnx": ONNX}


# Who sends it


def test_a_sender_who_stops_is_not_waited_for(tmp_path: Path) -> None:
    data = archive(tmp_path / "in.tar", published()).read_bytes()
    reader, writer = os.pipe()
    os.write(writer, data[:3000])
    limits = SourceLimits(bundle_bytes=10**6, stall_s=0.05)
    with (
        source_of(reader, limits) as source,
        pytest.raises(ModelLoadError, match="takes too long"),
    ):
        store(tmp_path).install(source, check=lambda *_: None)
    over = SourceLimits(bundle_bytes=10**6, read_s=0.0)
    with source_of(reader, over) as source, pytest.raises(ModelLoadError, match="takes too long"):
        source.head()
    os.close(writer)
    os.close(reader)
    assert store(tmp_path).names() == []


def test_a_sender_without_end_is_stopped(tmp_path: Path) -> None:
    bundle = published(files={"m.onnx": ONNX})
    small = SourceLimits(bundle_bytes=5000, entries=5)
    path = archive(tmp_path / "in.tar", {**bundle, **{f"x{n}": b"" for n in range(50)}})
    with piped(path) as reader, source_of(reader, small) as source:
        source.head()
        with pytest.raises(ArtifactError, match="more than 5 entries"):
            taken(source, "nothing")


def test_other_contents_than_the_manifest_says_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "in.tar", {**published(), "b.onnx": ONNX[::-1]})
    with piped(path) as reader, pytest.raises(DigestMismatchError):
        install(store(tmp_path), reader)
    assert store(tmp_path).names() == []
