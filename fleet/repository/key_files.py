"""Private Ed25519 keys in PEM files: making them, and signing metadata with them.

The files are those of ``edge-runtime bundle sign`` and ``openssl genpkey -algorithm ed25519``:
``NAME.pem`` (private, mode 0600) and ``NAME.pub`` beside it.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer import CryptoSigner, SSlibKey

from edge_runtime.trust.signatures import KEY_FILE_BYTES_MAX
from fleet.errors import BadInputError
from fleet.repository.disk import write_new

FILES_MAX: Final = 256
KEY_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700
_OTHERS: Final = 0o077

Passphrase = Callable[[Path], bytes]


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made and is in memory only.

    Attributes:
        file: Where its private half is to lie.
        signer: Signs with it.
    """

    file: Path
    signer: CryptoSigner

    @property
    def public(self) -> SSlibKey:
        """Its public half, as metadata hold it."""
        key = self.signer.public_key
        if not isinstance(key, SSlibKey):  # pragma: no cover - the library makes no other here
            raise TypeError(type(key).__name__)
        return key


def new_key(file: Path) -> NewKey:
    """Make a key.

    Args:
        file: Where its private half is to lie, named ``….pem``.

    Raises:
        BadInputError: A key is there already, or no folder can be.
    """
    lowest = next(each for each in file.parents if each.exists())
    if not lowest.is_dir():
        raise BadInputError(f"{lowest} is no folder; name another one for the keys")
    for taken in (file, file.with_suffix(".pub")):
        if taken.exists():
            raise BadInputError(f"{taken} is there already; name another folder for the keys")
    return NewKey(file, CryptoSigner.generate_ed25519())


def write_keys(keys: Sequence[NewKey], passphrase: bytes | None) -> None:
    """Write new keys to their files, all of them or none.

    Args:
        keys: The keys.
        passphrase: Encrypts them; ``None``: they are readable for whoever reads the file.

    Raises:
        OSError: One cannot be written.
    """
    with keys_written(keys, passphrase):
        pass


@contextmanager
def keys_written(keys: Sequence[NewKey], passphrase: bytes | None) -> Iterator[None]:
    """Write new keys to their files; if what is done with them then fails, they go again.

    Args:
        keys: The keys.
        passphrase: Encrypts them; ``None``: they are readable for whoever reads the file.

    Raises:
        OSError: One cannot be written.
    """
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    written: list[Path] = []
    made: list[Path] = []
    try:
        for key in keys:
            missing = [each for each in key.file.parents if not each.exists()]
            for folder in reversed(missing):
                folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
                made.append(folder)
            private = load_pem_private_key(key.signer.private_bytes, None)
            public = private.public_key()
            texts = (
                (
                    key.file,
                    private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption),
                    KEY_MODE,
                ),
                (
                    key.file.with_suffix(".pub"),
                    public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
                    0o644,
                ),
            )
            for path, text, mode in texts:
                written.append(path)
                write_new(path, text, mode)
        yield
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        for folder in reversed(made):
            with suppress(OSError):  # somebody else put something there
                folder.rmdir()
        raise


class Keys:
    """The private keys that a command may use, found by what they can sign.

    Args:
        folders: Folders (with those below) and files; only the keys that are needed are opened.
        passphrase: Asked for a key that is encrypted; ``None``: nobody can be asked.
        warn: Told of keys that others may read.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        passphrase: Passphrase | None = None,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._passphrase = passphrase
        self._warn = warn
        self.shown = ", ".join(str(folder) for folder in folders) or "no folder of keys"
        self._files = [file for folder in folders for file in _key_files(folder)]
        self._public: dict[Path, str] = {}
        self._opened: dict[str, CryptoSigner] = {}

    def signers(self, keyids: Collection[str]) -> list[CryptoSigner]:
        """Open those of some keys that are here.

        Args:
            keyids: As metadata name them.

        Raises:
            BadInputError: A file cannot be read, or holds another key than its public half says.
        """
        found: dict[str, CryptoSigner] = {}
        for file in self._files:
            keyid = self._keyid(file)
            if keyid in keyids:
                if keyid not in self._opened:
                    self._open(file, keyid)
                found[keyid] = self._opened[keyid]
        return list(found.values())

    def _keyid(self, file: Path) -> str:
        if file not in self._public:
            beside = file.with_suffix(".pub")
            if beside.is_file():
                self._public[file] = _public_key(beside).keyid
            else:
                signer = self._signer(file)
                self._public[file] = signer.public_key.keyid
                self._opened[signer.public_key.keyid] = signer
        return self._public[file]

    def _open(self, file: Path, keyid: str) -> None:
        signer = self._signer(file)
        if signer.public_key.keyid != keyid:
            raise BadInputError(
                f"{file.with_suffix('.pub')} is not the public half of {file}; remove it, or put "
                "the right one there"
            )
        self._opened[keyid] = signer

    def _signer(self, file: Path) -> CryptoSigner:
        signer = _signer(file, self._passphrase)
        if file.stat().st_mode & _OTHERS:
            self._warn(f"{file}: others may read this key; `chmod 600` it")
        return signer


def _key_files(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise BadInputError(f"{folder} is not there; name the folder with the keys")
    files = sorted(folder.rglob("*.pem"))
    if len(files) > FILES_MAX:
        raise BadInputError(f"{folder} holds over {FILES_MAX} keys; name a folder of its own")
    return files


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(KEY_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > KEY_FILE_BYTES_MAX:
        raise BadInputError(f"{path} has over {KEY_FILE_BYTES_MAX} bytes; it is no key")
    return data


def _signer(file: Path, passphrase: Passphrase | None) -> CryptoSigner:
    data = _read(file)
    encrypted = b"ENCRYPTED" in data
    if encrypted and passphrase is None:
        raise BadInputError(
            f"{file} is encrypted; set EDGE_FLEET_PASSPHRASE, or run this in a terminal"
        )
    word = passphrase(file) if encrypted and passphrase is not None else None
    try:
        key = load_pem_private_key(data, word)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        what = "cannot be opened with this passphrase" if encrypted else "is no private key"
        raise BadInputError(f"{file} {what}: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInputError(f"{file} is a private key, but not an Ed25519 one")
    return CryptoSigner(key)


def _public_key(file: Path) -> SSlibKey:
    try:
        key = load_pem_public_key(_read(file))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadInputError(f"{file} is no public key: {error}; remove it") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BadInputError(f"{file} is a public key, but not an Ed25519 one; remove it")
    return SSlibKey.from_crypto(key)
