"""What is installed is whole, never changes, and is gone when nobody keeps it."""

import errno
import hashlib
import os
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import msgspec
import pytest

from edge_runtime import manifest
from edge_runtime.errors import (
    ArtifactError,
    ManifestError,
    ModelNotFoundError,
)
from edge_runtime.manifest import MANIFEST_FILE, SIGNATURE_FILE
from edge_runtime.store.durable import Disk
from edge_runtime.store.source import source_of
from edge_runtime.store.store import Store
from tests.store_bundles import (
    EXTERNAL,
    LIMITS,
    ONNX,
    WEIGHTS,
    accept,
    archive,
    contents,
    everything,
    folder,
    install,
    published,
)

NOBODY = 65534


def make(tmp_path: Path, *, reserve_bytes: int = 0, bundle_bytes: int = 10**6) -> Store:
    return Store(tmp_path / "store", reserve_bytes=reserve_bytes, bundle_bytes=bundle_bytes)


def in_store(tmp_path: Path) -> dict[str, tuple[int, int, bytes]]:
    return everything(tmp_path / "store")


def blobs(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "store" / "blobs").iterdir()}


@contextmanager
def unprivileged(path: Path) -> Iterator[None]:
    """Own a folder, and be somebody who may not do everything."""
    if os.geteuid() != 0:
        yield
        return
    os.chown(path, NOBODY, -1)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


# Installing


def test_a_bundle_is_installed_whole_and_for_reading_only(tmp_path: Path) -> None:
    bundle = published(signature=b"signed")
    store = make(tmp_path)
    done = install(store, folder(tmp_path / "in", bundle))
    assert (done.name, done.version, done.was_there) == ("m", 1, False)
    assert done.manifest == manifest.read(bundle[MANIFEST_FILE], "x")
    assert done.manifest_sha256 == hashlib.sha256(bundle[MANIFEST_FILE]).hexdigest()
    assert done.directory == tmp_path / "store" / "models" / "m" / "1"
    assert done.copied_bytes == sum(map(len, contents().values()))
    assert done.reused_bytes == 0
    assert done.ignored == ()
    assert {path: data for path, (_, _, data) in everything(done.directory).items() if data} == (
        bundle
    )
    for path in [done.directory, *done.directory.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o555 if path.is_dir() else 0o444)
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700
    assert not [*(tmp_path / "store" / "incoming").iterdir()]
    assert store.names() == ["m"]
    assert store.versions("m") == [1]
    assert store.bundle("m", 1).manifest == done.manifest
    assert len(store.verify("m", 1)) == 4
    assert store.head("m", 1) == (bundle[MANIFEST_FILE], b"signed")


def test_every_content_is_on_the_disk_once(tmp_path: Path) -> None:
    store = make(tmp_path)
    install(store, folder(tmp_path / "1", published()))
    second = {**contents(golden=b"other"), "again/b.onnx": ONNX}
    done = install(store, folder(tmp_path / "2", published(version=2, files=second)))
    assert done.copied_bytes == len(b"other")
    # Under both of its names: each is a file that need not be copied.
    assert done.reused_bytes == len(EXTERNAL) + len(WEIGHTS) + 2 * len(ONNX)
    assert len(blobs(tmp_path)) == 5
    inodes = {
        path.lstat().st_ino: path.lstat().st_nlink
        for path in (tmp_path / "store" / "blobs").iterdir()
    }
    assert sorted(inodes.values()) == [2, 2, 3, 3, 4]


def test_a_file_under_two_names_is_written_once(tmp_path: Path) -> None:
    files = {"a.onnx": ONNX, "b/c.onnx": ONNX, "d": b"x", "e": b"x"}
    done = install(make(tmp_path), archive(tmp_path / "in.tar", published(files=files)))
    assert done.copied_bytes == len(ONNX) + 1
    assert len(blobs(tmp_path)) == 2
    assert (done.directory / "a.onnx").samefile(done.directory / "b" / "c.onnx")


def test_what_lies_outside_is_never_linked_to(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", published())
    install(make(tmp_path), source)
    for path in source.rglob("*"):
        if path.is_file():
            assert path.stat().st_nlink == 1
            path.write_bytes(b"changed by whoever owns it")
    make(tmp_path).verify("m", 1)


def test_only_files_that_the_manifest_names_are_taken_and_the_others_are_told(
    tmp_path: Path,
) -> None:
    bundle = {**published(), "README": b"hello", "a/notes.txt": b"x"}
    done = install(make(tmp_path), folder(tmp_path / "in", bundle))
    assert sorted(done.ignored) == ["README", "a/notes.txt"]
    assert not (done.directory / "README").exists()
    assert sorted(path.name for path in (done.directory / "a").iterdir()) == [
        "model.onnx",
        "weights.bin",
    ]


def test_a_name_that_is_no_text_is_told_as_text(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", published())
    (source / os.fsdecode(b"\xff\xfe")).write_bytes(b"")
    done = install(make(tmp_path), source)
    msgspec.json.encode(done.ignored)


def test_the_same_bundle_again_changes_nothing(tmp_path: Path) -> None:
    store = make(tmp_path)
    first = install(store, folder(tmp_path / "in", published()))
    before = in_store(tmp_path)
    again = install(store, archive(tmp_path / "in.tar", published()))
    assert again.was_there
    assert (again.copied_bytes, again.reused_bytes) == (0, 0)
    assert again.manifest_sha256 == first.manifest_sha256
    assert in_store(tmp_path) == before


def test_the_same_bundle_may_come_with_a_newer_signature(tmp_path: Path) -> None:
    store = make(tmp_path)
    done = install(store, folder(tmp_path / "in", published()))
    for signature in (b"old keys", b"new keys", None):
        install(store, folder(tmp_path / "in", published(signature=signature)))
    assert store.head("m", 1)[1] == b"new keys"  # it is not lost by an unsigned one
    assert (done.directory / SIGNATURE_FILE).stat().st_mode & 0o777 == 0o444
    assert done.directory.stat().st_mode & 0o777 == 0o555
    assert not [*(tmp_path / "store" / "incoming").iterdir()]


def test_a_version_never_becomes_another(tmp_path: Path) -> None:
    store = make(tmp_path)
    install(store, folder(tmp_path / "in", published()))
    before = in_store(tmp_path)
    other = published(files=contents(golden=b"another"))
    with pytest.raises(ManifestError, match="with another manifest, and a version never changes"):
        install(store, folder(tmp_path / "other", other))
    assert in_store(tmp_path) == before


def damage(path: Path, data: bytes) -> None:
    """Change a file as a failing disk does, under all its names."""
    path.chmod(0o600)
    path.write_bytes(data)
    path.chmod(0o444)


@pytest.mark.parametrize("name", [MANIFEST_FILE, "b.onnx", "a/weights.bin"])
@pytest.mark.parametrize("how", ["zeros", "cut", "gone"])
def test_a_damaged_version_is_mended_by_installing_it_again(
    name: str, how: str, tmp_path: Path
) -> None:
    store = make(tmp_path)
    bundle = published()
    done = install(store, folder(tmp_path / "in", bundle))
    path = done.directory / name
    if how == "gone":
        path.unlink()
    else:
        damage(
            path,
            bytes(len(bundle[name])) if how == "zeros" else bundle[name][: len(bundle[name]) // 2],
        )
    with pytest.raises((ArtifactError, ModelNotFoundError)):
        store.verify("m", 1)
    again = install(store, folder(tmp_path / "in", bundle))
    assert not again.was_there
    store.verify("m", 1)
    assert store.recover() == 0


def test_a_damaged_blob_is_not_used_again(tmp_path: Path) -> None:
    store = make(tmp_path)
    install(store, folder(tmp_path / "1", published()))
    blob = tmp_path / "store" / "blobs" / hashlib.sha256(WEIGHTS).hexdigest()
    damage(blob, bytes(len(WEIGHTS)))
    done = install(store, folder(tmp_path / "2", published(version=2)))
    assert done.copied_bytes == len(WEIGHTS)
    store.verify("m", 2)
    assert blob.read_bytes() == WEIGHTS


# Removing


def test_nothing_that_is_kept_is_collected(tmp_path: Path) -> None:
    store = make(tmp_path)
    for name in ("m", "n"):
        for version in (1, 2, 3):
            files = {**contents(f"{name}{version}".encode()), f"{name}.onnx": ONNX}
            install(store, folder(tmp_path / "in", published(name, version, files)))
    keep = {("m", 1), ("n", 3), ("gone", 9)}
    freed = store.collect(keep)
    assert store.names() == ["m", "n"]
    assert store.versions("m") == [1]
    assert store.versions("n") == [3]
    for name, version in (("m", 1), ("n", 3)):
        store.verify(name, version)
    assert len(blobs(tmp_path)) == 5
    # Four goldens of two bytes, and manifests.
    assert freed > 4 * 2
    assert store.collect(keep) == 0
    assert store.collect(()) > len(WEIGHTS)
    assert store.names() == []
    assert not blobs(tmp_path)
    assert not [*(tmp_path / "store" / "incoming").iterdir()]


def test_a_removed_version_frees_what_no_other_has(tmp_path: Path) -> None:
    store = make(tmp_path)
    first, second = published(), published(version=2, files={"b.onnx": ONNX})
    install(store, folder(tmp_path / "1", first))
    install(store, folder(tmp_path / "2", second))
    freed = store.remove("m", 1)
    kept = {ONNX}
    assert freed == sum(len(data) for data in first.values() if data not in kept)
    store.verify("m", 2)
    with pytest.raises(ModelNotFoundError):
        store.remove("m", 1)
    install(store, folder(tmp_path / "1", first))
    store.verify("m", 1)


def test_what_serves_goes_on_when_its_version_is_removed(tmp_path: Path) -> None:
    store = make(tmp_path)
    done = install(store, folder(tmp_path / "in", published()))
    with (done.directory / "a" / "weights.bin").open("rb") as mapped:
        store.remove("m", 1)
        assert mapped.read() == WEIGHTS


class _Waiting:
    """A bundle whose files come when they are let through."""

    def __init__(self, where: Path) -> None:
        self._source = source_of(where, LIMITS)
        self.asked, self.go = threading.Event(), threading.Event()
        self.shown = "slow"
        self.head = self._source.head
        self.lacks = self._source.lacks
        self.ignored = self._source.ignored
        self.close = self._source.close

    def contents(self, wanted: Collection[str]) -> Iterator[tuple[str, Iterable[bytes]]]:
        """Wait, then give them."""
        self.asked.set()
        assert self.go.wait(60.0)
        yield from self._source.contents(wanted)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def test_an_installation_that_hangs_holds_up_nothing_and_is_not_swept_away(tmp_path: Path) -> None:
    store = make(tmp_path)
    install(store, folder(tmp_path / "1", published()))
    source = _Waiting(folder(tmp_path / "2", published(version=2)))
    done: list[object] = []
    slow = threading.Thread(
        target=lambda: done.append(store.install(source, check=accept)), daemon=True
    )
    slow.start()
    assert source.asked.wait(60.0)
    install(store, folder(tmp_path / "3", published(version=3, files={"b.onnx": ONNX})))
    assert store.recover() == 0
    assert make(tmp_path).recover() == 0
    store.remove("m", 1)
    store.collect([("m", 3)])
    assert store.versions("m") == [3]
    source.go.set()
    slow.join(60.0)
    source.close()
    assert len(done) == 1
    assert store.versions("m") == [2, 3]
    store.verify("m", 2)


def test_two_installations_of_one_version_agree(tmp_path: Path) -> None:
    store = make(tmp_path)
    where = folder(tmp_path / "in", published())
    source = _Waiting(where)
    done: list[bool] = []
    slow = threading.Thread(
        target=lambda: done.append(store.install(source, check=accept).was_there), daemon=True
    )
    slow.start()
    assert source.asked.wait(60.0)
    assert not install(store, where).was_there
    source.go.set()
    slow.join(60.0)
    source.close()
    assert done == [True]
    store.verify("m", 1)
    assert store.recover() == 0
    assert not [*(tmp_path / "store" / "incoming").iterdir()]


# Somebody who may not do everything


def test_a_daemon_that_is_not_root_installs_mends_and_removes(folder_of_mine: Path) -> None:
    inside = folder_of_mine / "in"
    with unprivileged(folder_of_mine):
        store = make(folder_of_mine)
        done = install(store, folder(inside, published(signature=b"old")))
        with pytest.raises(PermissionError):
            (done.directory / "b.onnx").open("wb")
        with pytest.raises(PermissionError):
            (done.directory / "new").touch()
        install(store, folder(inside, published(signature=b"new")))
        assert store.head("m", 1)[1] == b"new"
        damage(done.directory / "b.onnx", b"xxxx")
        install(store, folder(inside, published()))
        store.verify("m", 1)
        install(store, folder(inside, published(version=2)))
        store.remove("m", 1)
        assert store.collect(()) > 0
        assert store.names() == []
        assert not [*(folder_of_mine / "store" / "incoming").iterdir()]


class Stubborn(Disk):
    """A disk on which one folder cannot be removed."""

    def remove_folder(self, path: Path) -> None:
        """Fail for that one."""
        if path.name == "new-0":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().remove_folder(path)


def test_what_cannot_be_removed_at_the_start_keeps_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(make(tmp_path), folder(tmp_path / "in", published()))
    incoming = tmp_path / "store" / "incoming"
    for number in range(3):
        folder(incoming / f"new-{number}", {"a/b": b"left", "c": b"left"})
    (incoming / "gone-1").symlink_to(tmp_path / "in")
    (incoming / "new-signature").write_bytes(b"left")
    stubborn = Store(tmp_path / "store", reserve_bytes=0, bundle_bytes=1, layer=Stubborn())
    assert stubborn.recover() == 0
    assert [path.name for path in incoming.iterdir()] == ["new-0"]
    assert any("the store cannot be cleaned up" in each.getMessage() for each in caplog.records)
    assert stubborn.versions("m") == [1]
    stubborn.verify("m", 1)
    assert (tmp_path / "in" / MANIFEST_FILE).exists()
