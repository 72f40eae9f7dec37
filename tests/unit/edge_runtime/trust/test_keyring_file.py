"""The present keyring on disk: replaced whole, by a newer one only, or left as it is."""

import subprocess
import sys
from pathlib import Path

import pytest

from edge_runtime.errors import SignatureError, StorageError
from edge_runtime.trust.keyring_file import KeyringFile
from tests.signing import keyring

FIRST = keyring("ab", threshold=2)
SECOND = keyring("bc", version=2, signed_by="ab")


@pytest.fixture
def first(tmp_path: Path) -> Path:
    path = tmp_path / "first.json"
    path.write_bytes(FIRST.write())
    return path


@pytest.fixture
def present(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder / "keyring.json"


def test_begins_with_the_keyring_of_the_configuration(first: Path, present: Path) -> None:
    assert KeyringFile(present, first).read().version == 1
    assert not present.exists()


def test_what_was_accepted_is_there_after_a_restart_without_the_first(
    first: Path, present: Path
) -> None:
    assert KeyringFile(present, first).accept(SECOND.write()).version == 2
    first.unlink()
    assert KeyringFile(present, first).read().text == SECOND.text
    assert list(present.parent.iterdir()) == [present]


def test_the_present_one_wins_over_the_configuration(first: Path, present: Path) -> None:
    KeyringFile(present, first).accept(SECOND.write())
    first.write_bytes(keyring("xy", version=9).write())
    assert KeyringFile(present, first).read().version == 2


@pytest.mark.parametrize(
    "data",
    [
        keyring("cd", version=2, signed_by="a").write(),
        keyring("cd", version=2, signed_by="bc").write(),
        keyring("bc", version=1, signed_by="ab").write(),
        b"",
        b"junk",
    ],
)
def test_a_refused_keyring_changes_nothing(data: bytes, first: Path, present: Path) -> None:
    file = KeyringFile(present, first)
    with pytest.raises(SignatureError):
        file.accept(data)
    assert not present.exists()
    file.accept(SECOND.write())
    before = present.read_bytes()
    for again in (data, FIRST.write()):
        with pytest.raises(SignatureError):
            file.accept(again)
    assert present.read_bytes() == before
    assert list(present.parent.iterdir()) == [present]


def test_the_same_keyring_again_is_not_written_again(first: Path, present: Path) -> None:
    file = KeyringFile(present, first)
    file.accept(SECOND.write())
    before = present.stat().st_ino
    assert file.accept(keyring("bc", version=2, signed_by="c").write()).version == 2
    assert present.stat().st_ino == before


def test_a_chain_of_keyrings_can_be_followed_one_by_one_only(first: Path, present: Path) -> None:
    third = keyring("d", version=3, signed_by="b")
    file = KeyringFile(present, first)
    with pytest.raises(SignatureError):
        file.accept(third.write())
    file.accept(SECOND.write())
    assert file.accept(third.write()).version == 3


def test_a_newer_keyring_of_a_package_is_taken_where_it_follows(first: Path, present: Path) -> None:
    file = KeyringFile(present, first)
    assert file.follow() is None, "none is present, so the first one counts as it is"
    assert not present.exists()
    file.accept(SECOND.write())
    assert file.follow() is None, "an older one is what packages of old have"
    third = keyring("cd", version=3, signed_by="b")
    first.write_bytes(third.write())
    taken = file.follow()
    assert taken is not None
    assert (taken.version, file.read().version) == (3, 3)
    assert file.follow() is None


@pytest.mark.parametrize(
    ("offered", "said"),
    [
        (keyring("xy", version=3, signed_by="xy").write(), "is signed by 0 keys of the present"),
        (keyring("bx", version=2, signed_by="ab").write(), "differs from the present keyring"),
        (b"{", "first.json"),
    ],
)
def test_a_keyring_of_a_package_that_may_not_follow_changes_nothing(
    first: Path, present: Path, offered: bytes, said: str
) -> None:
    file = KeyringFile(present, first)
    file.accept(SECOND.write())
    first.write_bytes(offered)
    with pytest.raises(SignatureError, match=said):
        file.follow()
    assert file.read().version == 2
    first.unlink()
    assert file.follow() is None


def test_without_any_keyring_the_message_says_how_to_make_one(present: Path, first: Path) -> None:
    with pytest.raises(SignatureError, match="`edge-runtime keyring create`"):
        KeyringFile(present).read()
    first.unlink()
    with pytest.raises(SignatureError, match="there is no keyring"):
        KeyringFile(present, first).accept(SECOND.write())


def test_a_first_keyring_that_its_own_keys_did_not_sign_is_refused(
    first: Path, present: Path
) -> None:
    first.write_bytes(keyring("ab", threshold=2, signed_by="a").write())
    with pytest.raises(SignatureError, match="signed by 1 keys of its own keys and needs 2"):
        KeyringFile(present, first).read()


def test_a_damaged_present_keyring_is_never_replaced_by_the_first(
    first: Path, present: Path
) -> None:
    present.write_bytes(b"damaged")
    with pytest.raises(SignatureError, match=r"^the present keyring: "):
        KeyringFile(present, first).read()
    with pytest.raises(SignatureError):
        KeyringFile(present, first).accept(SECOND.write())
    assert present.read_bytes() == b"damaged"


def test_what_cannot_be_read_is_an_error_and_not_an_absence(first: Path, present: Path) -> None:
    present.mkdir()
    with pytest.raises(SignatureError, match="cannot read the keyring"):
        KeyringFile(present, first).read()


def test_a_full_disk_leaves_the_present_keyring(first: Path, present: Path) -> None:
    KeyringFile(present, first).accept(SECOND.write())
    before = present.read_bytes()
    third = present.parent.parent / "third.json"
    third.write_bytes(keyring("d", version=3, signed_by="b").write())
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from edge_runtime.errors import StorageError\n"
        "from edge_runtime.trust.keyring_file import KeyringFile\n"
        "data = Path(sys.argv[2]).read_bytes()\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try:\n"
        "    KeyringFile(Path(sys.argv[1])).accept(data)\n"
        "except StorageError as error:\n"
        "    sys.exit(7 if 'the present one stays' in error.message else 8)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, present, third], check=False)
    assert done.returncode == 7
    assert present.read_bytes() == before
    assert list(present.parent.iterdir()) == [present]


def test_a_folder_that_is_not_there_is_an_error_of_the_disk(first: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot keep the new keyring"):
        KeyringFile(tmp_path / "missing" / "keyring.json", first).accept(SECOND.write())
