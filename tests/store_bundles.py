"""Small bundles to install, as folders and as tar files."""

import hashlib
import io
import os
import socket
import tarfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edge_runtime import manifest
from edge_runtime.manifest import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    Acceptance,
    File,
    Manifest,
    TensorDescription,
    Variant,
)
from edge_runtime.store.installed import Installed
from edge_runtime.store.reading import BundleSource, SourceLimits
from edge_runtime.store.source import source_of
from edge_runtime.store.store import Store

ONNX = b"\x08\x0a\x3a\x00"  # ir_version 10 and an empty graph
# The same with one initializer in weights.bin.
_ENTRY = b"\x0a\x08location\x12\x0bweights.bin"
_TENSOR = b"\x6a" + bytes([len(_ENTRY)]) + _ENTRY
EXTERNAL = b"\x3a" + bytes([len(_TENSOR) + 2]) + b"\x2a" + bytes([len(_TENSOR)]) + _TENSOR
WEIGHTS = b"weights " * 1000
LIMITS = SourceLimits(bundle_bytes=1_000_000, stall_s=5.0, read_s=5.0)

Files = Mapping[str, bytes]


def contents(golden: bytes = b"golden") -> dict[str, bytes]:
    """Give the files of a bundle with two variants and one golden."""
    return {
        "a/model.onnx": EXTERNAL,
        "a/weights.bin": WEIGHTS,
        "b.onnx": ONNX,
        "goldens/set_0/input_0.pb": golden,
    }


def described(files: Files, name: str = "m", version: int = 1) -> Manifest:
    """Describe files: those named .onnx are variants, weights belong to the one beside them."""
    named = {
        path: File(path, hashlib.sha256(data).hexdigest(), len(data))
        for path, data in files.items()
    }
    variants: list[Variant] = []
    for path, file in named.items():
        if path.endswith(".onnx"):
            beside = named.get(path.rpartition("/")[0] + "/weights.bin")
            variants.append(
                Variant(
                    f"v{len(variants)}",
                    path,
                    file.sha256,
                    file.size_bytes,
                    (beside,) if beside else (),
                )
            )
    read = {file.path for variant in variants for file in variant.reads()}
    tensor = TensorDescription("x", "FP32", (-1,))
    return Manifest(
        name=name,
        version=version,
        inputs=(tensor,),
        outputs=(tensor,),
        variants=tuple(variants),
        acceptance=Acceptance(tuple(file for path, file in named.items() if path not in read)),
    )


def published(
    name: str = "m",
    version: int = 1,
    files: Files | None = None,
    signature: bytes | None = None,
) -> dict[str, bytes]:
    """Give all files of a bundle, its manifest first."""
    files = contents() if files is None else files
    head = {MANIFEST_FILE: manifest.write(described(files, name, version))}
    if signature is not None:
        head[SIGNATURE_FILE] = signature
    return {**head, **files}


def folder(path: Path, bundle: Files) -> Path:
    """Write a bundle as a folder."""
    for name, data in bundle.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def archive(
    path: Path,
    bundle: Files,
    form: int = tarfile.PAX_FORMAT,
    change: Callable[[tarfile.TarInfo], None] = lambda _: None,
) -> Path:
    """Write a bundle as a tar file, its files in the order given."""
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in bundle.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            change(entry)
            tar.addfile(entry, io.BytesIO(data))
    return path


@contextmanager
def piped(path: Path, *, over_socket: bool = False) -> Iterator[int]:
    """Send a file through a pipe or a socket."""
    if over_socket:
        ends = socket.socketpair()
        reader, writer = (each.detach() for each in ends)
    else:
        reader, writer = os.pipe()

    def send() -> None:
        data = memoryview(path.read_bytes())
        with open(writer, "wb", buffering=0) as file:  # noqa: PTH123
            try:
                while data:
                    data = data[file.write(data) :]
            except BrokenPipeError:  # nobody wants the rest
                pass

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield reader
    finally:
        os.close(reader)
        thread.join(60.0)
        assert not thread.is_alive()


def taken(source: BundleSource, *wanted: str) -> dict[str, bytes]:
    """Read files of a bundle."""
    return {path: b"".join(chunks) for path, chunks in source.contents(wanted)}


def accept(_manifest: bytes, _signature: bytes | None) -> None:
    """Let every bundle in."""


def install(store: Store, where: Path | int, needed: Collection[str] | None = None) -> Installed:
    """Install a bundle, whoever signed it; of all variants, or of those that are needed."""
    with source_of(where, LIMITS) as source:
        if needed is None:
            return store.install(source, check=accept)
        return store.install(source, check=accept, needed=lambda _: needed)


def without(bundle: Files, *paths: str) -> dict[str, bytes]:
    """Leave files out of a bundle."""
    return {path: data for path, data in bundle.items() if path not in paths}


def everything(path: Path) -> dict[str, tuple[int, int, bytes]]:
    """Give mode, number of names and content of all that is below a folder."""
    return {
        str(each.relative_to(path)): (
            each.lstat().st_mode,
            each.lstat().st_nlink,
            each.read_bytes() if each.is_file() else b"",
        )
        for each in sorted(path.rglob("*"))
    }
