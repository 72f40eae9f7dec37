"""The root that came with the device: what all trust begins with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root

from agent.errors import ConfigError

ROOT_BYTES_MAX: Final = 512_000


@dataclass(frozen=True)
class FirstRoot:
    """A root that is believed because somebody put it there.

    Attributes:
        data: Its text.
        version: Its version.
    """

    data: bytes
    version: int


def first_root(path: str) -> FirstRoot:
    """Read the first root.

    Args:
        path: Its file.

    Raises:
        ConfigError: There is none, or it is not a root that signed itself.
    """
    if not path:
        raise ConfigError("there is no `root` in [repository]: enrol the device, or name its file")
    try:
        with Path(path).open("rb") as file:
            data = file.read(ROOT_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the first root {path}: {error.strerror}") from error
    if len(data) > ROOT_BYTES_MAX:
        raise ConfigError(f"the first root {path} is over {ROOT_BYTES_MAX} bytes")
    try:
        metadata = Metadata[Root].from_bytes(data)
        if not isinstance(metadata.signed, Root):
            raise ConfigError(f"the first root {path} is metadata of another role")
        metadata.signed.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
    except RepositoryError as error:
        raise ConfigError(f"the first root {path} is not one: {error}") from error
    return FirstRoot(data, metadata.signed.version)
