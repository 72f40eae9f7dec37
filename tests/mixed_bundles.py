"""Bundles of which a device needs only a part."""

import hashlib
import shutil
from pathlib import Path

import msgspec

from edge_runtime.manifest import MANIFEST_FILE, File, Requires, Variant, read, write
from tests.release_device import bundle
from tests.store_bundles import ONNX

OTHER_CPU = Requires(arch="pdp11")


def mixed(folder: Path, version: int = 2) -> Path:
    """Write a bundle with a variant for this CPU, and one for another, with weights of its own."""
    bundle(folder, version)
    (folder / "other.onnx").write_bytes(ONNX)
    (folder / "other.bin").write_bytes(b"its weights")
    described = read((folder / MANIFEST_FILE).read_bytes(), "test")
    model, weights = (file_of(folder / name) for name in ("other.onnx", "other.bin"))
    other = Variant("other", model.path, model.sha256, model.size_bytes, (weights,), OTHER_CPU)
    described = msgspec.structs.replace(described, variants=(other, *described.variants))
    (folder / MANIFEST_FILE).write_bytes(write(described))
    return folder


def file_of(path: Path) -> File:
    data = path.read_bytes()
    return File(path.name, hashlib.sha256(data).hexdigest(), len(data))


def brought(whole: Path, folder: Path, *names: str) -> Path:
    """Give a folder with some of a bundle's files, as the agent does."""
    folder.mkdir()
    for name in (MANIFEST_FILE, *names):
        shutil.copy(whole / name, folder / name)
    return folder
