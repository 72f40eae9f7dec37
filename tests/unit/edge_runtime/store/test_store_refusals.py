"""What the store does not take, and whose folder it must be: after that nothing has changed."""

import errno
import os
import shutil
from pathlib import Path

import msgspec
import pytest

from edge_runtime import manifest
from edge_runtime.errors import (
    ArtifactError,
    DigestMismatchError,
    ManifestError,
    ModelLoadError,
    ModelNotFoundError,
    SignatureError,
    StorageError,
)
from edge_runtime.manifest import MANIFEST_FILE
from edge_runtime.store.durable import Disk
from edge_runtime.store.source import source_of
from edge_runtime.store.store import Store
from tests.lossy_disk import LossyDisk
from tests.store_bundles import (
    EXTERNAL,
    LIMITS,
    ONNX,
    archive,
    contents,
    described,
    everything,
    folder,
    install,
    published,
)


def make(tmp_path: Path, *, bundle_bytes: int = 10**6) -> Store:
    return Store(tmp_path / "store", reserve_bytes=0, bundle_bytes=bundle_bytes)


def in_store(tmp_path: Path) -> dict[str, tuple[int, int, bytes]]:
    return everything(tmp_path / "store")


OTHER = b"\x08\x09\x3a\x00"


def refuse(_manifest: bytes, _signature: bytes | None) -> None:
    raise SignatureError("not signed by anybody we know")


def test_what_the_check_refuses_is_not_written(tmp_path: Path) -> None:
    store = make(tmp_path)
    with (
        source_of(folder(tmp_path / "in", published()), LIMITS) as source,
        pytest.raises(SignatureError),
    ):
        store.install(source, check=refuse)
    assert not [*tmp_path.glob("store/**/*")]


def test_the_check_sees_the_exact_bytes(tmp_path: Path) -> None:
    seen: list[tuple[bytes, bytes | None]] = []
    bundle = published(signature=b"\x00\xff")
    with source_of(archive(tmp_path / "in.tar", bundle), LIMITS) as source:
        make(tmp_path).install(source, check=lambda *head: seen.append(head))
    assert seen == [(bundle[MANIFEST_FILE], b"\x00\xff")]


def _unnamed_weights() -> dict[str, bytes]:
    files = contents()
    silent = described(files).variants[0]
    made = msgspec.structs.replace(
        described(files),
        variants=(msgspec.structs.replace(silent, files=()), described(files).variants[1]),
    )
    return {MANIFEST_FILE: manifest.write(made), **files}


def _without(name: str) -> dict[str, bytes]:
    return {path: data for path, data in published().items() if path != name}


BAD: dict[str, tuple[dict[str, bytes], type[ArtifactError], str]] = {
    "no manifest": (contents(), ModelLoadError, "manifest.json"),
    "bad manifest": ({**published(), MANIFEST_FILE: b"{"}, ManifestError, "manifest.json: "),
    "synthetic": (
        {MANIFEST_FILE: b'{"name":"m","version":1,"variants":[{"name":"v","file":"f"}]}'},
        ManifestError,
        "inputs: a published bundle must list",
    ),
    "large manifest": (
        {**published(), MANIFEST_FILE: b" " * 1_048_577},
        ManifestError,
        "over 1048576 bytes",
    ),
    "large signature": (published(signature=b"x" * 65_537), ManifestError, "over 65536 bytes"),
    "missing file": (_without("b.onnx"), ModelLoadError, "b.onnx is missing"),
    "missing folder": (_without("goldens/set_0/input_0.pb"), ModelLoadError, "pb is missing"),
    "longer": ({**published(), "b.onnx": ONNX + b"1"}, DigestMismatchError, "more than 4 bytes"),
    "shorter": ({**published(), "b.onnx": ONNX[:-1]}, DigestMismatchError, "3 bytes instead of 4"),
    "other": ({**published(), "b.onnx": ONNX[::-1]}, DigestMismatchError, "SHA-256"),
    "no onnx": (published(files={"m.onnx": b"<html>"}), ModelLoadError, "not an ONNX model"),
    "unnamed weights": (_unnamed_weights(), ManifestError, "reads weights.bin, which the manif"),
    "leads out": (
        published(files={"m.onnx": EXTERNAL.replace(b"weights.bin", b"../../../ab")}),
        ModelLoadError,
        "not a file name within its folder",
    ),
    "long name": (published(files={f"{'n' * 256}.onnx": ONNX}), ManifestError, "too long"),
    "too large": (published(files={"m.onnx": ONNX, "g": b"x" * 10**6}), ManifestError, "1000004"),
    "in the manifest": (
        published(files={"m.onnx": ONNX, "manifest.json/x": b"x"}),
        ManifestError,
        "manifest.json is not a folder",
    ),
}


@pytest.mark.parametrize("form", ["folder", "archive"])
@pytest.mark.parametrize("bad", BAD)
def test_a_bad_bundle_is_refused_and_changes_nothing(bad: str, form: str, tmp_path: Path) -> None:
    store = make(tmp_path)
    install(store, folder(tmp_path / "good", published("other", files={"x.onnx": OTHER})))
    before = in_store(tmp_path)
    files, error, why = BAD[bad]
    if form == "archive":
        where = archive(tmp_path / "in.tar", files)
    else:
        if bad in {"long name", "in the manifest"}:
            files = {MANIFEST_FILE: files[MANIFEST_FILE]}  # no folder can hold the rest
        where = folder(tmp_path / "in", files)
    with pytest.raises(error) as caught:
        install(store, where)
    assert why in caught.value.message
    assert in_store(tmp_path) == before
    assert store.names() == ["other"]


def test_a_bundle_over_the_limit_of_the_store_is_refused(tmp_path: Path) -> None:
    store = make(tmp_path, bundle_bytes=1000)
    with pytest.raises(ManifestError, match=r"over 1000 \(release\.bundle_bytes\)"):
        install(store, folder(tmp_path / "in", published()))


def test_a_bundle_that_would_use_the_reserve_is_refused(tmp_path: Path) -> None:
    disk = LossyDisk(tmp_path, free=100_000)
    store = Store(tmp_path / "store", reserve_bytes=45_000, bundle_bytes=10**6, layer=disk)
    with pytest.raises(StorageError, match="45000 are to stay free"):
        install(store, folder(tmp_path / "in", published()))
    assert store.names() == []
    assert not [*(tmp_path / "store" / "incoming").iterdir()]
    smaller = Store(tmp_path / "store", reserve_bytes=1000, bundle_bytes=10**6, layer=disk)
    install(smaller, folder(tmp_path / "in", published()))
    # What is in the store already needs no room.
    disk._free = 95_000
    more = Store(tmp_path / "store", reserve_bytes=40_000, bundle_bytes=10**6, layer=disk)
    install(more, folder(tmp_path / "in", published(version=2)))


# Whose folder it is


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_store_that_others_may_write_to_is_not_used(mode: int, tmp_path: Path) -> None:
    store = make(tmp_path)
    install(store, folder(tmp_path / "in", published()))
    (tmp_path / "store").chmod(mode)
    planted = make(tmp_path)
    assert planted.names() == []
    assert planted.recover() == 0
    with pytest.raises(StorageError, match="only the daemon's user may write to"):
        planted.bundle("m", 1)
    before = in_store(tmp_path)
    for act in (
        lambda: install(planted, folder(tmp_path / "in", published(version=2))),
        lambda: planted.collect(()),
    ):
        with pytest.raises(StorageError, match="only the daemon's user may write to"):
            act()
    assert in_store(tmp_path) == before


def test_a_link_in_place_of_the_store_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "store").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError):
        install(make(tmp_path), folder(tmp_path / "in", published()))
    assert not [*(tmp_path / "elsewhere").iterdir()]


def test_a_store_that_nobody_asked_anything_of_makes_nothing(tmp_path: Path) -> None:
    store = make(tmp_path)
    assert store.recover() == 0
    assert store.names() == []
    assert store.versions("m") == []
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "m", "-"])
@pytest.mark.parametrize("version", [0, -1, 2, 10**30])
def test_what_is_not_installed_is_not_found(name: str, version: int, tmp_path: Path) -> None:
    store = make(tmp_path)
    install(store, folder(tmp_path / "in", published()))
    before = in_store(tmp_path)
    for call in ("bundle", "verify", "head", "remove"):
        with pytest.raises(ModelNotFoundError, match="is not in the store"):
            getattr(store, call)(name, version)
    assert in_store(tmp_path) == before


def test_a_folder_that_is_no_version_is_not_one(tmp_path: Path) -> None:
    store = make(tmp_path)
    done = install(store, folder(tmp_path / "in", published()))
    models = tmp_path / "store" / "models"
    for path in ("m/01", "m/x", "m/2", ".hidden/1", "m/0"):
        (models / path).mkdir(parents=True)
        if path != "m/2":
            (models / path / MANIFEST_FILE).write_bytes(
                (done.directory / MANIFEST_FILE).read_bytes()
            )
    (models / "linked").symlink_to(models / "m")
    (models / "m" / "3").symlink_to(done.directory)
    assert store.names() == ["m"]
    assert store.versions("m") == [1]
    shutil.copytree(done.directory, models / "m" / "7")
    with pytest.raises(ManifestError, match="is another one by its manifest: m version 1"):
        store.bundle("m", 7)


class Linkless(Disk):
    """A file system that has no hard links."""

    def link(self, source: Path, target: Path) -> None:
        """Refuse it."""
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), source, None, target)


def test_a_file_system_without_hard_links_only_costs_space(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", reserve_bytes=0, bundle_bytes=10**6, layer=Linkless())
    for version in (1, 2):
        files = {**contents(), "again/b.onnx": ONNX}
        done = install(store, folder(tmp_path / "in", published(version=version, files=files)))
        assert done.reused_bytes == 0
        store.verify("m", version)
    assert store.recover() == 0
    assert store.collect([("m", 2)]) > 0
    store.verify("m", 2)
