"""One version of a model on disk: a plain model file, or a bundle directory with a manifest.

The catalog loads bundles and nothing else. A plain model file becomes one through a synthetic
manifest. Everything here reads the disk: the daemon calls it off the event loop.
"""

import os
import stat
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from edge_runtime.digest import file_sha256
from edge_runtime.errors import DigestMismatchError, ManifestError, ModelLoadError
from edge_runtime.external_data import external_files
from edge_runtime.manifest import (
    MANIFEST_FILE,
    MAX_BYTES,
    File,
    Manifest,
    Variant,
    check_complete,
    check_file_name,
    check_model_name,
    read,
)

SYNTHETIC_VARIANT: Final = "as-is"


@dataclass(frozen=True, slots=True)
class Bundle:
    """One version of a model on disk.

    Attributes:
        manifest: What it is; synthetic (no digests, no tensors) for a plain model file; without
            the variants that were left out of the folder on purpose.
        directory: Folder that the manifest's paths are relative to.
        manifest_sha256: Of the exact bytes that the manifest was read from; empty: synthetic.
    """

    manifest: Manifest
    directory: Path
    manifest_sha256: str = ""


def bundle_from_model_file(path: Path, name: str, version: int = 1, shown: str = "") -> Bundle:
    """Make a synthetic bundle of one model file and the external weights it names.

    Args:
        path: The ONNX file.
        name: The model's name.
        version: Its version.
        shown: How messages call the file; empty: the path.

    Returns:
        A bundle with one variant, with sizes and without digests.

    Raises:
        ManifestError: The name is not a model name.
        ModelLoadError: The file is missing, unreadable, a folder or not an ONNX model, or its
            weights are missing or outside its folder.
    """
    shown = shown or str(path)
    check_model_name(name)
    size_bytes = _regular_file(path, shown)
    weights = [
        File(file, size_bytes=_regular_file(path.parent / file, f"{file}, weights of {shown},"))
        for file in external_files(path, shown)
    ]
    try:
        check_file_name(path.name)
    except ManifestError as error:
        raise ModelLoadError(f"{shown}: {error.message}; rename the file") from error
    variant = Variant(SYNTHETIC_VARIANT, path.name, size_bytes=size_bytes, files=tuple(weights))
    return Bundle(Manifest(name=name, version=version, variants=(variant,)), path.parent)


def bundle_from_directory(
    path: Path, shown: str = "", variants: Collection[str] | None = None
) -> Bundle:
    """Read a bundle directory; its files must be there with the right sizes.

    Args:
        path: Folder that holds ``manifest.json``.
        shown: How messages call the folder; empty: the path.
        variants: Names of the variants that are there; ``None``: all of them.

    Raises:
        ManifestError: The manifest cannot be read, states too little, or names a file that leads
            out of the folder.
        ModelLoadError: A file is missing or cannot be read.
        DigestMismatchError: A file has another size.
    """
    shown = shown or str(path)
    origin = f"{shown}/{MANIFEST_FILE}"
    _regular_file(path / MANIFEST_FILE, origin)
    try:
        with (path / MANIFEST_FILE).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ManifestError(unreadable(origin, error)) from error
    manifest = read(data, origin)
    check_complete(manifest, origin)
    manifest = with_variants(manifest, variants, origin)
    for entry in manifest.files():
        _check_size(path, entry, shown)
    return Bundle(manifest, path, sha256(data).hexdigest())


def with_variants(manifest: Manifest, names: Collection[str] | None, origin: str) -> Manifest:
    """Leave some variants in a manifest, in its order.

    Args:
        manifest: Of a version.
        names: Of those that stay; ``None``: all.
        origin: Where the manifest comes from, for messages.

    Raises:
        ManifestError: It has none of them.
    """
    if names is None:
        return manifest
    kept = tuple(variant for variant in manifest.variants if variant.name in names)
    if not kept:
        raise ManifestError(f"{origin}: none of its variants is there; install it again")
    return msgspec.structs.replace(manifest, variants=kept)


def verify(bundle: Bundle, variant: Variant | None = None) -> tuple[tuple[str, int, str], ...]:
    """Hash the files of a bundle and compare them with its manifest.

    Args:
        bundle: The bundle; digests that a synthetic manifest leaves open are not compared.
        variant: Only the files that this variant's session reads; ``None``: every file named.

    Returns:
        Path, size in bytes and SHA-256 of each file as found: what ``digest.variant_digest`` takes.

    Raises:
        DigestMismatchError: A file is not the one the manifest names.
        ManifestError: The model file reads weights that the manifest does not name, or a file
            leads out of the folder.
        ModelLoadError: A file is missing or cannot be read, or is not an ONNX model.
    """
    shown = f"{bundle.manifest.name} version {bundle.manifest.version}"
    found: list[tuple[str, int, str]] = []
    for file in bundle.manifest.files() if variant is None else variant.reads():
        size_bytes = _check_size(bundle.directory, file, shown)
        sha256 = file_sha256(bundle.directory / file.path, f"{shown}: {file.path}")
        if file.sha256 not in {"", sha256}:
            raise DigestMismatchError(
                f"{shown}: {file.path} has SHA-256 {sha256}, the manifest says {file.sha256}; "
                "install the bundle again"
            )
        found.append((file.path, size_bytes, sha256))
    for one in bundle.manifest.variants if variant is None else (variant,):
        _check_weights(bundle.directory, one, shown)
    return tuple(found)


def file_status(path: Path, shown: str) -> os.stat_result:
    """Look at a file or folder, through links.

    Args:
        path: What to look at.
        shown: How messages call it.

    Raises:
        ModelLoadError: It is not there, or may not be looked at.
    """
    try:
        return path.stat()
    except FileNotFoundError as error:
        raise ModelLoadError(f"{shown} does not exist; check the path") from error
    except (OSError, ValueError) as error:
        raise ModelLoadError(unreadable(shown, error)) from error


def unreadable(shown: str, error: OSError | ValueError) -> str:
    """Say that the system refused to read something.

    Args:
        shown: What it is called.
        error: What the system said; its own text would add a path of the device.
    """
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"cannot read {shown}: {reason}; check the path and its permissions"


def _regular_file(path: Path, shown: str) -> int:
    """Return a file's size in bytes; folders, pipes and devices are no models."""
    status = file_status(path, shown)
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise ModelLoadError(f"{shown} is {what}; a file is needed there")
    return status.st_size


def _check_size(directory: Path, file: File, shown: str) -> int:
    """Return the size of a bundle's file, if it is there and as large as the manifest says."""
    path = directory / file.path
    size_bytes = _regular_file(path, f"{shown}: {file.path}")
    if not path.resolve().is_relative_to(directory.resolve()):
        raise ManifestError(f"{shown}: {file.path} is a link that leaves the bundle; copy the file")
    # Without a digest the manifest is synthetic, and its size only what was there some time ago.
    if file.sha256 and size_bytes != file.size_bytes:
        raise DigestMismatchError(
            f"{shown}: {file.path} has {size_bytes} bytes, the manifest says {file.size_bytes}; "
            "install the bundle again"
        )
    return size_bytes


def _check_weights(directory: Path, variant: Variant, shown: str) -> None:
    """Refuse a model file that reads weights its manifest does not name."""
    folder = PurePosixPath(variant.file).parent
    named = {file.path for file in variant.files}
    for location in external_files(directory / variant.file, f"{shown}: {variant.file}"):
        if str(folder / location) not in named:
            raise ManifestError(
                f"{shown}: {variant.file} reads {location}, which the manifest does not name in "
                f"the files of variant {variant.name}; build the bundle again"
            )
