"""Certificate requests and certificates of the device, through cryptography."""

from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from agent.errors import Distrust, TrustError

Key = Ed25519PrivateKey
"""The device's own; it never leaves the device."""


def request_for(key: Key, fleet: str, device: str) -> str:
    """Make a PKCS #10 request as PEM: common name the device, organisation the fleet.

    Args:
        key: The device's key; the request is signed with it.
        fleet: The fleet's name.
        device: The device's name.
    """
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, device),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, fleet),
        ]
    )
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, None)
    return request.public_bytes(Encoding.PEM).decode("ascii")


def fingerprint(pem: bytes, origin: str) -> str:
    """Give the SHA-256 of the one certificate in a PEM file, over its DER bytes.

    Raises:
        TrustError: It does not hold exactly one.
    """
    return sha256(_only(pem, origin).public_bytes(Encoding.DER)).hexdigest()


def lifetime(pem: str, key: Key, device: str) -> tuple[float, float]:
    """Check that a certificate is this device's, and give its beginning and its end.

    Args:
        pem: The device's certificate and those above it.
        key: The device's key.
        device: The name that the server says it gave.

    Raises:
        TrustError: It is for another key or another name.
    """
    try:
        certificate = x509.load_pem_x509_certificates(pem.encode())[0]
        raw = certificate.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    except ValueError as error:
        raise TrustError(
            Distrust.MALFORMED, f"the enrolment server sent no usable certificate: {error}"
        ) from error
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    is_ours = raw == key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    if not is_ours or [each.value for each in names] != [device]:
        raise TrustError(
            Distrust.MALFORMED,
            "the enrolment server sent a certificate for another key or another name; nothing "
            "was changed",
        )
    return certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()


def _only(pem: bytes, origin: str) -> x509.Certificate:
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise TrustError(Distrust.MALFORMED, f"{origin} is no certificate: {error}") from error
    if len(found) != 1:
        raise TrustError(
            Distrust.MALFORMED, f"{origin} holds {len(found)} certificates; one is expected"
        )
    return found[0]
