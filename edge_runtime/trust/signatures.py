"""Ed25519 signatures over exact bytes: their file format, making and checking them.

The only import of cryptography, and only when a signature is made or checked: a daemon that
manages no releases never pays for it. Signature files are strict on purpose: what is not understood
in full is refused, and no two files mean the same but for the order of things.
"""

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from edge_runtime.errors import ConfigError, SignatureError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SCHEMA_VERSION: Final = 1
SIGNATURES_BYTES_MAX: Final = 65_536
"""Bytes of a signature file; one of 64 signatures has 14,000."""
SIGNATURES_MAX: Final = 64
PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
KEY_FILE_BYTES_MAX: Final = 65_536

_KEY_ID: Final = r"^[0-9a-f]{64}$(?!\n)"

KeyId = Annotated[str, Meta(pattern=_KEY_ID)]
_T = TypeVar("_T")


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a signed document; a field it does not know is an error."""


class Signature(Strict, frozen=True):
    """One key's signature.

    Attributes:
        key_id: SHA-256 of the public key's 32 bytes, in hexadecimal.
        signature: Its 64 bytes in base64.
    """

    key_id: KeyId
    signature: str

    def raw(self, origin: str) -> bytes:
        """Give the signature's 64 bytes.

        Args:
            origin: Where it comes from, for messages.

        Raises:
            SignatureError: It is not 64 bytes in plain base64.
        """
        return from_base64(self.signature, SIGNATURE_BYTES, f"{origin}: a signature")


class _SignatureFile(Strict, frozen=True):
    """What a signature file holds."""

    schema_version: Literal[1]
    signatures: Annotated[tuple[Signature, ...], Meta(min_length=1, max_length=SIGNATURES_MAX)]


def key_id(public_key: bytes) -> str:
    """Name a public key: SHA-256 of its 32 bytes, in hexadecimal."""
    return sha256(public_key).hexdigest()


def read_signatures(data: bytes, origin: str) -> tuple[Signature, ...]:
    """Read a signature file; says nothing of whether the signatures are good.

    Args:
        data: The file's bytes, at most ``SIGNATURES_BYTES_MAX``.
        origin: Where they come from, for messages.

    Raises:
        SignatureError: It is not a signature file that this program understands.
    """
    file = strict_json(data, _SignatureFile, origin, SIGNATURES_BYTES_MAX)
    for each in file.signatures:
        each.raw(origin)
    return file.signatures


def write_signatures(signatures: Iterable[Signature]) -> bytes:
    """Write a signature file, sorted by key and each signature once."""
    every = sorted({(each.key_id, each.signature): each for each in signatures}.items())
    file = _SignatureFile(SCHEMA_VERSION, tuple(signature for _, signature in every))
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"


def signers(
    message: bytes, signatures: Iterable[Signature], keys: Mapping[str, bytes]
) -> frozenset[str]:
    """Tell whose signatures are good.

    Args:
        message: The exact bytes that were signed.
        signatures: As ``read_signatures`` gives them.
        keys: Public keys of 32 bytes by their id; signatures by other keys are not looked at.

    Returns:
        Ids of the keys that signed the message, each once however often it signed.

    Raises:
        SignatureError: A signature is not 64 bytes in plain base64.
    """
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - see the module
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PublicKey,
    )

    good: set[str] = set()
    for each in signatures:
        public_key = keys.get(each.key_id)
        if public_key is None or each.key_id in good:
            continue
        try:
            key = Ed25519PublicKey.from_public_bytes(public_key)
            key.verify(each.raw("the signatures"), message)
        except (InvalidSignature, ValueError):
            continue
        good.add(each.key_id)
    return frozenset(good)


class SigningKey:
    """A private key; stays with whoever signs, never on a device.

    Args:
        key: The library's.

    Attributes:
        public_key: The 32 bytes of its public half.
        key_id: Their name.
    """

    def __init__(self, key: "Ed25519PrivateKey") -> None:
        self._key = key
        self.public_key = key.public_key().public_bytes_raw()
        self.key_id = key_id(self.public_key)

    @classmethod
    def read(
        cls, data: bytes, origin: str, passphrase: Callable[[], bytes] | None = None
    ) -> "SigningKey":
        """Read a private key, as ``openssl genpkey -algorithm ed25519`` writes it.

        Args:
            data: PEM text.
            origin: Where it comes from, for messages.
            passphrase: Asked if the key is encrypted; ``None``: nobody can be asked.

        Raises:
            ConfigError: It is not a private Ed25519 key, or the passphrase is wrong.
        """
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
            Ed25519PrivateKey,
        )
        from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
            load_pem_private_key,
        )

        encrypted = b"ENCRYPTED" in data
        if encrypted and passphrase is None:
            raise ConfigError(
                f"{origin} is encrypted; run this in a terminal, which can ask for its passphrase"
            )
        word = passphrase() if encrypted and passphrase is not None else None
        try:
            key = load_pem_private_key(data, word)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            what = "cannot be opened with this passphrase" if encrypted else "is no private key"
            raise ConfigError(
                f"{origin} {what} ({error}); make one with `openssl genpkey -algorithm ed25519`"
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(
                f"{origin} is a private key, but not an Ed25519 one; make one with "
                "`openssl genpkey -algorithm ed25519`"
            )
        return cls(key)

    def sign(self, message: bytes) -> Signature:
        """Sign exact bytes."""
        return Signature(self.key_id, base64.b64encode(self._key.sign(message)).decode("ascii"))


def read_public_key(data: bytes, origin: str) -> bytes:
    """Read a public key, as ``openssl pkey -pubout`` writes it.

    Args:
        data: PEM text.
        origin: Where it comes from, for messages.

    Returns:
        Its 32 bytes.

    Raises:
        ConfigError: It is not a public Ed25519 key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"{origin} is no public key ({error}); `openssl pkey -in KEY.pem -pubout` writes one"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{origin} is a public key, but not an Ed25519 one")
    return key.public_bytes_raw()


def strict_json(data: bytes, kind: type[_T], origin: str, limit_bytes: int) -> _T:
    """Read a signed document, or refuse it.

    Args:
        data: JSON text.
        kind: What it must be.
        origin: Where it comes from, for messages.
        limit_bytes: Most bytes it may have.

    Raises:
        SignatureError: It is too large, or anything but that.
    """
    if len(data) > limit_bytes:
        raise SignatureError(f"{origin}: over {limit_bytes} bytes, the limit; it is no such file")
    try:
        return msgspec.json.decode(data.decode("utf-8"), type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise SignatureError(f"{origin}: {error}; sign it again with this program") from error


def from_base64(text: str, size_bytes: int, what: str) -> bytes:
    """Read bytes in the one base64 text that stands for them.

    Args:
        text: Standard alphabet, padded.
        size_bytes: How many there must be.
        what: How messages call it.

    Raises:
        SignatureError: It is anything else: more than one text would mean the same signature.
    """
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeError, binascii.Error) as error:
        raise SignatureError(f"{what} is not base64: {error}; sign it again") from error
    if len(data) != size_bytes:
        raise SignatureError(f"{what} has {len(data)} bytes, not {size_bytes}; sign it again")
    if base64.b64encode(data).decode("ascii") != text:
        raise SignatureError(f"{what} has stray bits in its base64; sign it again")
    return data
