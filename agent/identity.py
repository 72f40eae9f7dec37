"""The key that is this device: made once, kept in the state directory, never sent anywhere."""

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.errors import StateError
from edge_runtime.errors import ConfigError
from edge_runtime.trust.signatures import KEY_FILE_BYTES_MAX, Signature, SigningKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NAME: Final = "device.key"
MODE: Final = 0o600


class DeviceKey:
    """The device's Ed25519 key.

    Args:
        key: The library's; enrolment asks for a certificate with it.

    Attributes:
        private_key: The library's key.
        public_key: The 32 bytes of its public half.
        key_id: Their name: SHA-256 in hexadecimal.
    """

    def __init__(self, key: "Ed25519PrivateKey") -> None:
        self._signing = SigningKey(key)
        self.private_key = key
        self.public_key = self._signing.public_key
        self.key_id = self._signing.key_id

    def sign(self, message: bytes) -> Signature:
        """Sign exact bytes."""
        return self._signing.sign(message)


def device_key(folder: Path) -> DeviceKey:
    """Read the device's key, or make it at the first start.

    Args:
        folder: The agent's state directory.

    Raises:
        StateError: The disk does not give or take it, others may read it, or what lies there is
            no key: nothing is replaced, since the fleet knows the device by it.
    """
    path = folder / NAME
    try:
        data = _read(path)
    except FileNotFoundError:
        return _made(path)
    except OSError as error:
        raise StateError(f"cannot read {path}: {error.strerror}") from error
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - costs megabytes
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PrivateKey,
    )
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        load_pem_private_key,
    )

    try:
        key = load_pem_private_key(data, None)
    except (ConfigError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StateError(
            f"{path} is no private key ({error}); restore it, or move it away and enrol anew"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StateError(f"{path} is not an Ed25519 key; move it away and enrol anew")
    return DeviceKey(key)


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or stat.S_IMODE(found.st_mode) & 0o077:
            raise StateError(
                f"{path} can be read by others (mode {stat.S_IMODE(found.st_mode):04o}); if nobody "
                f"did, `chmod 600 {path}`, else move it away and enrol anew"
            )
        return file.read(KEY_FILE_BYTES_MAX)


def _made(path: Path) -> DeviceKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PrivateKey,
    )
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    partial = path.with_name(f"{NAME}.part")
    try:
        partial.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(partial, flags, MODE), "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # A link never replaces a key that another process made meanwhile.
        os.link(partial, path)
        partial.unlink()
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        with contextlib.suppress(OSError):
            partial.unlink()
        return device_key(path.parent)
    except OSError as error:
        raise StateError(f"cannot make {path}: {error.strerror}") from error
    return DeviceKey(key)
