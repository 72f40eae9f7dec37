"""The keyring: whose signatures a device believes, and how the next one follows the present one.

A keyring file holds the keyring's exact text and signatures over it. Device and operator decide
with the same rules: a new keyring is accepted if its version is larger and enough keys of the
*present* one signed it, so that nobody who stole fewer keys can replace them, and nobody can bring
back a keyring that was replaced. The first one is named in the configuration; it must be signed by
its own keys, which shows that they exist and that the file is whole.
"""

import base64
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from edge_runtime.errors import SignatureError
from edge_runtime.trust.signatures import (
    PUBLIC_KEY_BYTES,
    SIGNATURES_MAX,
    KeyId,
    Signature,
    SigningKey,
    Strict,
    from_base64,
    key_id,
    read_signatures,
    signers,
    strict_json,
)

SCHEMA_VERSION: Final = 1
KEYRING_BYTES_MAX: Final = 65_536
KEYS_MAX: Final = 32
VERSION_MAX: Final = 2**63 - 1
PURPOSE: Final = b"edge-runtime keyring\n"
"""Begins what is signed, so that no signature over a release is one over a keyring."""

_Threshold = Annotated[int, Meta(ge=1, le=KEYS_MAX)]


class Key(Strict, frozen=True):
    """One public key.

    Attributes:
        key_id: SHA-256 of its 32 bytes, in hexadecimal.
        public_key: The 32 bytes in base64.
        name: For people; ``""``: none.
    """

    key_id: KeyId
    public_key: str
    name: Annotated[str, Meta(max_length=128)]


class Document(Strict, frozen=True, kw_only=True):
    """What a keyring says.

    Attributes:
        schema_version: Of this format.
        version: Grows with every keyring.
        threshold: Keys that must sign the next keyring.
        keys: All of them may sign keyrings and releases.
        releases_threshold: Keys that must sign a release.
    """

    schema_version: Literal[1]
    version: Annotated[int, Meta(ge=1, le=VERSION_MAX)]
    threshold: _Threshold
    keys: Annotated[tuple[Key, ...], Meta(min_length=1, max_length=KEYS_MAX)]
    releases_threshold: _Threshold


class _SignedText(Strict, frozen=True):
    """What a keyring file holds: the document's exact text, and signatures over it."""

    keyring: str
    signatures: Annotated[tuple[Signature, ...], Meta(max_length=SIGNATURES_MAX)]


class Keyring:
    """A keyring that was read; what it says is in order, whoever signed it.

    Args:
        text: The document's exact text.
        signatures: Over it.
        origin: Where it comes from, for messages.

    Attributes:
        text: As given.
        signatures: As given.
        document: What the text says.
        keys: The keys' 32 bytes by their id.

    Raises:
        SignatureError: It is not a keyring, or contradicts itself.
    """

    def __init__(self, text: str, signatures: tuple[Signature, ...], origin: str) -> None:
        self.text = text
        self.signatures = signatures
        self.origin = origin
        try:
            self._signed = PURPOSE + text.encode("utf-8")
        except UnicodeError as error:
            raise SignatureError(f"{origin}: its text is not Unicode: {error}") from error
        self.document = strict_json(
            self._signed[len(PURPOSE) :], Document, origin, KEYRING_BYTES_MAX
        )
        self.keys = {each.key_id: _public_key(each, origin) for each in self.document.keys}
        count = len(self.keys)
        if count != len(self.document.keys):
            raise SignatureError(f"{origin}: a key is there twice; list each key once")
        for field in ("threshold", "releases_threshold"):
            if getattr(self.document, field) > count:
                raise SignatureError(
                    f"{origin}: {field} is {getattr(self.document, field)}, but there are only "
                    f"{count} keys; nothing could ever be signed"
                )
        for each in signatures:
            each.raw(origin)

    @classmethod
    def read(cls, data: bytes, origin: str) -> "Keyring":
        """Read a keyring file; says nothing of whether it may be believed.

        Args:
            data: The file's bytes, at most ``KEYRING_BYTES_MAX``.
            origin: Where they come from, for messages.

        Raises:
            SignatureError: It is not a keyring file that this program understands.
        """
        file = strict_json(data, _SignedText, origin, KEYRING_BYTES_MAX)
        return cls(file.keyring, file.signatures, origin)

    def write(self) -> bytes:
        """Write the keyring file."""
        file = _SignedText(self.text, self.signatures)
        return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"

    @property
    def version(self) -> int:
        """Its version; larger is newer."""
        return self.document.version

    def signed_with(self, key: SigningKey) -> "Keyring":
        """Give the same keyring with one key's signature added, or made anew."""
        others = [each for each in self.signatures if each.key_id != key.key_id]
        every = sorted([*others, key.sign(self._signed)], key=lambda each: each.key_id)
        return Keyring(self.text, tuple(every), self.origin)

    def signed_by(self, keyring: "Keyring") -> frozenset[str]:
        """Give the ids of the keys of a keyring (perhaps this one) that signed this one."""
        return signers(self._signed, self.signatures, keyring.keys)

    def check_own(self) -> None:
        """Check that a keyring may be the first one: enough of its own keys signed it.

        Raises:
            SignatureError: Too few did.
        """
        self._check_signed_by(self, "its own keys")

    def check_follows(self, present: "Keyring") -> None:
        """Check that a keyring may replace the present one.

        Args:
            present: The one that is believed now.

        Raises:
            SignatureError: It is older, another one of the same version, or not signed by enough
                keys of the present one.
        """
        if self.version < present.version:
            raise SignatureError(
                f"{self.origin}: version {self.version} is older than the present keyring, "
                f"version {present.version}; an older one is never taken back"
            )
        if self.version == present.version:
            if self.text != present.text:
                raise SignatureError(
                    f"{self.origin}: differs from the present keyring, but has its version, "
                    f"{self.version}; give the new one a larger version"
                )
            return
        self._check_signed_by(present, f"the present keyring, version {present.version},")

    def _check_signed_by(self, keyring: "Keyring", whose: str) -> None:
        found = self.signed_by(keyring)
        needed = keyring.document.threshold
        if len(found) < needed:
            raise SignatureError(
                f"{self.origin}: keyring version {self.version} is signed by {len(found)} keys of "
                f"{whose} and needs {needed} ({keyring.describe(found)}); have more of their "
                "owners sign it"
            )

    def describe(self, signed: frozenset[str]) -> str:
        """Say which keys signed something, for a person.

        Args:
            signed: Ids of keys of this keyring.
        """
        words = [
            f"{each.name or each.key_id[:12]} {'signed' if each.key_id in signed else 'did not'}"
            for each in self.document.keys
        ]
        return ", ".join(words)


def check_release(keyring: Keyring, manifest: bytes, signature: bytes | None) -> frozenset[str]:
    """Check that a release may run on a managed device.

    Args:
        keyring: The present one.
        manifest: The exact bytes of the bundle's ``manifest.json``.
        signature: Those of its ``manifest.sig``; ``None``: it has none.

    Returns:
        Ids of the keys that signed it.

    Raises:
        SignatureError: Too few keys of the keyring signed exactly these bytes.
    """
    needed = keyring.document.releases_threshold
    if signature is None:
        raise SignatureError(
            f"the bundle is not signed (it has no manifest.sig), and this device takes releases "
            f"signed by {needed} of its keys only; sign it with `edge-runtime bundle sign`"
        )
    signatures = read_signatures(signature, "manifest.sig")
    found = signers(manifest, signatures, keyring.keys)
    if len(found) < needed:
        strangers = sorted({each.key_id for each in signatures} - keyring.keys.keys())
        unknown = f"; keys unknown here: {', '.join(each[:12] for each in strangers)}"
        raise SignatureError(
            f"the manifest is signed by {len(found)} keys of the keyring, version "
            f"{keyring.version}, and needs {needed} ({keyring.describe(found)}"
            f"{unknown if strangers else ''}); a changed manifest must be signed again"
        )
    return found


def _public_key(key: Key, origin: str) -> bytes:
    data = from_base64(key.public_key, PUBLIC_KEY_BYTES, f"{origin}: a public key")
    if key_id(data) != key.key_id:
        raise SignatureError(f"{origin}: {key.key_id} is not the id of its public key")
    return data


def listed(public_key: bytes, name: str) -> Key:
    """Make the entry of a key.

    Args:
        public_key: Its 32 bytes.
        name: For people.
    """
    return Key(key_id(public_key), base64.b64encode(public_key).decode("ascii"), name)


def text_of(document: Document) -> str:
    """Write what a keyring says, to be signed."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"
