"""Takes a bundle in: it is copied into a staging folder, and checked and read there only."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from edge_runtime.bundle import Bundle, verify
from edge_runtime.manifest import MANIFEST_FILE, SIGNATURE_FILE, Manifest, check_complete, read
from edge_runtime.store.reading import SourceLimits
from edge_runtime.store.source import source_of
from edge_runtime.store.unpacking import unpack
from edge_runtime.trust.signatures import SigningKey, read_signatures, write_signatures
from fleet.errors import BadInputError, RefusedError

_LIMITS: Final = SourceLimits(bundle_bytes=2**40)

Progress = Callable[[int], None]
"""Told how many more bytes are done."""


@dataclass(frozen=True, slots=True)
class BundleHead:
    """What a bundle says of itself.

    Attributes:
        manifest: What its manifest says.
        data: The manifest's exact bytes.
        signature: Those of ``manifest.sig``; ``None``: nobody signed it.
    """

    manifest: Manifest
    data: bytes
    signature: bytes | None

    @property
    def shown(self) -> str:
        """What messages call it."""
        return f"{self.manifest.name} version {self.manifest.version}"

    @property
    def size_bytes(self) -> int:
        """Bytes of all files that the manifest names."""
        return sum(file.size_bytes for file in self.manifest.files())

    def signed(self, key: SigningKey | None, *, allow_unsigned: bool) -> "BundleHead":
        """Give it with a signature.

        Args:
            key: Signs the manifest if nobody has; ``None``: there is no key for that.
            allow_unsigned: Whether it may stay without.

        Raises:
            RefusedError: It would stay without, and may not.
            SignatureError: Its signature file is broken.
        """
        if self.signature is not None:
            read_signatures(self.signature, f"{self.shown}: {SIGNATURE_FILE}")
            return self
        if key is not None:
            return BundleHead(self.manifest, self.data, write_signatures([key.sign(self.data)]))
        if not allow_unsigned:
            raise RefusedError(
                f"{self.shown} has no {SIGNATURE_FILE}: devices with a keyring would refuse it; "
                "sign it with --sign KEY, or say --allow-unsigned"
            )
        return self


def read_head(path: Path) -> BundleHead:
    """Read what a bundle says of itself.

    Args:
        path: A folder, or a tar file.

    Raises:
        BadInputError: There is no bundle at that place.
        ArtifactError: Its manifest cannot be read, or states too little.
    """
    if not path.exists():
        raise BadInputError(f"{path} is not there; name a bundle: a folder or a tar file")
    with source_of(path, _LIMITS) as source:
        data, signature = source.head()
    manifest = read(data, f"{path}: {MANIFEST_FILE}")
    check_complete(manifest, f"{path}: {MANIFEST_FILE}")
    return BundleHead(manifest, data, signature)


def copy_in(path: Path, head: BundleHead, folder: Path, progress: Progress) -> dict[str, str]:
    """Copy what the manifest names, and check every byte of it.

    Args:
        path: The bundle.
        head: What it said of itself.
        folder: An empty folder.
        progress: Told of bytes that are copied.

    Returns:
        SHA-256 of each file that the manifest names.

    Raises:
        ArtifactError: A file is missing, is not the one that the manifest names, or reads weights
            that it does not name.
        OSError: The disk refused.
    """
    with source_of(path, _LIMITS) as source:
        if source.head()[0] != head.data:
            raise RefusedError(f"{path} changed while it was read; try again")
        unpack(source, head.manifest, folder, progress)
    found = verify(Bundle(head.manifest, folder, sha256(head.data).hexdigest()))
    (folder / MANIFEST_FILE).write_bytes(head.data)
    if head.signature is not None:
        (folder / SIGNATURE_FILE).write_bytes(head.signature)
    return {file: digest for file, _, digest in found}
