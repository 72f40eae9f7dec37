"""Reads the private keys that ``bundle`` and ``keyring`` sign with."""

import os
import stat
import sys
from collections.abc import Sequence
from getpass import getpass
from pathlib import Path

from edge_runtime.cli.terminal import say
from edge_runtime.errors import ConfigError
from edge_runtime.trust.signatures import KEY_FILE_BYTES_MAX, SigningKey

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read_keys(paths: Sequence[str]) -> list[SigningKey]:
    """Read private keys; asks for the passphrase of those that are encrypted.

    Args:
        paths: PEM files.

    Raises:
        ConfigError: One cannot be read, or is not a private Ed25519 key.
    """
    return [_read(Path(path)) for path in paths]


def read_file(path: Path, limit_bytes: int) -> bytes:
    """Read a small file that somebody named.

    Args:
        path: The file.
        limit_bytes: Most bytes it may have.

    Raises:
        ConfigError: It cannot be read, or is larger.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > limit_bytes:
        raise ConfigError(f"{path} has more than {limit_bytes} bytes; name another file")
    return data


def _read(path: Path) -> SigningKey:
    data = read_file(path, KEY_FILE_BYTES_MAX)
    if os.name == "posix" and path.stat().st_mode & _OTHERS:
        say(f"{path}: others may read this key; `chmod 600` it")
    ask = (lambda: _passphrase(path)) if sys.stdin is not None and sys.stdin.isatty() else None
    return SigningKey.read(data, str(path), ask)


def _passphrase(path: Path) -> bytes:
    return getpass(f"passphrase of {path}: ").encode()
