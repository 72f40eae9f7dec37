"""Keyrings: each follows the one before it, signed by enough of its keys, and never goes back."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import SignatureError
from edge_runtime.trust.keyring import (
    KEYRING_BYTES_MAX,
    KEYS_MAX,
    Keyring,
    check_release,
)
from tests.signing import keyring, signed, signing_key

MANIFEST = b'{"name": "m", "version": 3}\n'
NAMES = "abcdefgh"


@dataclass(frozen=True)
class Case:
    """Keys of a keyring, how many are needed, and who signs; strangers are capitals."""

    keys: list[str]
    threshold: int
    signers: list[str]

    @property
    def known(self) -> int:
        """How many keys of the keyring sign."""
        return len(set(self.keys) & set(self.signers))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    keys = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True))
    everybody = st.sampled_from([*keys, "X", "Y", "Z"])
    return Case(
        keys, draw(st.integers(1, len(keys))), draw(st.lists(everybody, min_size=1, max_size=8))
    )


# -- releases ------------------------------------------------------------------------------------


@given(cases())
def test_a_release_needs_as_many_different_keys_as_the_keyring_says(case: Case) -> None:
    ring = keyring(case.keys, releases_threshold=case.threshold)
    file = signed(MANIFEST, *case.signers)
    if case.known >= case.threshold:
        found = check_release(ring, MANIFEST, file)
        assert found == {signing_key(name).key_id for name in {*case.signers} & {*case.keys}}
    else:
        with pytest.raises(SignatureError, match=f"is signed by {case.known} keys .* needs"):
            check_release(ring, MANIFEST, file)


def test_every_flipped_bit_of_a_manifest_is_refused() -> None:
    ring, file = keyring("a"), signed(MANIFEST, "a")
    for place in range(8 * len(MANIFEST)):
        changed = bytearray(MANIFEST)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(SignatureError):
            check_release(ring, bytes(changed), file)


@given(st.integers(min_value=0))
def test_any_flipped_bit_of_a_needed_signature_is_refused(place: int) -> None:
    ring = keyring("ab", releases_threshold=2)
    file = bytearray(signed(MANIFEST, "a", "b"))
    file[place // 8 % len(file)] ^= 1 << place % 8
    with pytest.raises(SignatureError):
        check_release(ring, MANIFEST, bytes(file))


def test_a_release_without_signatures_is_refused_and_told_what_to_do() -> None:
    with pytest.raises(SignatureError, match=r"is not signed .* `edge-runtime bundle sign`"):
        check_release(keyring("a"), MANIFEST, None)


def test_refusal_names_who_signed_who_did_not_and_who_is_unknown() -> None:
    ring = keyring(["ann", "bob"], releases_threshold=2)
    with pytest.raises(SignatureError) as refusal:
        check_release(ring, MANIFEST, signed(MANIFEST, "ann", "eve"))
    assert "ann signed, bob did not" in refusal.value.message
    assert f"unknown here: {signing_key('eve').key_id[:12]}" in refusal.value.message


def test_a_signature_over_a_keyring_is_none_over_a_release() -> None:
    ring = keyring("a")
    assert ring.signed_by(ring)
    file = {"schema_version": 1, "signatures": json.loads(ring.write())["signatures"]}
    with pytest.raises(SignatureError):
        check_release(ring, ring.text.encode(), json.dumps(file).encode())


# -- succession ----------------------------------------------------------------------------------


@given(cases(), st.lists(st.sampled_from("XYZ"), min_size=1, max_size=3, unique=True))
def test_the_next_keyring_needs_enough_keys_of_the_present_one(
    case: Case, next_keys: list[str]
) -> None:
    present = keyring(case.keys, threshold=case.threshold)
    following = keyring(next_keys, version=2, signed_by=case.signers)
    if case.known >= case.threshold:
        following.check_follows(present)
    else:
        with pytest.raises(SignatureError, match=f"signed by {case.known} keys of the present"):
            following.check_follows(present)


@given(cases())
def test_the_first_keyring_needs_enough_of_its_own_keys(case: Case) -> None:
    ring = keyring(case.keys, threshold=case.threshold, signed_by=case.signers)
    if case.known >= case.threshold:
        ring.check_own()
    else:
        with pytest.raises(SignatureError, match=f"signed by {case.known} keys of its own keys"):
            ring.check_own()


def test_keys_of_the_next_keyring_do_not_count_for_the_present_one() -> None:
    present, following = keyring("a"), keyring("bc", version=2, signed_by="bc")
    with pytest.raises(SignatureError, match="signed by 0 keys of the present"):
        following.check_follows(present)


@given(present=st.integers(1, 9), following=st.integers(1, 9))
def test_an_older_keyring_is_never_taken_however_well_signed(present: int, following: int) -> None:
    now, then = keyring("a", version=present), keyring("ab", version=following, signed_by="a")
    if following > present:
        then.check_follows(now)
    else:
        with pytest.raises(SignatureError, match=r"older|has its version"):
            then.check_follows(now)


def test_the_same_keyring_again_is_no_error() -> None:
    keyring("ab", signed_by="b").check_follows(keyring("ab", signed_by="a"))


def test_every_flipped_bit_of_a_keyring_file_is_refused() -> None:
    present = keyring("a")
    file = keyring("b", version=2, signed_by="a").write()
    for place in range(8 * len(file)):
        changed = bytearray(file)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(SignatureError):
            Keyring.read(bytes(changed), "new").check_follows(present)


def test_every_flipped_bit_of_a_first_keyring_is_refused() -> None:
    file = keyring("a").write()
    for place in range(8 * len(file)):
        changed = bytearray(file)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(SignatureError):
            Keyring.read(bytes(changed), "first").check_own()


def test_a_key_signs_a_keyring_once() -> None:
    ring = keyring("ab", signed_by="aab")
    assert len(ring.signatures) == 2
    assert ring.signed_by(ring) == {signing_key("a").key_id, signing_key("b").key_id}
    assert Keyring.read(ring.write(), "again").write() == ring.write()


# -- malformed -----------------------------------------------------------------------------------


def _changed(**changes: Any) -> str:  # noqa: ANN401 - any JSON
    return json.dumps({**json.loads(keyring("ab").text), **changes})


def _key(**changes: str) -> dict[str, str]:
    key: dict[str, str] = json.loads(keyring("ab").text)["keys"][0]
    return {**key, **changes}


TEXTS = {
    "nothing": "",
    "no JSON": "keyring",
    "an unknown field": _changed(more=1),
    "another schema": _changed(schema_version=2),
    "version 0": _changed(version=0),
    "a huge version": _changed(version=2**63),
    "threshold 0": _changed(threshold=0),
    "threshold above keys": _changed(threshold=3),
    "releases_threshold above keys": _changed(releases_threshold=3),
    "no keys": _changed(keys=[]),
    "many keys": _changed(keys=[_key()] * (KEYS_MAX + 1)),
    "a key twice": _changed(keys=[_key(), _key(name="other")], threshold=1),
    "another key's id": _changed(keys=[_key(key_id=signing_key("z").key_id)]),
    "a short key": _changed(keys=[_key(public_key="AAAA")]),
    "stray bits": _changed(keys=[_key(public_key="A" * 42 + "B=")]),
    "a lone surrogate": '{"name": "\ud800"}',
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_a_text_that_is_no_keyring_is_refused_with_a_sentence(text: str) -> None:
    data = json.dumps({"keyring": text, "signatures": []}).encode()
    with pytest.raises(SignatureError, match=r"^new: "):
        Keyring.read(data, "new")


FILES = {
    "nothing": b"",
    "no JSON": b"\xff",
    "a manifest": MANIFEST,
    "no signatures": b'{"keyring": "{}"}',
    "too large": b" " * (KEYRING_BYTES_MAX + 1),
    "nested": b"[" * 50_000,
}


@pytest.mark.parametrize("data", FILES.values(), ids=FILES.keys())
def test_a_file_that_is_no_keyring_is_refused_with_a_sentence(data: bytes) -> None:
    with pytest.raises(SignatureError, match=r"^new: "):
        Keyring.read(data, "new")


@given(st.binary(max_size=200))
def test_junk_never_raises_anything_else(data: bytes) -> None:
    with pytest.raises(SignatureError):
        Keyring.read(data, "new")


def test_bad_signatures_are_found_when_it_is_read() -> None:
    file = json.loads(keyring("a").write())
    file["signatures"][0]["signature"] = "AAAA"
    with pytest.raises(SignatureError, match="a signature has 3 bytes, not 64"):
        Keyring.read(json.dumps(file).encode(), "new")


def test_keys_without_names_are_named_by_their_id() -> None:
    ring = keyring([""], releases_threshold=1)
    assert signing_key("").key_id[:12] in ring.describe(frozenset())
