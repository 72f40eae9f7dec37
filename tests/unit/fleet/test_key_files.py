"""Private keys: found by what they can sign, and never half written."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from fleet.errors import BadInputError
from fleet.repository import key_files
from fleet.repository.disk import write_new
from fleet.repository.key_files import FILES_MAX, Keys, new_key, write_keys
from tests.repositories import tree


def _made(folder: Path, *names: str) -> list[str]:
    keys = [new_key(folder / f"{name}.pem") for name in names]
    write_keys(keys, None)
    return [key.public.keyid for key in keys]


def _found(keys: Keys, *keyids: str) -> set[str]:
    return {signer.public_key.keyid for signer in keys.signers(keyids)}


def test_keys_are_found_by_their_ids_whatever_their_names_and_folders(tmp_path: Path) -> None:
    first, second = _made(tmp_path / "a" / "b", "x", "y")
    (third,) = _made(tmp_path / "c", "x")
    keys = Keys([tmp_path / "a", tmp_path / "c" / "x.pem"])
    assert _found(keys, first, third, "unknown") == {first, third}
    assert _found(keys, second) == {second}
    assert _found(Keys([]), first) == set()


def test_a_key_without_its_public_half_is_found_too(tmp_path: Path) -> None:
    (keyid,) = _made(tmp_path, "x")
    (tmp_path / "x.pub").unlink()
    assert _found(Keys([tmp_path]), keyid) == {keyid}


def test_a_public_half_of_another_key_is_found_out(tmp_path: Path) -> None:
    _, second = _made(tmp_path, "x", "y")
    (tmp_path / "y.pub").rename(tmp_path / "x.pub")
    (tmp_path / "y.pem").unlink()
    keys = Keys([tmp_path])
    with pytest.raises(BadInputError, match=r"x\.pub is not the public half of"):
        keys.signers([second])


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    (keyid,) = _made(tmp_path, "x")
    private, public = tmp_path / "x.pem", tmp_path / "x.pub"
    good = private.read_bytes(), public.read_bytes()
    other = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    rsa_private = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    rsa_public = other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for words, path, data in (
        ("is no private key", private, b"nothing"),
        ("not an Ed25519 one", private, rsa_private),
        ("over 65536 bytes", private, b"x" * 65_537),
        ("is no public key", public, b"nothing"),
        ("not an Ed25519 one; remove it", public, rsa_public),
    ):
        path.write_bytes(data)
        keys = Keys([tmp_path])
        with pytest.raises(BadInputError, match=words):
            keys.signers([keyid])
        private.write_bytes(good[0])
        public.write_bytes(good[1])
    assert _found(Keys([tmp_path]), keyid) == {keyid}


def test_a_folder_of_anything_is_not_searched_for_ever(tmp_path: Path) -> None:
    for number in range(FILES_MAX + 1):
        (tmp_path / f"{number}.pem").touch()
    with pytest.raises(BadInputError, match="over 256 keys"):
        Keys([tmp_path])


def test_a_key_never_replaces_another(tmp_path: Path) -> None:
    _made(tmp_path, "x")
    with pytest.raises(BadInputError, match="is there already"):
        new_key(tmp_path / "x.pem")
    (tmp_path / "x.pem").unlink()
    with pytest.raises(BadInputError, match=r"x\.pub is there already"):
        new_key(tmp_path / "x.pem")


def test_keys_are_written_all_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [new_key(tmp_path / f"{name}.pem") for name in "xyz"]

    def full(path: Path, data: bytes, mode: int) -> None:
        if path.name == "z.pem":
            raise OSError(28, "No space left on device", str(path))
        write_new(path, data, mode)

    monkeypatch.setattr(key_files, "write_new", full)
    with pytest.raises(OSError, match="No space left"):
        write_keys(keys, None)
    assert tree(tmp_path) == {}
