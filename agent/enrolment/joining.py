"""Joins a fleet, and renews the device's certificate.

Nothing that the server says is believed before its TLS certificate leads to the CA whose
fingerprint the token carries; the CA itself is fetched without belief, and compared.
"""

import http.client
import secrets
import ssl
from base64 import b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Final
from urllib.parse import SplitResult, urlsplit

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.enrolment.certificates import fingerprint, not_after, request_for
from agent.enrolment.membership import Membership
from agent.enrolment.messages import Enrolment, EnrolRequest, RenewRequest, renewal_text
from agent.enrolment.token import Token
from agent.errors import ConfigError, Distrust, NetworkError, RefusedError, TrustError

ANSWER_BYTES_MAX: Final = 1_048_576
TIMEOUT_S: Final = 30.0

_OK: Final = 200
_CLIENT_ERRORS: Final = range(400, 500)
_TOO_MANY: Final = 429

ContextFor = Callable[[str], ssl.SSLContext]
"""Makes a context that believes one CA, given as PEM, by this device's idea of the time."""


def join(
    url: str,
    token: Token,
    *,
    key: Ed25519PrivateKey,
    device: str,
    labels: Mapping[str, str],
    context_for: ContextFor,
    now_s: float,
) -> Membership:
    """Enrol the device; nothing is stored.

    Args:
        url: Of the enrolment server, ``https://HOST[:PORT][/PATH]``.
        token: What the fleet gave to the owner.
        key: The device's key; it never leaves the device.
        device: The name that the device would like.
        labels: Facts by which plans choose devices.
        context_for: See ``ContextFor``.
        now_s: Seconds since the epoch, as far as the device knows.

    Raises:
        ConfigError: The URL is none, or the token's time is over.
        TrustError: The server is not the one that the token names, or answers nonsense.
        RefusedError: The server refuses the token.
        NetworkError: The server cannot be reached, or fails.
    """
    if now_s > token.expires_s:
        raise ConfigError(
            "the enrolment token's time is over; ask the fleet's operator for another"
        )
    server = _parts(url)
    stranger = ssl.create_default_context()  # whose word is compared with the token, not believed
    stranger.check_hostname = False
    stranger.verify_mode = ssl.CERT_NONE
    ca = _ask(server, "/ca.pem", stranger)
    if fingerprint(ca, f"{url}/ca.pem") != token.ca_sha256:
        raise TrustError(
            Distrust.WRONG_HASH,
            f"{url} shows another CA than the token names: it is another server, or somebody is "
            "in between; nothing was sent to it",
        )
    context = context_for(ca.decode("ascii"))
    root = _ask(server, "/root.json", context)
    if sha256(root).hexdigest() != token.root_sha256:
        raise TrustError(Distrust.WRONG_HASH, f"{url} gives another TUF root than the token names")
    body = EnrolRequest(
        token_id=token.id,
        secret=token.secret,
        device=device,
        csr=request_for(key, token.fleet, device),
        labels=dict(labels),
    )
    enrolment = _enrolment(_ask(server, "/enroll", context, msgspec.json.encode(body)), url)
    if enrolment.fleet != token.fleet:
        raise TrustError(
            Distrust.WRONG_FLEET,
            f"the token is for the fleet {token.fleet!r}, and {url} enrols for {enrolment.fleet!r}",
        )
    end = not_after(enrolment.certificate, key, enrolment.device)
    if not enrolment.enrolment:
        enrolment = msgspec.structs.replace(enrolment, enrolment=url)
    return Membership(
        enrolment=enrolment,
        ca=ca.decode("ascii"),
        root=root.decode("utf-8"),
        not_after_s=end.timestamp(),
    )


def renew(membership: Membership, *, key: Ed25519PrivateKey, context_for: ContextFor) -> Membership:
    """Get a new certificate for the same key, before the old one's end or after it.

    Args:
        membership: What the device has; stays as it is.
        key: The device's key, whose signature is the proof.
        context_for: See ``ContextFor``.

    Raises:
        TrustError: The server is not the fleet's, or answers nonsense.
        RefusedError: The server does not know this key any more.
        NetworkError: The server cannot be reached, or fails.
    """
    known = membership.enrolment
    csr, nonce = request_for(key, known.fleet, known.device), secrets.token_hex(16)
    proof = key.sign(renewal_text(known.fleet, known.device, nonce, csr))
    body = RenewRequest(
        device=known.device, csr=csr, nonce=nonce, proof=b64encode(proof).decode("ascii")
    )
    server = _parts(known.enrolment)
    data = _ask(server, "/renew", context_for(membership.ca), msgspec.json.encode(body))
    enrolment = _enrolment(data, known.enrolment)
    if (enrolment.fleet, enrolment.device) != (known.fleet, known.device):
        raise TrustError(Distrust.WRONG_FLEET, f"{known.enrolment} renewed another device")
    end = not_after(enrolment.certificate, key, known.device)
    if not enrolment.enrolment:
        enrolment = msgspec.structs.replace(enrolment, enrolment=known.enrolment)
    return msgspec.structs.replace(membership, enrolment=enrolment, not_after_s=end.timestamp())


def is_due(membership: Membership, now_s: float, lasts_s: float) -> bool:
    """Tell whether a certificate should be renewed: in the last third of its time.

    Args:
        membership: Holds its end.
        now_s: Seconds since the epoch.
        lasts_s: How long certificates of this fleet last, in seconds.
    """
    return now_s > membership.not_after_s - lasts_s / 3


def _parts(url: str) -> SplitResult:
    parts = urlsplit(url)
    try:
        is_usable = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or parts.query or parts.fragment:
        raise ConfigError(
            f"{url!r} is no enrolment server: https://HOST, maybe :PORT and a path, is expected"
        )
    return parts


def _ask(
    server: SplitResult, path: str, context: ssl.SSLContext, body: bytes | None = None
) -> bytes:
    target = server.path.rstrip("/") + path
    shown = f"{server.scheme}://{server.netloc}{target}"
    connection = http.client.HTTPSConnection(
        server.hostname or "", server.port, timeout=TIMEOUT_S, context=context
    )
    headers = {"Content-Type": "application/json"} if body is not None else {}
    try:
        connection.request("GET" if body is None else "POST", target, body, headers)
        response = connection.getresponse()
        data = response.read(ANSWER_BYTES_MAX + 1)
    except ssl.SSLCertVerificationError as error:
        raise TrustError(
            Distrust.WRONG_HASH,
            f"{shown}: the server's certificate is not of this fleet ({error.verify_message}); "
            "nothing was sent to it",
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise NetworkError(
            f"{shown} cannot be reached: {str(error) or type(error).__name__}"
        ) from error
    finally:
        connection.close()
    if len(data) > ANSWER_BYTES_MAX:
        raise TrustError(Distrust.TOO_LARGE, f"{shown}: over {ANSWER_BYTES_MAX} bytes")
    if response.status in _CLIENT_ERRORS and response.status != _TOO_MANY:
        raise RefusedError(response.status, f"{shown} says {response.status}: {_sentence(data)}")
    if response.status != _OK:
        raise NetworkError(f"{shown} fails ({response.status}): {_sentence(data)}")
    return data


def _sentence(data: bytes) -> str:
    return data[:200].decode("utf-8", "replace").strip() or "nothing more"


def _enrolment(data: bytes, url: str) -> Enrolment:
    try:
        return msgspec.json.decode(data, type=Enrolment)
    except msgspec.MsgspecError as error:
        raise TrustError(
            Distrust.MALFORMED, f"{url} answers nothing that this program understands: {error}"
        ) from error
