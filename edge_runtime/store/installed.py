"""What is known of a version that is in the store, and its two small files."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from edge_runtime.manifest import MANIFEST_FILE, MAX_BYTES, SIGNATURE_FILE, Manifest
from edge_runtime.store.installation import Copied
from edge_runtime.store.reading import SIGNATURE_BYTES_MAX, BundleSource


@dataclass(frozen=True, slots=True)
class Installed:
    """A version that is in the store.

    Attributes:
        name: The model.
        version: Its version.
        manifest: What it is.
        manifest_sha256: Of the manifest's exact bytes.
        directory: Its folder.
        was_there: Whether it had been installed before.
        copied_bytes: Bytes that this installation wrote.
        reused_bytes: Bytes that other versions had already.
        left_out: Names of the variants that this installation left out.
        ignored: Some of the files in the bundle that the manifest does not name.
    """

    name: str
    version: int
    manifest: Manifest
    manifest_sha256: str
    directory: Path
    was_there: bool = False
    copied_bytes: int = 0
    reused_bytes: int = 0
    left_out: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def told(
    installed: Installed,
    source: BundleSource,
    *,
    was_there: bool = False,
    copied: Copied | None = None,
) -> Installed:
    """Complete what is told of an installation.

    Args:
        installed: What is known by the manifest alone.
        source: The bundle, which was read.
        was_there: Whether nothing had to be done.
        copied: What was done.
    """
    known = {file.path for file in installed.manifest.files()} | {MANIFEST_FILE, SIGNATURE_FILE}
    moved = copied or Copied(0, 0)
    return replace(
        installed,
        was_there=was_there,
        copied_bytes=moved.copied_bytes,
        reused_bytes=moved.reused_bytes,
        left_out=moved.left_out,
        # A name on disk may be any bytes; what is told is text.
        ignored=tuple(
            os.fsencode(path).decode("utf-8", "replace") for path in source.ignored(known)
        ),
    )


class _Key(msgspec.Struct, frozen=True):
    """What every manifest says, however new its schema is."""

    name: str
    version: int


def manifest_bytes(directory: Path) -> bytes:
    """Read the exact bytes of a version's manifest.

    Raises:
        OSError: It cannot be read.
    """
    return _small(directory / MANIFEST_FILE, MAX_BYTES)


def signature_bytes(directory: Path) -> bytes | None:
    """Read the exact bytes of a version's signature; ``None``: it has none.

    Raises:
        OSError: It cannot be read.
    """
    try:
        return _small(directory / SIGNATURE_FILE, SIGNATURE_BYTES_MAX)
    except FileNotFoundError:
        return None


def says(manifest: bytes, name: str, version: int) -> bool:
    """Tell whether something is a manifest of a version, perhaps of a schema we do not know."""
    try:
        key = msgspec.json.decode(manifest, type=_Key)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return (key.name, key.version) == (name, version)


def _small(path: Path, limit_bytes: int) -> bytes:
    with path.open("rb") as file:
        return file.read(limit_bytes + 1)
