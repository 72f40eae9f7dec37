"""Puts bundles in their place as a whole, as a folder or a tar file, and reads them back."""

import io
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import IO, Final, NamedTuple

from edge_runtime.bundle import Bundle
from edge_runtime.errors import ArtifactError, ConfigError, ManifestError
from edge_runtime.manifest import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    Manifest,
    check_complete,
    read,
)
from edge_runtime.private_folder import sync
from edge_runtime.store.reading import BundleSource, SourceLimits
from edge_runtime.store.source import source_of
from edge_runtime.store.unpacking import unpack

TAR: Final = ".tar"
LIMITS: Final = SourceLimits(bundle_bytes=2**40)
"""Of a bundle that somebody names by hand: larger than any disk it would be made on."""

_FIRST: Final[tuple[str, ...]] = (MANIFEST_FILE, SIGNATURE_FILE)
_FILE_MODE: Final = 0o644


class Head(NamedTuple):
    """What a bundle says of itself; nothing of it was verified.

    Attributes:
        manifest: What its manifest says.
        data: The manifest's exact bytes.
        signature: Those of its signature file; ``None``: there is none.
    """

    manifest: Manifest
    data: bytes
    signature: bytes | None


# -- writing -------------------------------------------------------------------------------------


def check_place(output: Path, *, force: bool) -> None:
    """Refuse a place that a bundle may not take: asked before anything is made.

    Args:
        output: The folder or tar file to be written.
        force: Whether a bundle that is there may be replaced.

    Raises:
        ConfigError: It may not.
    """
    if output.name in {"", ".."}:
        raise ConfigError(f"{output} cannot be a bundle; name a folder or a tar file to be made")
    if not output.absolute().parent.is_dir():
        raise ConfigError(f"{output.parent} is not a folder; make it, or choose another --output")
    try:
        mode = output.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"cannot look at {output}: {error.strerror or error}") from error
    if not force:
        raise ConfigError(f"{output} is there already; --force replaces it")
    if output.suffix == TAR:
        replaceable = stat.S_ISREG(mode)
    else:
        replaceable = stat.S_ISDIR(mode) and (
            (output / MANIFEST_FILE).is_file() or not any(output.iterdir())
        )
    if not replaceable:
        raise ConfigError(f"{output} is not a bundle; choose another --output")


@contextmanager
def new_bundle(output: Path) -> Iterator[Path]:
    """Fill a folder that takes its place as a whole, as it is or as a tar; or leaves no trace.

    Args:
        output: The place; ``check_place`` had nothing against it.

    Yields:
        An empty folder beside it.

    Raises:
        ConfigError: The place cannot be written to.
    """
    output = output.absolute()
    folder = output.with_name(f".{output.name}.{token_hex(4)}.new")
    try:
        folder.mkdir()
        try:
            yield folder
            for path in folder.rglob("*"):
                sync(path)
            if output.suffix == TAR:
                with _new_file(output) as file:
                    _pack(folder, file)
            else:
                _put(folder, output)
            sync(output.parent)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise ConfigError(f"cannot write {output}: {error.strerror or error}") from error


def replace_file(path: Path, data: bytes) -> None:
    """Put a small file in place, whole or not at all.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        with _new_file(path.absolute()) as file:
            file.write(data)
        sync(path.absolute().parent)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error


def add_signature(path: Path, signature: bytes) -> None:
    """Put ``manifest.sig`` into a bundle, in place of the one that is there.

    Args:
        path: A folder, or a tar file, which is written anew.
        signature: The file's content.

    Raises:
        ConfigError: It cannot be written.
    """
    if path.is_dir():
        replace_file(path / SIGNATURE_FILE, signature)
        return
    try:
        with tarfile.open(path, "r:") as before, _new_file(path.absolute()) as file:
            _with_signature(before, file, signature)
        sync(path.absolute().parent)
    except (OSError, tarfile.TarError) as error:
        raise ConfigError(f"cannot write {path}: {error}") from error


def _with_signature(before: tarfile.TarFile, file: IO[bytes], signature: bytes) -> None:
    """Copy a tar, its manifest first, the signature behind it."""
    members = {member.name.removeprefix("./"): member for member in before.getmembers()}
    ordered = [MANIFEST_FILE, *(name for name in members if name not in _FIRST)]
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as after:
        for name in ordered:
            after.addfile(members[name], before.extractfile(members[name]))
            if name == MANIFEST_FILE:
                entry = _entry(SIGNATURE_FILE, len(signature))
                after.addfile(entry, io.BytesIO(signature))


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that takes its place as a whole, or leaves no trace."""
    partial = path.with_name(f".{path.name}.{token_hex(4)}.new")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def _put(folder: Path, output: Path) -> None:
    """Move a folder into its place. What stood there is kept until the new one stands."""
    if not output.exists():
        folder.rename(output)
        return
    old = output.with_name(f".{output.name}.{token_hex(4)}.old")
    output.rename(old)
    try:
        folder.rename(output)
    except BaseException:
        old.rename(output)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _pack(folder: Path, file: IO[bytes]) -> None:
    """Write a folder as a tar, the same bytes for the same files, the manifest first."""
    names = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    ordered = [name for name in _FIRST if name in names]
    ordered += [name for name in names if name not in _FIRST]
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ordered:
            entry = _entry(name, (folder / name).stat().st_size)
            with (folder / name).open("rb") as content:
                archive.addfile(entry, content)


def _entry(name: str, size_bytes: int) -> tarfile.TarInfo:
    """Describe a file; it belongs to nobody and was made at no time."""
    entry = tarfile.TarInfo(name)
    entry.size = size_bytes
    entry.mode = _FILE_MODE
    return entry


# -- reading -------------------------------------------------------------------------------------


def opened(path: Path) -> BundleSource:
    """Open a bundle that somebody named: a folder or a tar.

    Raises:
        ConfigError: There is nothing at that place that could be one.
    """
    try:
        return source_of(path, LIMITS, is_waited_for=True)
    except ArtifactError as error:
        raise ConfigError(error.message) from error


def read_head(path: Path) -> Head:
    """Read what a bundle says of itself.

    Args:
        path: A folder, or a tar file.

    Raises:
        ConfigError: There is no bundle at that place.
        ArtifactError: Its manifest cannot be read, or states too little.
    """
    if path.is_dir() and not (path / MANIFEST_FILE).exists():
        raise ConfigError(f"{path} is not a bundle: it has no {MANIFEST_FILE}")
    with opened(path) as source:
        data, signature = source.head()
    return Head(_manifest(data, path), data, signature)


@contextmanager
def unpacked(path: Path) -> Iterator[tuple[Bundle, Head]]:
    """Give a bundle whose files can be read: in its place, or a tar's in a temporary folder.

    Args:
        path: A folder, or a tar file.

    Raises:
        ConfigError: There is no bundle at that place, or no room for a tar's files.
        ArtifactError: Its manifest cannot be read or states too little, or the tar lacks a file
            or holds one of another size.
    """
    head = read_head(path)
    if path.is_dir():
        yield Bundle(head.manifest, path), head
        return
    with TemporaryDirectory(prefix="edge-runtime-") as temporary, opened(path) as source:
        data, _ = source.head()
        if data != head.data:
            raise ManifestError(f"{path} changed while it was read")
        _unpack(source, head.manifest, data, Path(temporary))
        yield Bundle(head.manifest, Path(temporary)), head


def _manifest(data: bytes, path: Path) -> Manifest:
    origin = f"{path}: {MANIFEST_FILE}"
    manifest = read(data, origin)
    check_complete(manifest, origin)
    return manifest


def _unpack(source: BundleSource, manifest: Manifest, data: bytes, folder: Path) -> None:
    """Copy what the manifest names, and the manifest."""
    try:
        (folder / MANIFEST_FILE).write_bytes(data)
        unpack(source, manifest, folder)
    except OSError as error:
        raise ConfigError(
            f"cannot unpack {source.shown} in {folder}: {error.strerror or error}; $TMPDIR says "
            "where else"
        ) from error
