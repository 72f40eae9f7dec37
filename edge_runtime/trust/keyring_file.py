"""The present keyring of a device, on its disk: replaced whole, by a newer one only."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge_runtime.errors import SignatureError, StorageError
from edge_runtime.private_folder import sync
from edge_runtime.trust.keyring import KEYRING_BYTES_MAX, Keyring

_FILE_MODE: Final = 0o644  # public keys only


class KeyringFile:
    """The present keyring on disk. One thread uses it.

    Args:
        path: Its file, in a folder that nobody else may write to.
        first: File of the keyring to begin with, while there is none at ``path``; ``None``: there
            is none to begin with.
    """

    def __init__(self, path: Path, first: Path | None = None) -> None:
        self._path = path
        self._first = first

    def read(self) -> Keyring:
        """Give the present keyring.

        Raises:
            SignatureError: There is none, or it cannot be read, or the first one is not signed by
                enough of its own keys.
        """
        data = _read(self._path)
        if data is not None:
            return Keyring.read(data, "the present keyring")
        data = _read(self._first) if self._first is not None else None
        if data is None:
            raise SignatureError(
                f"there is no keyring: {self._first or 'no file'} is named for it in "
                "`release.keyring`; make one with `edge-runtime keyring create`"
            )
        keyring = Keyring.read(data, str(self._first))
        keyring.check_own()
        return keyring

    def follow(self) -> Keyring | None:
        """Take the keyring to begin with where it is newer than the present one and follows it.

        A package brings its newest keyring as the one to begin with; on a device that has one
        already it counts like any other that is offered.

        Returns:
            The keyring that is present now, if it changed; ``None``: there was nothing newer.

        Raises:
            SignatureError: It is newer, or another one of the same version, and may not follow.
            StorageError: It cannot be written; the present one stays.
        """
        data = _read(self._first) if self._first is not None else None
        present = _read(self._path)
        if data is None or present is None:
            return None
        origin = str(self._first)
        offered = Keyring.read(data, origin).version
        version = Keyring.read(present, "the present keyring").version
        if offered < version:
            return None
        accepted = self.accept(data, origin)
        return accepted if offered > version else None

    def accept(
        self,
        data: bytes,
        origin: str = "the new keyring",
        *,
        check: Callable[[Keyring, Keyring], None] = lambda _present, _new: None,
    ) -> Keyring:
        """Replace the present keyring; on any error the present one stays.

        Args:
            data: The new keyring file's bytes.
            origin: Where they come from, for messages.
            check: Given the present and the new one, which may follow it, raises if it must not be
                taken all the same.

        Returns:
            The keyring that is present now.

        Raises:
            SignatureError: It may not follow the present one, see ``Keyring.check_follows``.
            StorageError: It cannot be written. (Where the disk fails after the new one was put in
                place, either of the two may be there after a power cut; both were signed.)
        """
        new = Keyring.read(data, origin)
        present = self.read()
        new.check_follows(present)
        if new.version == present.version:
            return present
        check(present, new)
        try:
            _replace(self._path, data)
        except OSError as error:
            raise StorageError(
                f"cannot keep {origin} in {self._path}: {error.strerror or error}; the present "
                "one stays"
            ) from error
        return new


def _read(path: Path) -> bytes | None:
    """Read a keyring file; ``None`` if there is none."""
    try:
        with path.open("rb") as file:
            return file.read(KEYRING_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SignatureError(
            f"cannot read the keyring {path}: {error.strerror or error}; check its permissions"
        ) from error


def _replace(path: Path, data: bytes) -> None:
    """Put a file in place, whole and on the disk, or leave what is there."""
    partial = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}")
    try:
        partial.write_bytes(data)
        partial.chmod(_FILE_MODE)
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
