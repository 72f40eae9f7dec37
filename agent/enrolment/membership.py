"""What enrolment left on this device: one file, replaced as a whole."""

import contextlib
from pathlib import Path
from typing import Final

import msgspec

from agent.durable_file import replace_file
from agent.enrolment.messages import Enrolment, Pem
from agent.errors import ConfigError, StateError

FILE: Final = "enrolment.json"
CERTIFICATE: Final = "certificate.pem"
CA: Final = "ca.pem"
ROOT: Final = "root.json"
FILE_BYTES_MAX: Final = 1_048_576


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """A device's place in a fleet.

    Attributes:
        enrolment: What the server said.
        ca: The fleet's CA, as PEM; the token vouched for it.
        root: The first TUF root's text; the token vouched for it.
        labels: Facts by which plans choose devices, as its owner gave them.
        not_before_s: Beginning of the certificate, in seconds since the epoch.
        not_after_s: Its end.
    """

    enrolment: Enrolment
    ca: Pem
    root: str
    labels: dict[str, str] = {}
    not_before_s: float
    not_after_s: float


def read_membership(state: Path) -> Membership | None:
    """Read what enrolment left; ``None``: the device was never enrolled.

    Args:
        state: The agent's folder.

    Raises:
        StateError: The file cannot be read.
        ConfigError: It is not what this program writes.
    """
    path = state / FILE
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"cannot read {path}: {error.strerror}") from error
    try:
        return msgspec.json.decode(data, type=Membership)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ConfigError(
            f"{path} is not what edge-agent wrote ({error}); enrol the device again"
        ) from error


def write_membership(state: Path, membership: Membership) -> None:
    """Store it, durably and as a whole.

    Raises:
        StateError: The disk refused; what was there is there.
    """
    replace_file(state / FILE, msgspec.json.encode(membership))


def unpack(state: Path, membership: Membership) -> tuple[Path, Path, Path]:
    """Write the parts that libraries want as files of their own; they may be deleted at any time.

    Returns:
        Paths of the CA, the certificate and the first TUF root.

    Raises:
        StateError: The disk refused.
    """
    parts = {
        state / CA: membership.ca,
        state / CERTIFICATE: membership.enrolment.certificate,
        state / ROOT: membership.root,
    }
    for path, text in parts.items():
        data = text.encode()
        with contextlib.suppress(OSError):
            if path.read_bytes() == data:
                continue
        replace_file(path, data)
    return state / CA, state / CERTIFICATE, state / ROOT
