"""A version may be installed without what this device cannot use, and without what is there."""

import os
from pathlib import Path

import pytest

from edge_runtime.errors import ManifestError, ModelLoadError, StorageError
from edge_runtime.store.durable import Disk
from edge_runtime.store.partial import PARTIAL_FILE
from edge_runtime.store.store import Store
from tests.store_bundles import (
    ONNX,
    WEIGHTS,
    archive,
    contents,
    everything,
    folder,
    install,
    piped,
    published,
    without,
)

MIXED = published()  # v0 reads a/model.onnx and a/weights.bin, v1 reads b.onnx
FIRST = {"v0"}


def make(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", reserve_bytes=0, bundle_bytes=10**6)


def variants(store: Store, version: int = 1) -> list[str]:
    return [variant.name for variant in store.bundle("m", version).manifest.variants]


def blobs(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "store" / "blobs").iterdir())


@pytest.mark.parametrize("form", ["folder", "tar", "pipe"])
def test_what_only_other_variants_read_may_be_missing(form: str, tmp_path: Path) -> None:
    store = make(tmp_path)
    bundle = without(MIXED, "b.onnx")
    if form == "folder":
        done = install(store, folder(tmp_path / "in", bundle), FIRST)
    elif form == "tar":
        done = install(store, archive(tmp_path / "in.tar", bundle), FIRST)
    else:
        with piped(archive(tmp_path / "in.tar", bundle)) as reader:
            done = install(store, reader, FIRST)
    assert done.left_out == ("v1",)
    assert done.copied_bytes == sum(map(len, contents().values())) - len(ONNX)
    assert not (done.directory / "b.onnx").exists()
    assert variants(store) == ["v0"]
    assert len(store.verify("m", 1)) == 3
    assert store.bundle("m", 1).manifest_sha256 == done.manifest_sha256
    assert store.head("m", 1)[0] == MIXED["manifest.json"]
    for path in [done.directory, *done.directory.rglob("*")]:
        assert path.stat().st_mode & 0o222 == 0
    assert all(path.stat().st_nlink == 2 for path in blobs(tmp_path))


@pytest.mark.parametrize("missing", ["a/model.onnx", "a/weights.bin", "goldens/set_0/input_0.pb"])
def test_a_file_that_is_needed_must_be_there_and_the_refusal_names_it(
    missing: str, tmp_path: Path
) -> None:
    store = make(tmp_path)
    with pytest.raises(ModelLoadError, match=f"{missing} is missing"):
        install(store, folder(tmp_path / "in", without(MIXED, missing)), FIRST)
    assert store.names() == []
    assert not [*(tmp_path / "store" / "incoming").iterdir()]
    assert not blobs(tmp_path)


def test_a_bundle_that_lacks_nothing_is_installed_whole_whatever_is_needed(tmp_path: Path) -> None:
    store = make(tmp_path)
    done = install(store, folder(tmp_path / "in", MIXED), FIRST)
    assert done.left_out == ()
    assert variants(store) == ["v0", "v1"]
    assert not (done.directory / PARTIAL_FILE).exists()


def test_files_that_the_store_has_need_not_come(tmp_path: Path) -> None:
    store = make(tmp_path)
    install(store, folder(tmp_path / "1", MIXED))
    second = published(version=2, files=contents(golden=b"other"))
    brought = without(second, "a/model.onnx", "a/weights.bin", "b.onnx")
    done = install(store, folder(tmp_path / "2", brought))
    assert done.copied_bytes == len(b"other")
    assert done.left_out == ()
    assert len(store.verify("m", 2)) == 4


def test_a_content_of_the_store_that_is_damaged_does_not_stand_in_for_a_file(
    tmp_path: Path,
) -> None:
    store = make(tmp_path)
    first = install(store, folder(tmp_path / "1", MIXED))
    damaged = first.directory / "a" / "weights.bin"
    damaged.chmod(0o600)
    damaged.write_bytes(WEIGHTS[::-1])
    second = published(version=2, files=contents(golden=b"other"))
    with pytest.raises(ModelLoadError, match=r"a/weights\.bin is missing"):
        install(store, folder(tmp_path / "2", without(second, "a/weights.bin")))
    # It is asked for from then on.
    (weights,) = [file for file in first.manifest.files() if file.path == "a/weights.bin"]
    assert not store.blobs.has(weights)
    install(store, folder(tmp_path / "3", second))
    store.verify("m", 2)


def test_a_variant_of_which_a_part_came_is_left_out_as_a_whole(tmp_path: Path) -> None:
    files = {**contents(), "c/model.onnx": ONNX, "c/weights.bin": b"others"}
    bundle = published(files=files)
    store = make(tmp_path)
    done = install(store, folder(tmp_path / "in", without(bundle, "c/model.onnx")), FIRST)
    # b.onnx came, and c/model.onnx has the same content.
    assert done.left_out == ()
    store.collect(())
    bundle = published(files={**files, "c/model.onnx": ONNX * 2})
    done = install(store, folder(tmp_path / "2", without(bundle, "c/model.onnx")), FIRST)
    assert done.left_out == ("v2",)
    assert not (done.directory / "c" / "weights.bin").exists()
    assert len(blobs(tmp_path)) == 4
    assert all(path.stat().st_nlink == 2 for path in blobs(tmp_path))


def test_what_was_left_out_can_be_brought_later(tmp_path: Path) -> None:
    store = make(tmp_path)
    partial = folder(tmp_path / "partial", without(MIXED, "b.onnx"))
    first = install(store, partial, FIRST)
    inode = (first.directory / "a" / "model.onnx").stat().st_ino
    # The same again changes nothing.
    before = everything(tmp_path / "store")
    assert install(store, partial, FIRST).was_there
    assert everything(tmp_path / "store") == before
    done = install(store, folder(tmp_path / "whole", MIXED), FIRST)
    assert (done.was_there, done.copied_bytes, done.left_out) == (True, len(ONNX), ())
    assert variants(store) == ["v0", "v1"]
    assert len(store.verify("m", 1)) == 4
    assert (first.directory / "a" / "model.onnx").stat().st_ino == inode
    whole = everything(tmp_path / "store")
    assert all(mode & 0o222 == 0 for path, (mode, _, _) in whole.items() if "/1" in path)
    # And nothing takes it away again.
    assert install(store, partial, FIRST).was_there
    assert everything(tmp_path / "store") == whole


def test_variants_may_come_one_after_the_other(tmp_path: Path) -> None:
    files = {**contents(), "c.onnx": ONNX * 2, "d.onnx": ONNX * 3}
    bundle = published(files=files)
    store = make(tmp_path)
    for number, missing in enumerate([("b.onnx", "c.onnx", "d.onnx"), ("c.onnx", "d.onnx"), ()]):
        path = folder(tmp_path / str(number), without(bundle, *missing))
        done = install(store, path, FIRST)
        assert len(store.verify("m", 1)) == len(files) - len(missing)
        assert (done.directory / PARTIAL_FILE).exists() == bool(missing)
    assert variants(store) == ["v0", "v1", "v2", "v3"]


def test_a_device_that_needs_another_variant_than_is_there_is_told_what_is_missing(
    tmp_path: Path,
) -> None:
    """The disk was put into another device, for one."""
    store = make(tmp_path)
    partial = folder(tmp_path / "partial", without(MIXED, "b.onnx"))
    install(store, partial, FIRST)
    with pytest.raises(ModelLoadError, match=r"b\.onnx is missing"):
        install(store, partial, {"v1"})
    assert variants(store) == ["v0"]
    store.verify("m", 1)


@pytest.mark.parametrize("what", ["lost", "changed"])
def test_a_file_that_got_lost_is_not_taken_for_one_that_was_left_out(
    what: str, tmp_path: Path
) -> None:
    store = make(tmp_path)
    partial = folder(tmp_path / "partial", without(MIXED, "b.onnx"))
    done = install(store, partial, FIRST)
    weights = done.directory / "a" / "weights.bin"
    weights.parent.chmod(0o700)
    weights.chmod(0o600)
    if what == "lost":
        weights.unlink()
    else:
        weights.write_bytes(WEIGHTS[::-1])
    assert not install(store, partial, FIRST).was_there
    assert len(store.verify("m", 1)) == 3
    assert variants(store) == ["v0"]


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b'{"variants":[]}', b'{"variants":["x"]}', b"\xff", bytes(2**21)]
)
def test_a_record_that_is_lost_or_damaged_is_damage_that_installing_again_mends(
    content: bytes | None, tmp_path: Path
) -> None:
    store = make(tmp_path)
    partial = folder(tmp_path / "partial", without(MIXED, "b.onnx"))
    done = install(store, partial, FIRST)
    done.directory.chmod(0o700)
    (done.directory / PARTIAL_FILE).unlink()
    if content is not None:
        (done.directory / PARTIAL_FILE).write_bytes(content)
    with pytest.raises((ManifestError, ModelLoadError), match="m version 1"):
        store.bundle("m", 1)
    assert not install(store, partial, FIRST).was_there
    assert variants(store) == ["v0"]
    store.verify("m", 1)


def test_a_bundle_cannot_bring_a_record_of_its_own(tmp_path: Path) -> None:
    store = make(tmp_path)
    told = {**MIXED, PARTIAL_FILE: b'{"variants":["v0"]}'}
    done = install(store, folder(tmp_path / "in", told))
    assert done.ignored == (PARTIAL_FILE,)
    assert variants(store) == ["v0", "v1"]
    named = published(version=2, files={**contents(), PARTIAL_FILE: b"x"})
    with pytest.raises(ManifestError, match="the store keeps this name"):
        install(store, folder(tmp_path / "named", named))


def test_a_partial_version_is_removed_with_all_that_it_has(tmp_path: Path) -> None:
    store = make(tmp_path)
    install(store, folder(tmp_path / "partial", without(MIXED, "b.onnx")), FIRST)
    assert store.collect(()) > 0
    assert store.names() == []
    assert not blobs(tmp_path)


class _Small(Disk):
    """A disk with so many bytes free."""

    free = 0

    def free_bytes(self, path: Path) -> int:
        """Give what the test says."""
        assert path.is_dir()
        return self.free


def test_files_that_do_not_come_need_no_room(tmp_path: Path) -> None:
    large = published(files={**contents(), "b.onnx": ONNX * 10_000})
    partial = folder(tmp_path / "partial", without(large, "b.onnx"))
    whole = folder(tmp_path / "whole", large)
    _Small.free = 7 * 8192 + 12_000
    store = Store(tmp_path / "store", reserve_bytes=0, bundle_bytes=10**6, layer=_Small())
    with pytest.raises(StorageError, match="bytes on the disk"):
        install(store, whole, FIRST)
    assert install(store, partial, FIRST).left_out == ("v1",)
    # What was left out is refused for want of room; what is there stays.
    with pytest.raises(StorageError, match="bytes on the disk"):
        install(store, whole, FIRST)
    assert variants(store) == ["v0"]


# -- contents ------------------------------------------------------------------------------------


def test_a_content_is_opened_for_reading_only(tmp_path: Path) -> None:
    store = make(tmp_path)
    done = install(store, folder(tmp_path / "in", MIXED))
    for file in done.manifest.files():
        assert store.blobs.has(file)
        descriptor = store.blobs.open(file.sha256)
        assert descriptor is not None
        try:
            assert os.pread(descriptor, 10**6, 0) == MIXED[file.path]
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.write(descriptor, b"x")
            assert not os.get_inheritable(descriptor)
        finally:
            os.close(descriptor)


def test_nothing_is_there_of_a_content_that_is_not(tmp_path: Path) -> None:
    store = make(tmp_path)
    assert store.blobs.open("0" * 64) is None
    assert not (tmp_path / "store").exists()  # reading makes nothing
    install(store, folder(tmp_path / "in", MIXED))
    assert store.blobs.open("0" * 64) is None


def test_a_store_that_others_may_write_to_gives_nothing(tmp_path: Path) -> None:
    done = install(make(tmp_path), folder(tmp_path / "in", MIXED))
    (tmp_path / "store").chmod(0o777)
    blobs_of = make(tmp_path).blobs
    assert not any(blobs_of.has(file) for file in done.manifest.files())
