"""The store: installs versions, gives them as bundles, and removes what nobody keeps.

A version is there as a whole or not at all, whatever happens to the process, the disk or the
power; it is never changed, and only removed when nobody keeps it. See ``layout`` for the folders.
Everything here reads or writes the disk and may take long.
"""

import errno
import hashlib
import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from edge_runtime.bundle import Bundle, bundle_from_directory, verify
from edge_runtime.errors import (
    EdgeRuntimeError,
    ManifestError,
    ModelNotFoundError,
    StorageError,
)
from edge_runtime.failpoints import failpoint
from edge_runtime.manifest import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    Manifest,
    check_complete,
    read,
)
from edge_runtime.private_folder import PRIVATE_MODE, PrivateFolder
from edge_runtime.store.arrivals import Arrivals
from edge_runtime.store.blobs import Blobs
from edge_runtime.store.disk_errors import not_ours, not_stored
from edge_runtime.store.durable import Disk, FileLayer
from edge_runtime.store.installation import Copied, Installation
from edge_runtime.store.installed import (
    Installed,
    manifest_bytes,
    signature_bytes,
    told,
)
from edge_runtime.store.layout import FILE_MODE, VERSION_MODE, Layout, check_paths
from edge_runtime.store.partial import names, recorded
from edge_runtime.store.reading import BundleSource
from edge_runtime.store.removal import drop_orphans, remove_version, settle, sweep
from edge_runtime.store.standing import adds, is_there, undamaged

_log = logging.getLogger(__name__)

_TAKEN: Final = {errno.ENOTEMPTY, errno.EEXIST}

Check = Callable[[bytes, bytes | None], None]
"""Judges the exact bytes of a manifest and of its signature; raises an ``ArtifactError``."""
Needed = Callable[[Manifest], Collection[str]]
"""Names the variants of a manifest that a device needs."""


def every_variant(manifest: Manifest) -> Collection[str]:
    """Need all variants."""
    return names(manifest.variants)


class Store:
    """Installed versions on disk.

    Installations may run on several threads, and one that hangs holds up nothing else.

    Args:
        root: Its folder; made for its owner alone. One that others may write to is not used.
        reserve_bytes: Space on the disk that an installation leaves free, in bytes.
        bundle_bytes: Largest bundle that is installed, in bytes.
        layer: What changes the disk.

    Attributes:
        blobs: The contents that are in it.
    """

    def __init__(
        self,
        root: Path,
        *,
        reserve_bytes: int,
        bundle_bytes: int,
        layer: FileLayer | None = None,
    ) -> None:
        self._layout = Layout(root)
        self._folder = PrivateFolder(
            root, "no version in the store is used, and none can be installed"
        )
        self.blobs = Blobs(self._layout, self._folder)
        self._reserve_bytes = reserve_bytes
        self._bundle_bytes = bundle_bytes
        self._layer: FileLayer = layer or Disk()
        self._under_way: set[tuple[str, int]] = set()
        self._arrivals = Arrivals()

    def install(
        self, source: BundleSource, *, check: Check, needed: Needed = every_variant
    ) -> Installed:
        """Copy a bundle into the store.

        The bundle may lack files that the store has, and those that only variants read which are
        not needed. The same bundle may be installed again: that changes nothing, unless its
        version has been damaged since, which it mends, or variants were left out that it brings.

        Args:
            source: The bundle; read once.
            check: Decides by manifest and signature whether it may be installed at all.
            needed: Names the variants that must be there.

        Returns:
            What is in the store now, for good.

        Raises:
            ArtifactError: The bundle is not what its manifest says, breaks a limit, is refused by
                ``check``, or another bundle has its name and version. Nothing changed.
            StorageError: The disk is too full, fails, or may not be written to; or the version is
                just being removed. Nothing changed, but a damaged version may be gone.
        """
        head = source.head()
        manifest = self.accepted(head, source.shown, check)
        key = (manifest.name, manifest.version)
        installed = Installed(
            *key, manifest, hashlib.sha256(head[0]).hexdigest(), self._layout.version(*key)
        )
        wanted = needed(manifest)
        with self._writing(f"install {manifest.name} version {manifest.version}"):
            self._arrivals.came(key)
            was_there = is_there(installed)
            present = self._undamaged(installed) if was_there else None
            if present is not None:
                # Whoever put it there may have died before it was there for good.
                settle(self._layer, self._layout)
                self._sign_again(installed.directory, head[1])
                if not adds(self._layout, source, manifest, present, wanted):
                    return told(installed, source, was_there=True)
            elif was_there:
                _log.warning("%s version %d is damaged and is installed again", *key)
            self._make_folders()
            new = Installation(
                self._layer,
                self._layout,
                source,
                manifest,
                head,
                needed=wanted,
                replaces=was_there and present is None,
                fills=() if present is None else [file.path for file in present.files()],
            )
            copied = self._copied(new, key)
            if copied is None:  # by another thread, just now
                self._same_or_refuse(installed)
                settle(self._layer, self._layout)
                return told(installed, source, was_there=True)
        return told(installed, source, was_there=present is not None, copied=copied)

    def bundle(self, name: str, version: int) -> Bundle:
        """Give an installed version; loading it checks its digests.

        Raises:
            ModelNotFoundError: It is not in the store.
            ArtifactError: It is damaged, or the store cannot be used.
        """
        directory = self._directory(name, version)
        shown = f"{name} version {version} in the store"
        bundle = bundle_from_directory(directory, shown, recorded(directory, shown))
        if (bundle.manifest.name, bundle.manifest.version) != (name, version):
            raise ManifestError(
                f"{name} version {version} in the store is another one by its manifest: "
                f"{bundle.manifest.name} version {bundle.manifest.version}; install it again"
            )
        return bundle

    def head(self, name: str, version: int) -> tuple[bytes, bytes | None]:
        """Read the exact bytes of an installed manifest, and of its signature if there is one.

        Raises:
            ModelNotFoundError: It is not in the store.
            StorageError: It cannot be read, or the store cannot be used.
        """
        directory = self._directory(name, version)
        try:
            return manifest_bytes(directory), signature_bytes(directory)
        except OSError as error:
            raise not_stored(f"read {name} version {version} in the store", error) from error

    def verify(self, name: str, version: int) -> tuple[tuple[str, int, str], ...]:
        """Hash every file of an installed version that is to be there; see ``bundle.verify``.

        Raises:
            ModelNotFoundError: It is not in the store.
            ArtifactError: It is damaged.
        """
        return verify(self.bundle(name, version))

    def names(self) -> list[str]:
        """List the models of which a version is installed, sorted.

        Raises:
            StorageError: The store cannot be read.
        """
        return sorted(self.every())

    def every(self) -> dict[str, list[int]]:
        """List the installed versions of every model, ascending; one look at the disk.

        Raises:
            StorageError: The store cannot be read.
        """
        versions: dict[str, list[int]] = {}
        for name, version in self._installed():
            versions.setdefault(name, []).append(version)
        return versions

    def versions(self, name: str) -> list[int]:
        """List the installed versions of a model, ascending.

        Raises:
            StorageError: The store cannot be read.
        """
        return [version for found, version in self._installed() if found == name]

    def remove(self, name: str, version: int) -> int:
        """Remove a version, which nobody may be using any more.

        Returns:
            Bytes that were freed.

        Raises:
            ModelNotFoundError: It is not in the store.
            StorageError: The disk fails or may not be written to; the version is there as a whole
                or gone, and what is left of it is removed at the next start.
        """
        directory = self._directory(name, version)
        with self._writing(f"remove {name} version {version}"):
            freed_bytes = remove_version(self._layer, self._layout, directory)
            return freed_bytes + drop_orphans(self._layer, self._layout)

    def collect(self, keep: Collection[tuple[str, int]]) -> int:
        """Remove every version that nobody keeps, and the blobs that are left.

        Args:
            keep: Name and version of all that are in use or may be: active, previous, leased and
                those of releases. What is installed meanwhile, for the first time or again, is
                kept as well, however long this lasts.

        Returns:
            Bytes that were freed.

        Raises:
            StorageError: The disk fails or may not be written to.
        """
        freed_bytes = 0
        with self._writing("remove versions"), self._arrivals.cleaning() as cleaning:
            spared = {*keep, *self._under_way}
            for key in self._installed():
                if key in spared or key in self._under_way:
                    continue
                with self._arrivals.removing(key, cleaning) as may_go:
                    if may_go:
                        directory = self._layout.version(*key)
                        freed_bytes += remove_version(self._layer, self._layout, directory)
            return freed_bytes + drop_orphans(self._layer, self._layout)

    def recover(self) -> int:
        """Clean up after a crash; call it at the start. Never fails the daemon.

        Returns:
            Bytes that were freed.
        """
        try:
            if self._folder.path.is_dir() and self._folder.is_safe():
                return sweep(self._layer, self._layout)
        except OSError as error:
            _log.warning(
                "the store cannot be cleaned up: %s; what is installed is served, but perhaps "
                "nothing can be installed",
                error.strerror or error,
            )
        return 0

    def accepted(self, head: tuple[bytes, bytes | None], shown: str, check: Check) -> Manifest:
        """Read a manifest that may come in.

        Args:
            head: The exact bytes of the manifest and of its signature.
            shown: How messages call the bundle.
            check: Decides whether it may.

        Raises:
            ArtifactError: It may not.
        """
        origin = f"{shown}: {MANIFEST_FILE}"
        manifest = read(head[0], origin)
        check_complete(manifest, origin)
        check_paths(manifest, origin)
        total_bytes = sum(file.size_bytes for file in manifest.files())
        if total_bytes > self._bundle_bytes:
            raise ManifestError(
                f"{origin}: its files have {total_bytes} bytes, over {self._bundle_bytes} "
                "(release.bundle_bytes)"
            )
        check(*head)
        return manifest

    def _copied(self, new: Installation, key: tuple[str, int]) -> Copied | None:
        """Install; ``None`` if the place is taken by somebody who was faster."""
        failpoint("store.received")
        new.check_room(self._reserve_bytes)
        self._under_way.add(key)
        try:
            return new.run()
        except OSError as error:
            if error.errno in _TAKEN:
                return None
            raise
        finally:
            self._under_way.discard(key)

    def _same_or_refuse(self, installed: Installed) -> None:
        if not is_there(installed) or self._undamaged(installed) is None:
            raise StorageError(
                f"the place of {installed.name} version {installed.version} in the store is taken; "
                "remove the version and install it again"
            )

    def _undamaged(self, installed: Installed) -> Manifest | None:
        return undamaged(installed, lambda: self.bundle(installed.name, installed.version))

    def _sign_again(self, directory: Path, signature: bytes | None) -> None:
        """Keep a newer signature of the same manifest: its keys may have changed."""
        if signature is None or signature == signature_bytes(directory):
            return
        self._make_folders()
        new = self._layout.new()
        try:
            self._layer.write(new, [signature], FILE_MODE)
            self._layer.sync(new)
            self._layer.change_mode(directory, PRIVATE_MODE)
            self._layer.rename(new, directory / SIGNATURE_FILE)
            self._layer.sync(directory)
        finally:
            with suppress(OSError):
                self._layer.change_mode(directory, VERSION_MODE)
            with suppress(OSError):
                self._layer.unlink(new)

    def _make_folders(self) -> None:
        """Make what is missing of the store's own folders, for good."""
        layout = self._layout
        for path in (layout.blobs, layout.models, layout.incoming):
            if not path.is_dir():
                with suppress(FileExistsError):  # another thread was faster
                    self._layer.make_folder(path, PRIVATE_MODE)
        self._layer.sync(layout.root)
        self._layer.sync(layout.root.parent)

    def _installed(self) -> list[tuple[str, int]]:
        """List what is at its place; nothing where others may have put it."""
        try:
            if self._folder.path.is_dir() and self._folder.is_safe():
                return [(name, version) for name, version, _ in self._layout.installed()]
        except OSError as error:
            raise not_stored("read the store", error) from error
        return []

    def _directory(self, name: str, version: int) -> Path:
        """Give the folder of a version that is at its place."""
        try:
            is_there = self._layout.has(name, version)
        except OSError as error:
            raise not_stored(f"read {name} version {version} in the store", error) from error
        if not is_there:
            raise ModelNotFoundError(
                f"{name} version {version} is not in the store; stage its bundle first"
            )
        if not self._folder.is_safe():
            raise not_ours(f"use {name} version {version} in the store")
        return self._layout.version(name, version)

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """Refuse to write where others may, and say in our words what the disk says."""
        if not self._folder.is_safe():
            raise not_ours(what)
        try:
            yield
        except EdgeRuntimeError:
            raise
        except OSError as error:
            raise not_stored(what, error) from error
