"""TLS on devices whose clock may be wrong: OpenSSL checks the chain, and we judge its dates.

A device without a battery-backed clock starts in 1970, and one that lay in a drawer wakes up after
its server's old certificates ended. With a clock that can be believed, dates count as always. With
one that cannot, only this is known for sure: it is not earlier than the time floor. So only a
certificate that ended before the floor is refused.
"""

import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.errors import ConfigError, NetworkError

NO_CHECK_TIME: Final = 0x200000
"""OpenSSL's ``X509_V_FLAG_NO_CHECK_TIME``; Python's ``ssl`` has no name for it."""
EARLY_S: Final = 300.0
"""Clocks of two machines differ; a certificate may begin so much later than now."""


@dataclass(frozen=True)
class Dates:
    """When a certificate holds, in seconds since 1970.

    Attributes:
        subject: Whose it is, for messages.
        begins_s: From when.
        ends_s: Until when.
    """

    subject: str
    begins_s: float
    ends_s: float


def client_context(ca: str) -> ssl.SSLContext:
    """Make a context that checks names and chains, and leaves dates to :func:`check_dates`.

    Args:
        ca: File of certificates to believe; empty: the system's.

    Raises:
        ConfigError: The file cannot be read, or holds none.
    """
    if ca and not Path(ca).is_file():
        raise ConfigError(f"there is no file {ca} with certificates; see `ca` in [repository]")
    try:
        context = ssl.create_default_context(cafile=ca or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{ca} holds no certificates that can be read: {error}") from error
    context.verify_flags |= NO_CHECK_TIME
    return context


def chain_dates(sock: ssl.SSLSocket) -> tuple[Dates, ...]:
    """Read the dates of every certificate of the verified chain, the server's own first.

    Python before 3.13 gives the chain only through a private attribute; this is the one place
    that uses it. Where it is not there, the server's own certificate is judged alone.
    """
    try:
        chain: Iterable[Mapping[str, Any]] = [
            certificate.get_info()
            for certificate in sock._sslobj.get_verified_chain()  # type: ignore[attr-defined]  # noqa: SLF001
        ]
    except (AttributeError, TypeError):
        chain = [sock.getpeercert() or {}]
    return tuple(_dates(certificate) for certificate in chain)


def check_dates(
    chain: Sequence[Dates], host: str, *, now_s: float, floor_s: float, is_trusted: bool
) -> None:
    """Refuse a chain whose dates cannot be right.

    Args:
        chain: Dates of its certificates.
        host: Whose chain, for messages.
        now_s: The clock.
        floor_s: A time that is past for sure.
        is_trusted: Whether the clock can be believed.

    Raises:
        NetworkError: A certificate ended, or does not hold yet.
    """
    if not chain:
        raise NetworkError(f"{host} showed no certificate")
    for dates in chain:
        if dates.ends_s < (now_s if is_trusted else floor_s):
            raise NetworkError(
                f"{host}: the certificate of {dates.subject} has ended; it must be renewed there, "
                "unless the clock of this device is wrong"
            )
        if is_trusted and dates.begins_s > now_s + EARLY_S:
            raise NetworkError(
                f"{host}: the certificate of {dates.subject} does not hold yet; is the clock of "
                "this device or of that server wrong?"
            )


def _dates(certificate: Mapping[str, Any]) -> Dates:
    subject = ", ".join(
        str(value) for part in certificate.get("subject", ()) for key, value in part
    )
    return Dates(
        subject or "the server",
        ssl.cert_time_to_seconds(certificate["notBefore"]),
        ssl.cert_time_to_seconds(certificate["notAfter"]),
    )
