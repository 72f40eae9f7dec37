"""Arguments that several commands have, and how they are read."""

import os
import re
import sys
import tomllib
from datetime import timedelta
from getpass import getpass
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from fleet.cli.output import say
from fleet.errors import BadInputError
from fleet.repository.key_files import Keys

PASSPHRASE_VARIABLE: Final = "EDGE_FLEET_PASSPHRASE"  # noqa: S105 - the name of a variable
DOCUMENT_BYTES_MAX: Final = 1_048_576

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"([0-9]{1,9})([smhd])")

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The repository's folder.")]
KeyFolders = Annotated[
    list[Path],
    typer.Option(
        "--keys",
        metavar="KEYDIR",
        help="Folder with private keys (those below count too), or one key; may be repeated.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def opened(folders: list[Path]) -> Keys:
    """Make the keys of some folders usable; asks for passphrases, and warns of careless modes.

    Raises:
        BadInputError: A folder is not there, or holds too many.
    """
    return Keys(folders, asked_passphrase, say)


def asked_passphrase(file: Path) -> bytes:
    """Get the passphrase of a key: from the environment, else from the terminal.

    Args:
        file: The key.

    Raises:
        BadInputError: There is neither.
    """
    word = os.environ.get(PASSPHRASE_VARIABLE)
    if word is not None:
        return word.encode()
    if sys.stdin is None or not sys.stdin.isatty():
        raise BadInputError(
            f"{file} is encrypted; set {PASSPHRASE_VARIABLE}, or run this in a terminal"
        )
    return getpass(f"passphrase of {file}: ").encode()


def new_passphrase(*, wanted: bool) -> bytes | None:
    """Get a passphrase for new keys, asked twice.

    Args:
        wanted: Whether the keys are to be encrypted.

    Raises:
        BadInputError: There is none, it is empty, or the two differ.
    """
    if not wanted:
        return None
    word = os.environ.get(PASSPHRASE_VARIABLE)
    if word is None:
        if sys.stdin is None or not sys.stdin.isatty():
            raise BadInputError(f"set {PASSPHRASE_VARIABLE}, or run this in a terminal")
        word = getpass("passphrase for the new keys: ")
        if getpass("the same again: ") != word:
            raise BadInputError("the two passphrases differ; nothing was made")
    if not word:
        raise BadInputError("an empty passphrase encrypts nothing; leave --encrypt out instead")
    return word.encode()


def duration(text: str) -> timedelta:
    """Read a time such as ``12h``.

    Raises:
        BadInputError: It is none.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise BadInputError(f"{text!r} is no time; write a number and s, m, h or d, such as 12h")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def pairs(texts: list[str], what: str) -> dict[str, list[str]]:
    """Read ``NAME=VALUE`` arguments; a name may come several times.

    Args:
        texts: The arguments.
        what: How messages call them.

    Raises:
        BadInputError: One has no ``=``.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise BadInputError(f"{what} {text!r} is not NAME=VALUE")
        found.setdefault(name, []).append(value)
    return found


def document(path: Path) -> dict[str, Any]:
    """Read a file of TOML or JSON, as its name says.

    Raises:
        BadInputError: It cannot be read, or is no such file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(DOCUMENT_BYTES_MAX + 1)
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > DOCUMENT_BYTES_MAX:
        raise BadInputError(f"{path} has over {DOCUMENT_BYTES_MAX} bytes; it is no plan")
    try:
        if path.suffix == ".toml":
            return tomllib.loads(data.decode())
        return msgspec.json.decode(data, type=dict[str, Any])
    except (ValueError, RecursionError) as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise BadInputError(f"{path} is not {kind}: {error}") from error
