"""Who may bring what: the only way for a bundle into the store."""

import contextlib
import logging
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

from edge_runtime.bundle import Bundle, unreadable
from edge_runtime.errors import (
    ArtifactError,
    ConflictError,
    ModelLoadError,
    ModelNotFoundError,
    SignatureError,
)
from edge_runtime.hardware import CpuFacts
from edge_runtime.manifest import MANIFEST_FILE, MAX_BYTES, SIGNATURE_FILE, read
from edge_runtime.protocol.handover_schemas import Needs
from edge_runtime.protocol.release_schemas import Trust
from edge_runtime.release.needed import needed_variants, needs
from edge_runtime.release.needed_versions import Head, NeededVersion, orphans, would_orphan
from edge_runtime.settings import Release as Settings
from edge_runtime.store.installed import Installed
from edge_runtime.store.reading import SIGNATURE_BYTES_MAX, SourceLimits
from edge_runtime.store.source import source_of
from edge_runtime.store.store import Store
from edge_runtime.trust.keyring import Keyring, check_release
from edge_runtime.trust.keyring_file import KeyringFile

_log = logging.getLogger(__name__)

KEYRING: Final = "keyring.json"
"""The present keyring, in the state directory."""

Refuse = Callable[[str, int, tuple[bytes, bytes | None]], None]


class Admission:
    """Takes bundles into the store, or refuses them.

    Args:
        store: Where they go.
        settings: Whether bundles must be signed, and how large they may be.
        state_directory: Where the present keyring is kept.
        cpu: Decides which variants must come with a bundle.
    """

    def __init__(
        self, store: Store, settings: Callable[[], Settings], state_directory: Path, cpu: CpuFacts
    ) -> None:
        self._cpu = cpu
        self._store = store
        self._settings = settings
        self._state_directory = state_directory

    def install(self, where: Path | int, *, refuse: Refuse) -> Installed:
        """Copy a bundle into the store; takes long.

        Args:
            where: Its folder or tar, or a descriptor of it.
            refuse: Raises if a version of a model, with these bytes of its manifest and its
                signature, must not come in now.

        Raises:
            ArtifactError: It is not what it says, not signed, or the disk does not take it.
        """
        settings = self._settings()

        def check(manifest: bytes, signature: bytes | None) -> None:
            self.check(manifest, signature)
            parsed = read(manifest, "manifest.json")
            refuse(parsed.name, parsed.version, (manifest, signature))

        limits = SourceLimits(bundle_bytes=settings.bundle_bytes)
        with contextlib.closing(source_of(where, limits)) as source:
            return self._store.install(
                source, check=check, needed=lambda manifest: needed_variants(manifest, self._cpu)
            )

    def needs(self, manifest: bytes, signature: bytes | None) -> Needs:
        """Say which files of a bundle would have to come; takes a moment.

        Args:
            manifest: The exact bytes of its manifest.
            signature: Of its signature; ``None``: it has none.

        Raises:
            ArtifactError: Such a bundle would not be taken.
        """
        shown = "the bundle that was asked about"
        parsed = self._store.accepted((manifest, signature), shown, self.check)
        return needs(parsed, self._cpu, self._store.blobs.has)

    def content(self, sha256: str) -> int | None:
        """Open a content of the store; see ``release_orders``."""
        return self._store.blobs.open(sha256)

    def check(self, manifest: bytes, signature: bytes | None) -> None:
        """Make sure that a managed device may run what a manifest describes.

        Raises:
            SignatureError: Too few keys of the keyring signed it.
        """
        if self._settings().managed:
            check_release(self._keyring().read(), manifest, signature)

    def admit(self, bundle: Bundle) -> None:
        """Make sure that a bundle may be loaded, wherever it lies; takes a moment.

        Raises:
            SignatureError: The device is managed, and it is not signed.
        """
        if not self._settings().managed:
            return
        shown = f"{bundle.manifest.name} version {bundle.manifest.version}"
        if not bundle.manifest_sha256:
            raise SignatureError(
                f"{shown} is a bare model file, which cannot be signed, and this device runs "
                "signed models only; make a bundle of it: `edge-runtime bundle create`"
            )
        try:
            manifest = _small(bundle.directory / MANIFEST_FILE, MAX_BYTES)
            signature = _small(bundle.directory / SIGNATURE_FILE, SIGNATURE_BYTES_MAX)
        except OSError as error:
            raise ModelLoadError(unreadable(f"the manifest of {shown}", error)) from error
        if manifest is None or sha256(manifest).hexdigest() != bundle.manifest_sha256:
            raise SignatureError(
                f"the manifest of {shown} changed while it was looked at; load it again"
            )
        self.check(manifest, signature)

    def trust(self) -> Trust:
        """Say what is believed."""
        if not self._settings().managed:
            return Trust(managed=False)
        try:
            keyring = self._keyring().read()
        except ArtifactError as error:
            return Trust(managed=True, keys=[error.message])
        document = keyring.document
        return Trust(
            managed=True,
            keyring_version=keyring.version,
            keys=[each.name or each.key_id[:12] for each in document.keys],
            threshold=document.releases_threshold,
        )

    def accept_keyring(
        self, data: bytes, needed: Sequence[NeededVersion] = (), *, force: bool = False
    ) -> tuple[int, list[NeededVersion]]:
        """Replace the keyring by a newer one that enough keys of the present one signed.

        Args:
            data: The new keyring file's bytes.
            needed: Versions that must be loadable again.
            force: Whether to take it although it does not let all of them in.

        Returns:
            Its version, and what the present one lets in and it does not.

        Raises:
            SignatureError: It may not follow.
            ConflictError: It would orphan versions.
            StorageError: It cannot be written.
        """
        lost: list[NeededVersion] = []

        def check(present: Keyring, new: Keyring) -> None:
            if self._settings().managed:
                lost.extend(orphans(needed, self._head, new, present))
            if lost and not force:
                raise ConflictError(
                    f"{would_orphan(new.version, lost)}; or insist with `--force`. Nothing changed"
                )

        return self._keyring().accept(data, check=check).version, lost

    def warn_of_orphans(self, needed: Sequence[NeededVersion]) -> None:
        """Log which versions the present keyring does not let in; at the start."""
        if not self._settings().managed:
            return
        try:
            keyring = self._keyring().read()
        except ArtifactError:
            return  # then nothing is let in, and every load says why
        lost = orphans(needed, self._head, keyring)
        if lost:
            _log.warning("%s", would_orphan(keyring.version, lost))

    def _head(self, version: NeededVersion) -> Head | None:
        """Read manifest and signature of an installed or a configured version, if they can be."""
        try:
            if version.directory is None:
                return self._store.head(version.model, version.version)
            manifest = _small(version.directory / MANIFEST_FILE, MAX_BYTES)
            signature = _small(version.directory / SIGNATURE_FILE, SIGNATURE_BYTES_MAX)
        except (ArtifactError, ModelNotFoundError, OSError):
            return None
        return None if manifest is None else (manifest, signature)

    def follow_keyring(self) -> None:
        """Take a newer keyring that a package brought, or log why not; at the start."""
        if not self._settings().managed:
            return
        try:
            keyring = self._keyring().follow()
        except ArtifactError as error:
            _log.warning("the keyring of release.keyring is not taken: %s", error.message)
        else:
            if keyring is not None:
                _log.info("keyring version %d of release.keyring is installed", keyring.version)

    def _keyring(self) -> KeyringFile:
        first = self._settings().keyring
        return KeyringFile(self._state_directory / KEYRING, Path(first) if first else None)


def _small(path: Path, limit_bytes: int) -> bytes | None:
    """Read a file that ought to be small; ``None``: there is none.

    Raises:
        OSError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(limit_bytes + 1)
    except FileNotFoundError:
        return None
