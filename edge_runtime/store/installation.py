"""Copies one bundle into the store, step by step; whatever stops it leaves nothing behind.

The files are written into a folder of their own, made durable, checked as the disk gives them
back, and put in place by one renaming. Nothing is locked meanwhile, so an installation that hangs
holds up no other one.

A version that was installed without some variants is filled up in its place: files that nobody
reads yet are added, and only then does its record say that they are there.
"""

import errno
import hashlib
import logging
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, NoReturn

from edge_runtime.bundle import Bundle, verify, with_variants
from edge_runtime.digest import file_sha256
from edge_runtime.errors import DigestMismatchError, ModelLoadError, StorageError
from edge_runtime.failpoints import failpoint
from edge_runtime.manifest import MANIFEST_FILE, SIGNATURE_FILE, File, Manifest
from edge_runtime.private_folder import PRIVATE_MODE
from edge_runtime.store.durable import FileLayer
from edge_runtime.store.layout import FILE_MODE, VERSION_MODE, Layout
from edge_runtime.store.partial import PARTIAL_FILE, complete, names, record
from edge_runtime.store.reading import BundleSource
from edge_runtime.store.removal import claimed, remove_tree, remove_version, seal

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
        left_out: Names of the variants that were left out.
    """

    copied_bytes: int
    reused_bytes: int
    left_out: tuple[str, ...] = ()


class Installation:
    """One bundle on its way into the store.

    Args:
        layer: What changes the disk.
        layout: Of the store, whose folders are there.
        source: The bundle.
        manifest: Its manifest, which is accepted.
        head: The exact bytes of the manifest and of its signature.
        needed: Names of the variants that must be there; others may be left out.
        replaces: Whether it takes the place of a damaged one.
        fills: Files that are at its place already, where it only adds to them.
    """

    def __init__(
        self,
        layer: FileLayer,
        layout: Layout,
        source: BundleSource,
        manifest: Manifest,
        head: tuple[bytes, bytes | None],
        *,
        needed: Collection[str],
        replaces: bool = False,
        fills: Collection[str] = (),
    ) -> None:
        self._layer = layer
        self._layout = layout
        self._source = source
        self._manifest = manifest
        self._head = head
        self._shown = f"{manifest.name} version {manifest.version}"
        self._folder = layout.new()
        self._place = layout.version(manifest.name, manifest.version)
        self._needed = needed
        self._replaces = replaces
        self._fills = fills
        self._kept = manifest  # without the variants that are left out, once that is known
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
        files = {file.path: file for file in self._manifest.files()}
        absent = self._source.lacks(files)
        sizes = {file.sha256: file.size_bytes for path, file in files.items() if path not in absent}
        for sha256, size_bytes in sizes.items():
            if not self._layout.blob(sha256).is_file():
                needed_bytes += size_bytes
        needed_bytes += _PER_FILE_BYTES * (len(files) + 2 + bool(absent))
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
                if self._fills:
                    self._fill()
                else:
                    self._put_in_place()
        except Exception:
            self._undo()
            raise
        if self._fills:
            with suppress(OSError):  # what is left of the way is swept away later
                remove_tree(self._layer, self._folder)
        there = names(self._kept.variants)
        left_out = [name for name in names(self._manifest.variants) if name not in there]
        return Copied(self._copied_bytes, self._reused_bytes, tuple(left_out))

    def _receive(self) -> None:
        """Get every file, from the store or from the bundle, and make it durable."""
        for name, data in zip((MANIFEST_FILE, SIGNATURE_FILE), self._head, strict=True):
            if data is not None:
                self._layer.write(self._folder / name, [data], FILE_MODE)
                self._layer.sync(self._folder / name)
        for folder in self._folders(self._folder):
            self._layer.make_folder(folder, PRIVATE_MODE)
        files = {file.path: file for file in self._manifest.files()}
        missing = {path: file for path, file in files.items() if not self._reuse(file)}
        for path, chunks in self._source.contents(tuple(missing)):
            file = missing.pop(path)
            if not self._repeat(file):
                self._copy(file, chunks)
        absent = {path for path, file in missing.items() if not self._repeat(file)}
        if absent:
            self._leave_out(absent)

    def _leave_out(self, absent: Collection[str]) -> None:
        """Do without variants that lack files, if nobody needs them."""
        kept = complete(self._manifest, absent)
        needed = [each for each in self._manifest.variants if each.name in self._needed]
        read = [file for variant in needed for file in variant.reads()]
        for file in [*read, *self._manifest.acceptance.goldens]:
            if file.path in absent:
                raise ModelLoadError(
                    f"{self._source.shown}: {file.path} is missing, which its manifest names; "
                    "build the bundle again"
                )
        self._kept = with_variants(self._manifest, names(kept), self._source.shown)
        wanted = {file.path: file for file in self._kept.files()}
        for file in self._manifest.files():
            if file.path not in wanted and file.path not in absent:
                self._layer.unlink(self._folder / file.path)
        # Of what is left: a content may have been kept under a name that is gone now.
        there = {file.sha256: self._folder / path for path, file in wanted.items()}
        self._have = {sha256: there[sha256] for sha256 in self._have if sha256 in there}
        self._layer.write(self._folder / PARTIAL_FILE, [record(names(kept))], FILE_MODE)
        self._layer.sync(self._folder / PARTIAL_FILE)

    def _folders(self, root: Path) -> list[Path]:
        """List the folders below the version's, each after the one it is in."""
        paths = [PurePosixPath(file.path) for file in self._manifest.files()]
        below = {folder for path in paths for folder in path.parents if folder.parts}
        return [root / folder for folder in sorted(below)]

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
        self._seal(self._folder)
        self._layer.sync(self._folder)
        self._layer.sync(self._layout.blobs)
        failpoint("store.synced")

    def _seal(self, root: Path) -> None:
        """Make the names in the folders below durable, and let nobody add others."""
        for folder in reversed(self._folders(root)):
            self._layer.change_mode(folder, VERSION_MODE)
            self._layer.sync(folder)

    def _check(self) -> None:
        """Look at the files as the disk gives them back, and at the weights that models name."""
        verify(Bundle(self._kept, self._folder))

    def _put_in_place(self) -> None:
        """Rename the folder to its place, for good.

        A damaged version goes out of the way first. Where the disk fails between the two, neither
        is there: never half of one, and nothing that could be loaded was lost.
        """
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

    def _fill(self) -> None:
        """Add what came to the version that is at its place; nothing that is there changes."""
        place = self._place
        for root in (self._folder, place):  # who is not root may not move out of what is sealed
            self._layer.change_mode(root, PRIVATE_MODE)
            for folder in self._folders(root):
                self._layer.change_mode(folder, PRIVATE_MODE)
        for file in self._kept.files():
            if file.path not in self._fills:
                self._layer.rename(self._folder / file.path, place / file.path)
        self._seal(place)
        self._layer.sync(place)
        failpoint("store.filled")
        if (self._folder / PARTIAL_FILE).is_file():
            self._layer.rename(self._folder / PARTIAL_FILE, place / PARTIAL_FILE)
        else:
            self._layer.unlink(place / PARTIAL_FILE)
        self._layer.change_mode(place, VERSION_MODE)
        self._layer.sync(place)
        failpoint("store.installed")

    def _undo(self) -> None:
        """Remove all that came, as far as the disk allows; ``sweep`` removes the rest."""
        with suppress(OSError):
            if self._is_placed:
                remove_version(self._layer, self._layout, self._place)
            else:
                remove_tree(self._layer, self._folder)
        if self._fills:
            with suppress(OSError):
                seal(self._layer, self._place)
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
