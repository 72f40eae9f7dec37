"""Where things lie in the store, and which names a bundle may use there.

::

    <store>/blobs/<sha256>              every file's content once (0444)
            models/<name>/<version>/    the bundle, each file a hard link to its blob (0555);
                                        which variants are there: see ``partial``
            incoming/new-*/             being installed; locked for as long as its maker lives
                     gone-*/            being removed

Everything changes place by renaming, so a version is there as a whole or not at all. What lies in
``incoming`` is nobody's after a crash.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge_runtime.errors import ManifestError
from edge_runtime.manifest import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    Manifest,
    check_model_name,
    parse_version,
)
from edge_runtime.store.partial import PARTIAL_FILE

FOLDER: Final = "store"
"""In the state directory."""

FILE_MODE: Final = 0o444
VERSION_MODE: Final = 0o555

_PART_BYTES_MAX: Final = 255
"""Of one part of a path, on every file system of Linux."""
_PATH_BYTES_MAX: Final = 2048
"""Of a path in a bundle; with the store's own folder it stays under the system's 4096."""


class Layout:
    """Paths in the store.

    Args:
        root: The store's folder.

    Attributes:
        root: The store's folder.
        blobs: Every file's content, by its SHA-256.
        models: A folder for each model.
        incoming: What is being installed or removed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs"
        self.models = root / "models"
        self.incoming = root / "incoming"

    def version(self, name: str, version: int) -> Path:
        """Give the folder of a version.

        Raises:
            ManifestError: It is not a model's name, or not a version.
        """
        check_model_name(name)
        return self.models / name / str(parse_version(str(version)))

    def blob(self, sha256: str) -> Path:
        """Give the file that holds a content."""
        return self.blobs / sha256

    def new(self) -> Path:
        """Think of a folder for a version that is being installed."""
        return self.incoming / f"new-{os.urandom(8).hex()}"

    def gone(self) -> Path:
        """Think of a folder for a version that is being removed."""
        return self.incoming / f"gone-{os.urandom(8).hex()}"

    def installed(self) -> Iterator[tuple[str, int, Path]]:
        """Look for every version that is at its place: name, version and folder, in order.

        Raises:
            OSError: The store cannot be read.
        """
        for name in sorted(_entries(self.models)):
            for version in sorted(self.versions(name)):
                yield name, version, self.version(name, version)

    def versions(self, name: str) -> list[int]:
        """Look for the versions of a model that are at their place.

        Raises:
            OSError: The store cannot be read.
        """
        try:
            check_model_name(name)
        except ManifestError:
            return []  # not of our making
        found = []
        for entry in _entries(self.models / name):
            try:
                version = parse_version(entry)
            except ManifestError:
                continue
            if (self.models / name / entry / MANIFEST_FILE).is_file():
                found.append(version)
        return sorted(found)

    def has(self, name: str, version: int) -> bool:
        """Tell whether a version is at its place.

        Raises:
            OSError: The store cannot be read.
        """
        try:
            folder = self.version(name, version)
        except ManifestError:
            return False
        # Neither of them is a link, because we make none.
        are_folders = all(stat.S_ISDIR(_mode(path)) for path in (folder.parent, folder))
        return are_folders and stat.S_ISREG(_mode(folder / MANIFEST_FILE))


def check_paths(manifest: Manifest, origin: str) -> None:
    """Check that the files a manifest names can all lie in one folder beside it.

    Args:
        manifest: A manifest that ``manifest.read`` accepted.
        origin: Where it comes from, for messages.

    Raises:
        ManifestError: A name is too long for a file system, cannot be written in its character
            set, or takes the place of the manifest.
    """
    for file in manifest.files():
        first, *_ = parts = file.path.split("/")
        try:
            encoded = [os.fsencode(part) for part in parts]
        except UnicodeEncodeError as error:
            raise ManifestError(
                f"{origin}: {file.path!a} cannot be a file's name on this device: {error.reason}"
            ) from error
        if first in {MANIFEST_FILE, SIGNATURE_FILE}:
            raise ManifestError(f"{origin}: {file.path}: {first} is not a folder")
        if first == PARTIAL_FILE:
            raise ManifestError(f"{origin}: {file.path}: the store keeps this name; rename it")
        if max(map(len, encoded)) > _PART_BYTES_MAX or sum(map(len, encoded)) > _PATH_BYTES_MAX:
            raise ManifestError(
                f"{origin}: {file.path}: too long for a file system; at most {_PART_BYTES_MAX} "
                f"bytes between two `/` and {_PATH_BYTES_MAX} in all"
            )


def _mode(path: Path) -> int:
    """Give what kind of thing something is, without following links; 0: it is not there."""
    try:
        return path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _entries(folder: Path) -> list[str]:
    """List the folders in a folder that may be missing; links are not followed."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
