"""The enrolment token: what a person carries from the fleet to the device; pure.

It is text, ``edge-enroll-1.`` and then base64url of a JSON object, so that it survives chat
windows and QR codes. It names all that must be known before a byte of the server is believed.
"""

import base64
import binascii
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from agent.errors import ConfigError

PREFIX: Final = "edge-enroll-1."
CHARS_MAX: Final = 2048

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """What the fleet says to a device before they have met.

    Attributes:
        fleet: Its name.
        id: Names the token to the server.
        secret: Proves that the device has it; at least 128 bits.
        ca_sha256: Fingerprint of the certificate (DER) that signs the server's.
        root_sha256: SHA-256 of the first TUF root's exact bytes.
        expires_s: Seconds since the epoch after which the server takes it no more.
        uses: How many devices may enrol with it; the server counts.
    """

    fleet: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    id: Annotated[str, Meta(min_length=1, max_length=64)]
    secret: Annotated[str, Meta(min_length=22, max_length=128)]
    ca_sha256: Sha256
    root_sha256: Sha256
    expires_s: Annotated[float, Meta(gt=0)]
    uses: Annotated[int, Meta(ge=1)] = 1


def read_token(text: str) -> Token:
    """Read a token.

    Raises:
        ConfigError: It is none, or not whole.
    """
    text = text.strip()
    if not text.startswith(PREFIX) or len(text) > CHARS_MAX:
        raise ConfigError(
            f"this is no enrolment token: one begins with {PREFIX!r} and has at most {CHARS_MAX} "
            "characters; copy it whole"
        )
    body = text.removeprefix(PREFIX)
    try:
        data = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(data, type=Token)
    except (binascii.Error, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise ConfigError(f"the enrolment token is not whole ({error}); copy it again") from error


def write_token(token: Token) -> str:
    """Write a token as text."""
    data = msgspec.json.encode(token, order="sorted")
    return PREFIX + base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
