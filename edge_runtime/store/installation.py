"""Copies one bundle into the store, step by step; whatever stops it leaves nothing behind.

The files are written into a folder of their own, made durable, checked as the disk gives them
back, and put in place by one renaming. Nothing is locked meanwhile, so an installation that hangs
holds up no other one.
"""

import errno
import hashlib
import logging
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, NoReturn

from edge_runtime.bundle import Bundle, verify
from edge_runtime.digest import file_sha256
from edge_runtime.errors import DigestMismatchError, ModelLoadError, StorageError
from edge_runtime.failpoints import failpoint
from edge_runtime.manifest import MANIFEST_FILE, SIGNATURE_FILE, File, Manifest
from edge_runtime.private_folder import PRIVATE_MODE
from edge_runtime.store.durable import FileLayer
from edge_runtime.store.layout import FILE_MODE, VERSION_MODE, Layout
from edge_runtime.store.reading import BundleSource
from edge_runtime.store.removal import claimed, remove_tree, remove_version

_log = logging.getLogger(__name__)

_PER_FILE_BYTES: Final = 8192
"""What a file takes besides its content: its last block, its name, its entry in the file system."""
_UNLINKABLE: Final = {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK}
"""What a file system says that has no hard links, or no more for this file."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What an installation moved.

    Attributes:
        copied_bytes: Bytes written.
        reused_bytes: Bytes that were in the store already.
    """

    copied_bytes: int
    reused_bytes: int


class Installation:
    """One bundle on its way into the store.

    Args:
        layer: What changes the disk.
        layout: Of the store, whose folders are there.
        source: The bundle.
        manifest: Its manifest, which is accepted.
        head: The exact bytes of the manifest and of its signature.
        replaces: Whether it takes the place of a damaged one.
    """

    def __init__(
        self,
        layer: FileLayer,
        layout: Layout,
        source: BundleSource,
        manifest: Manifest,
        head: tuple[bytes, bytes | None],
        *,
        replaces: bool = False,
    ) -> None:
        self._layer = layer
        self._layout = layout
        self._source = source
        self._manifest = manifest
        self._head = head
        self._shown = f"{manifest.name} version {manifest.version}"
        self._folder = layout.new()
        self._place = layout.version(manifest.name, manifest.version)
        self._replaces = replaces
        # One file of each content that is in the folder, and the blobs that were added.
        self._have: dict[str, Path] = {}
        self._shared: list[Path] = []
        self._copied_bytes = self._reused_bytes = 0
        self._is_placed = False

    def check_room(self, reserve_bytes: int) -> None:
        """Refuse what would not leave the reserve free.

        Raises:
            StorageError: There is too little space.
            OSError: The disk does not say.
        """
        needed_bytes = sum(map(len, filter(None, self._head)))
        sizes = {file.sha256: file.size_bytes for file in self._manifest.files()}
        for sha256, size_bytes in sizes.items():
            if not self._layout.blob(sha256).is_file():
                needed_bytes += size_bytes
        needed_bytes += _PER_FILE_BYTES * (len(self._manifest.files()) + 2)
        free_bytes = self._layer.free_bytes(self._layout.root)
        if free_bytes - needed_bytes < reserve_bytes:
            raise StorageError(
                f"{self._shown} needs {needed_bytes} bytes on the disk and {reserve_bytes} are to "
                f"stay free (release.reserve_bytes), but only {free_bytes} are; remove versions or "
                "other files"
            )

    def run(self) -> Copied:
        """Do it.

        Returns:
            What was copied.

        Raises:
            ArtifactError: The bundle is not what its manifest says; nothing is left of it.
            OSError: The disk refuses it; nothing is left, as far as the disk allows.
        """
        try:
            self._layer.make_folder(self._folder, PRIVATE_MODE)
            with claimed(self._folder):
                self._receive()
                self._share()
                self._check()
                self._put_in_place()
        except Exception:
            self._undo()
            raise
        return Copied(self._copied_bytes, self._reused_bytes)

    def _receive(self) -> None:
        """Get every file, from the store or from the bundle, and make it durable."""
        for name, data in zip((MANIFEST_FILE, SIGNATURE_FILE), self._head, strict=True):
            if data is not None:
                self._layer.write(self._folder / name, [data], FILE_MODE)
                self._layer.sync(self._folder / name)
        for folder in self._folders():
            self._layer.make_folder(folder, PRIVATE_MODE)
        files = {file.path: file for file in self._manifest.files()}
        missing = {path: file for path, file in files.items() if not self._reuse(file)}
        for path, chunks in self._source.contents(tuple(missing)):
            file = missing.pop(path)
            if not self._repeat(file):
                self._copy(file, chunks)
        for path, file in missing.items():
            if not self._repeat(file):
                raise ModelLoadError(
                    f"{self._source.shown}: {path} is missing, which its manifest names; build "
                    "the bundle again"
                )

    def _folders(self) -> list[Path]:
        """List the folders below the version's, each after the one it is in."""
        paths = [PurePosixPath(file.path) for file in self._manifest.files()]
        below = {folder for path in paths for folder in path.parents if folder.parts}
        return [self._folder / folder for folder in sorted(below)]

    def _reuse(self, file: File) -> bool:
        """Take a file from the store, if it has it, undamaged."""
        blob = self._layout.blob(file.sha256)
        try:
            if blob.lstat().st_size != file.size_bytes or file_sha256(blob) != file.sha256:
                _log.warning("the store's copy of %s is damaged and is replaced", file.path)
                self._layer.unlink(blob)
                return False
            is_linked = self._link(blob, self._folder / file.path)
        except (FileNotFoundError, ModelLoadError):  # removed meanwhile, or not readable
            return False
        if is_linked:
            self._have.setdefault(file.sha256, self._folder / file.path)
            self._reused_bytes += file.size_bytes
        return is_linked

    def _repeat(self, file: File) -> bool:
        """Take a file that is already there under another name."""
        other = self._have.get(file.sha256)
        return other is not None and self._link(other, self._folder / file.path)

    def _copy(self, file: File, chunks: Iterable[bytes]) -> None:
        """Write a file while hashing it, and make it durable."""
        path = self._folder / file.path
        content = _Content(file, chunks, self._source.shown)
        self._layer.write(path, content, FILE_MODE)
        failpoint("store.blob.written")
        content.check()
        self._layer.sync(path)
        failpoint("store.blob.synced")
        self._have[file.sha256] = path
        self._copied_bytes += file.size_bytes

    def _link(self, source: Path, target: Path) -> bool:
        """Give a file of the store another name; tell whether the file system could."""
        try:
            self._layer.link(source, target)
        except OSError as error:
            if error.errno in _UNLINKABLE:
                return False
            raise
        return True

    def _share(self) -> None:
        """Give what was copied its name among the blobs, and make all names durable."""
        for sha256, path in self._have.items():
            blob = self._layout.blob(sha256)
            with suppress(FileExistsError):
                if self._link(path, blob):
                    self._shared.append(blob)
        failpoint("store.linked")
        for folder in reversed(self._folders()):
            self._layer.change_mode(folder, VERSION_MODE)
            self._layer.sync(folder)
        self._layer.sync(self._folder)
        self._layer.sync(self._layout.blobs)
        failpoint("store.synced")

    def _check(self) -> None:
        """Look at the files as the disk gives them back, and at the weights that models name."""
        verify(Bundle(self._manifest, self._folder))

    def _put_in_place(self) -> None:
        """Rename the folder to its place, for good."""
        name = self._place.parent
        with suppress(FileExistsError):
            self._layer.make_folder(name, PRIVATE_MODE)
        self._layer.sync(name.parent)
        if self._replaces:
            remove_version(self._layer, self._layout, self._place)
        self._layer.rename(self._folder, self._place)
        self._is_placed = True
        failpoint("store.renamed")
        self._layer.change_mode(self._place, VERSION_MODE)
        self._layer.sync(name)
        failpoint("store.installed")

    def _undo(self) -> None:
        """Remove all that came, as far as the disk allows; ``sweep`` removes the rest."""
        with suppress(OSError):
            if self._is_placed:
                remove_version(self._layer, self._layout, self._place)
            else:
                remove_tree(self._layer, self._folder)
        for blob in self._shared:
            with suppress(OSError):
                if blob.lstat().st_nlink == 1:
                    self._layer.unlink(blob)


class _Content:
    """A file's content as it comes; stops where it cannot become what the manifest names."""

    def __init__(self, file: File, chunks: Iterable[bytes], shown: str) -> None:
        self._file = file
        self._chunks = chunks
        self._shown = f"{shown}: {file.path}"
        self._hash = hashlib.sha256()
        self._size_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._size_bytes += len(chunk)
            if self._size_bytes > self._file.size_bytes:
                self._refuse(f"more than {self._file.size_bytes} bytes")
            self._hash.update(chunk)
            yield chunk

    def check(self) -> None:
        """Compare what came with the manifest.

        Raises:
            DigestMismatchError: It is another file.
        """
        if self._size_bytes != self._file.size_bytes:
            self._refuse(f"{self._size_bytes} bytes instead of {self._file.size_bytes}")
        if self._hash.hexdigest() != self._file.sha256:
            self._refuse(f"SHA-256 {self._hash.hexdigest()} instead of {self._file.sha256}")

    def _refuse(self, what: str) -> NoReturn:
        raise DigestMismatchError(
            f"{self._shown} has {what}, which its manifest names; build the bundle again, and do "
            "not change it while it is installed"
        )
