"""Signatures: of exact bytes, by known keys, in one form."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import ConfigError, SignatureError
from edge_runtime.trust.signatures import (
    SIGNATURES_BYTES_MAX,
    SIGNATURES_MAX,
    SigningKey,
    key_id,
    read_public_key,
    read_signatures,
    signers,
    write_signatures,
)
from tests.signing import (
    key_file,
    private_key,
    public_key_file,
    signature,
    signed,
    signing_key,
)

MESSAGE = b'{"name": "m"}'
KEYS = {signing_key(name).key_id: signing_key(name).public_key for name in ("a", "b", "c")}

# RFC 8032, section 7.1, test 3: a word of somebody else's that we make and check the same.
RFC_SECRET = bytes.fromhex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7")
RFC_PUBLIC = bytes.fromhex("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025")
RFC_SIGNATURE = bytes.fromhex(
    "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
    "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
)


def _ids(*names: str) -> frozenset[str]:
    return frozenset(signing_key(name).key_id for name in names)


def test_signs_as_the_standard_says() -> None:
    key = SigningKey(Ed25519PrivateKey.from_private_bytes(RFC_SECRET))
    assert key.public_key == RFC_PUBLIC
    assert base64.b64decode(key.sign(b"\xaf\x82").signature) == RFC_SIGNATURE
    assert signers(b"\xaf\x82", [key.sign(b"\xaf\x82")], {key.key_id: RFC_PUBLIC}) == {key.key_id}


@given(message=st.binary(max_size=64), names=st.sets(st.sampled_from("abcxyz")))
def test_tells_which_known_keys_signed(message: bytes, names: set[str]) -> None:
    found = signers(message, [signature(message, name) for name in names], KEYS)
    assert found == _ids(*names) & KEYS.keys()


@given(times=st.integers(1, 5))
def test_a_key_that_signs_often_counts_once(times: int) -> None:
    assert signers(MESSAGE, [signature(MESSAGE, "a")] * times, KEYS) == _ids("a")


def test_a_bad_signature_does_not_hide_a_good_one_of_the_same_key() -> None:
    pair = [signature(b"other", "a"), signature(MESSAGE, "a")]
    assert signers(MESSAGE, pair, KEYS) == signers(MESSAGE, pair[::-1], KEYS) == _ids("a")


def test_a_signature_under_another_key_s_name_counts_for_nobody() -> None:
    lie = type(signature(MESSAGE, "x"))(signing_key("a").key_id, signature(MESSAGE, "x").signature)
    assert signers(MESSAGE, [lie], KEYS) == frozenset()


@given(place=st.integers(min_value=0))
def test_any_flipped_bit_of_the_message_is_found(place: int) -> None:
    changed = bytearray(MESSAGE)
    changed[place // 8 % len(changed)] ^= 1 << place % 8
    assert signers(bytes(changed), [signature(MESSAGE, "a")], KEYS) == frozenset()


def test_every_flipped_bit_of_the_file_is_found() -> None:
    file = signed(MESSAGE, "a")
    for place in range(8 * len(file)):
        changed = bytearray(file)
        changed[place // 8] ^= 1 << place % 8
        try:
            read = read_signatures(bytes(changed), "manifest.sig")
        except SignatureError:
            continue
        assert signers(MESSAGE, read, KEYS) == frozenset(), place


def test_the_file_is_the_same_whatever_the_order() -> None:
    a, b = signature(MESSAGE, "a"), signature(MESSAGE, "b")
    assert write_signatures([a, b]) == write_signatures([b, a, a])
    assert read_signatures(write_signatures([a, b]), "f") == tuple(
        sorted((a, b), key=lambda each: each.key_id)
    )


GOOD = json.loads(signed(MESSAGE, "a"))
ONE = GOOD["signatures"][0]
HOSTILE = {
    "nothing": b"",
    "no JSON": b"\x00\xff",
    "no Unicode": b'{"schema_version": 1, "signatures": [], "\xff": 1}',
    "a list": b"[]",
    "no signatures": json.dumps({**GOOD, "signatures": []}).encode(),
    "too many": json.dumps({**GOOD, "signatures": [ONE] * (SIGNATURES_MAX + 1)}).encode(),
    "an unknown field": json.dumps({**GOOD, "more": 1}).encode(),
    "another version": json.dumps({**GOOD, "schema_version": 2}).encode(),
    "no version": json.dumps({"signatures": [ONE]}).encode(),
    "a short key id": json.dumps({**GOOD, "signatures": [{**ONE, "key_id": "ab"}]}).encode(),
    "a key id in capitals": json.dumps(
        {**GOOD, "signatures": [{**ONE, "key_id": ONE["key_id"].upper()}]}
    ).encode(),
    "a short signature": json.dumps(
        {**GOOD, "signatures": [{**ONE, "signature": "AA=="}]}
    ).encode(),
    "no base64": json.dumps({**GOOD, "signatures": [{**ONE, "signature": "é" * 88}]}).encode(),
    "stray bits": json.dumps(
        {**GOOD, "signatures": [{**ONE, "signature": "A" * 85 + "B=="}]}
    ).encode(),
    "line breaks": json.dumps(
        {**GOOD, "signatures": [{**ONE, "signature": ONE["signature"] + "\n"}]}
    ).encode(),
    "too large": json.dumps(GOOD).encode() + b" " * SIGNATURES_BYTES_MAX,
    "nested": b"[" * 50_000,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_signature_file_is_refused_with_a_sentence(data: bytes) -> None:
    with pytest.raises(SignatureError, match=r"^manifest\.sig: .*(sign it again|no such file)"):
        read_signatures(data, "manifest.sig")


@given(st.binary(max_size=200))
def test_junk_never_raises_anything_else(data: bytes) -> None:
    with pytest.raises(SignatureError):
        read_signatures(data, "f")


def test_a_public_key_that_is_no_point_signs_nothing() -> None:
    nonsense = b"\xff" * 32
    forged = type(ONE_SIGNATURE)(key_id(nonsense), ONE_SIGNATURE.signature)
    assert signers(MESSAGE, [forged], {key_id(nonsense): nonsense}) == frozenset()


ONE_SIGNATURE = signature(MESSAGE, "a")


# -- key files -----------------------------------------------------------------------------------


def test_key_files_are_read_as_openssl_writes_them(tmp_path: Path) -> None:
    key = SigningKey.read(key_file(tmp_path, "a").read_bytes(), "a.pem")
    assert key.public_key == signing_key("a").public_key
    public = public_key_file(tmp_path, "a").read_bytes()
    assert read_public_key(public, "a.pub") == key.public_key


def test_encrypted_key_asks_for_its_passphrase() -> None:
    pem = private_key("a").private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open sesame")
    )
    assert SigningKey.read(pem, "k", lambda: b"open sesame").key_id == signing_key("a").key_id
    with pytest.raises(ConfigError, match="k cannot be opened with this passphrase"):
        SigningKey.read(pem, "k", lambda: b"open barley")
    with pytest.raises(ConfigError, match="k is encrypted"):
        SigningKey.read(pem, "k")


def test_other_keys_are_refused_with_a_sentence() -> None:
    other = generate_private_key(SECP256R1())
    private = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(ConfigError, match="k is a private key, but not an Ed25519 one"):
        SigningKey.read(private, "k")
    with pytest.raises(ConfigError, match="k is a public key, but not an Ed25519 one"):
        read_public_key(public, "k")
    for junk in (b"", b"junk", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"):
        with pytest.raises(ConfigError, match="k is no private key"):
            SigningKey.read(junk, "k")
        with pytest.raises(ConfigError, match="k is no public key"):
            read_public_key(junk, "k")


def test_the_library_is_loaded_by_whoever_checks_a_signature_only() -> None:
    code = (
        "import sys, edge_runtime.trust.keyring, edge_runtime.trust.keyring_file\n"
        "print(sorted(name for name in sys.modules if name.startswith('cryptography')))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
