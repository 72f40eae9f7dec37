"""What a device and the enrolment server say to each other; pure.

::

    GET  URL/ca.pem       the certificate that signs the server's; its fingerprint is in the token
    GET  URL/root.json    the first TUF root; its SHA-256 is in the token
    POST URL/enroll       EnrolRequest -> Enrolment
    POST URL/renew        RenewRequest -> Enrolment
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from agent.settings.messaging import Broker

SCHEMA_VERSION: Final = 1
RENEW_CONTEXT: Final = b"edge-runtime/renew/1\0"
"""Begins what the device's key signs for a renewal; nothing else that it signs begins so."""

Pem = Annotated[str, Meta(max_length=65_536)]


class EnrolRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for a certificate with a token.

    Attributes:
        token_id: The token's ``id``.
        secret: The token's ``secret``.
        device: The name that the device would like; the server may give another.
        csr: A PKCS #10 request for the device's key, as PEM.
        labels: Facts by which plans choose devices, as the owner set them.
    """

    token_id: str
    secret: str
    device: str
    csr: Pem
    labels: dict[str, str] = {}
    schema_version: int = SCHEMA_VERSION


class RenewRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for a new certificate for the same key, also when the old one is past its end.

    Attributes:
        device: Its name.
        csr: A request for the same key, as PEM.
        proof: Base64 of the key's signature over ``renewal_text``.
        nonce: Hex, never used before.
    """

    device: str
    csr: Pem
    nonce: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]
    proof: str
    schema_version: int = SCHEMA_VERSION


class Enrolment(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a device a member of its fleet.

    Attributes:
        fleet: The fleet's name.
        device: The device's name there.
        certificate: The device's certificate and those between it and the CA, as PEM.
        repository: URL of the TUF repository.
        mirrors: Other places of its artifacts.
        brokers: MQTT brokers, tried in turn.
        command_key: Public key whose signed commands are obeyed, as PEM; empty: none.
        journal: URL that prediction journals are uploaded to; empty: nowhere.
        enrolment: URL that certificates are renewed at.
    """

    fleet: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    device: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    certificate: Pem
    repository: Annotated[str, Meta(max_length=2048)] = ""
    mirrors: Annotated[tuple[str, ...], Meta(max_length=16)] = ()
    brokers: Annotated[tuple[Broker, ...], Meta(max_length=8)] = ()
    command_key: Pem = ""
    journal: Annotated[str, Meta(max_length=2048)] = ""
    enrolment: Annotated[str, Meta(max_length=2048)] = ""
    schema_version: Annotated[int, Meta(ge=1, le=SCHEMA_VERSION)] = SCHEMA_VERSION


def renewal_text(fleet: str, device: str, nonce: str, csr: str) -> bytes:
    """Give the exact bytes that a renewal's proof signs."""
    parts = [fleet, device, nonce, csr]
    return RENEW_CONTEXT + msgspec.json.encode(parts)
