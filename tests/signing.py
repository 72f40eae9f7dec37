"""Keys and keyrings for tests: the same ones every time, never to be used anywhere else."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from edge_runtime.trust.keyring import Document, Keyring, listed, text_of
from edge_runtime.trust.signatures import Signature, SigningKey, write_signatures


def private_key(name: str) -> Ed25519PrivateKey:
    """Give the library's key of that name."""
    return Ed25519PrivateKey.from_private_bytes(sha256(f"test key {name}".encode()).digest())


def signing_key(name: str) -> SigningKey:
    """Give the key of that name."""
    return SigningKey(private_key(name))


def key_file(folder: Path, name: str) -> Path:
    """Write a private key as ``NAME.pem``."""
    path = folder / f"{name}.pem"
    path.write_bytes(
        private_key(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    path.chmod(0o600)
    return path


def public_key_file(folder: Path, name: str) -> Path:
    """Write a public key as ``NAME.pub``."""
    path = folder / f"{name}.pub"
    key = private_key(name).public_key()
    path.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def keyring(
    names: Sequence[str],
    *,
    version: int = 1,
    threshold: int = 1,
    releases_threshold: int = 1,
    signed_by: Sequence[str] | None = None,
) -> Keyring:
    """Make a keyring.

    Args:
        names: Of its keys.
        version: Its version.
        threshold: Keys that sign the next one.
        releases_threshold: Keys that sign a release.
        signed_by: Keys that sign it; ``None``: as many of its own as it needs.
    """
    document = Document(
        schema_version=1,
        version=version,
        threshold=threshold,
        keys=tuple(listed(signing_key(name).public_key, name) for name in names),
        releases_threshold=releases_threshold,
    )
    made = Keyring(text_of(document), (), f"keyring {version}")
    for name in names[:threshold] if signed_by is None else signed_by:
        made = made.signed_with(signing_key(name))
    return made


def signed(message: bytes, *names: str) -> bytes:
    """Write a signature file over a message."""
    return write_signatures(signature(message, name) for name in names)


def signature(message: bytes, name: str) -> Signature:
    """Sign a message with one key."""
    return signing_key(name).sign(message)
