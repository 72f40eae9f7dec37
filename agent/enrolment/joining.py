"""Joins a fleet, and renews the device's certificate.

Nothing that the server says is believed before its TLS certificate leads to the CA whose
fingerprint the token carries; the CA itself is fetched without belief, and compared.
"""

import secrets
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256

import msgspec

from agent.enrolment.certificates import Key, fingerprint, lifetime, request_for
from agent.enrolment.membership import Membership
from agent.enrolment.messages import Enrolment, EnrolRequest, RenewRequest, renewal_text
from agent.enrolment.token import Token
from agent.errors import ConfigError, Distrust, TrustError
from agent.settings.device import check_labels
from agent.trust.https import Clock, Https, check_url
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.trust.signatures import read_public_key

_JSON = {"Content-Type": "application/json"}


def join(
    url: str,
    token: Token,
    *,
    key: Key,
    device: str,
    labels: Mapping[str, str],
    clock: Clock,
) -> Membership:
    """Enrol the device; nothing is stored.

    Args:
        url: Of the enrolment server, ``https://HOST[:PORT][/PATH]``.
        token: What the fleet gave to the owner.
        key: The device's key; it never leaves the device.
        device: The name that the device would like.
        labels: Facts by which plans choose devices.
        clock: Judges the token's time and certificates' dates.

    Raises:
        ConfigError: The URL is none, the labels are too many, or the token's time is over.
        TrustError: The server is not the one that the token names, or answers nonsense.
        RefusedError: The server refuses the token.
        NetworkError: The server cannot be reached, or fails.
    """
    if clock.wall_s() > token.expires_s:
        raise ConfigError(
            "the enrolment token's time is over; ask the fleet's operator for another"
        )
    check_url(url)
    try:
        check_labels(labels)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    base = url.rstrip("/")
    ca = Https.stranger().ask("GET", f"{base}/ca.pem")
    if fingerprint(ca, f"{url}/ca.pem") != token.ca_sha256:
        raise TrustError(
            Distrust.WRONG_HASH,
            f"{url} shows another CA than the token names: it is another server, or somebody is "
            "in between; nothing was sent to it",
        )
    pem = _text(ca, f"{url}/ca.pem")
    server = Https.believing(pem, clock)
    root = server.ask("GET", f"{base}/root.json")
    if sha256(root).hexdigest() != token.root_sha256:
        raise TrustError(Distrust.WRONG_HASH, f"{url} gives another TUF root than the token names")
    body = EnrolRequest(
        token_id=token.id,
        secret=token.secret,
        device=device,
        csr=request_for(key, token.fleet, device),
        labels=dict(labels),
    )
    data = server.ask("POST", f"{base}/enroll", msgspec.json.encode(body), _JSON)
    enrolment = _enrolment(data, url)
    if enrolment.fleet != token.fleet:
        raise TrustError(
            Distrust.WRONG_FLEET,
            f"the token is for the fleet {token.fleet!r}, and {url} enrols for {enrolment.fleet!r}",
        )
    begin_s, end_s = lifetime(enrolment.certificate, key, enrolment.device)
    if not enrolment.enrolment:
        enrolment = msgspec.structs.replace(enrolment, enrolment=url)
    return Membership(
        enrolment=enrolment,
        ca=pem,
        root=root.decode("utf-8"),
        labels=dict(labels),
        not_before_s=begin_s,
        not_after_s=end_s,
    )


def renew(membership: Membership, *, key: Key, server: Https) -> Membership:
    """Get a new certificate for the same key, before the old one's end or after it.

    Args:
        membership: What the device has; stays as it is.
        key: The device's key, whose signature is the proof.
        server: Asks whoever shows a certificate of the membership's CA.

    Raises:
        ConfigError: The membership has no URL to renew at.
        TrustError: The server is not the fleet's, or answers nonsense.
        RefusedError: The server does not know this key any more.
        NetworkError: The server cannot be reached, fails, or takes too long.
        CanceledError: Another thread called it off.
    """
    known = membership.enrolment
    csr, nonce = request_for(key, known.fleet, known.device), secrets.token_hex(16)
    proof = key.sign(renewal_text(known.fleet, known.device, nonce, csr))
    body = RenewRequest(
        device=known.device, csr=csr, nonce=nonce, proof=b64encode(proof).decode("ascii")
    )
    url = f"{known.enrolment.rstrip('/')}/renew"
    data = server.ask("POST", url, msgspec.json.encode(body), _JSON)
    enrolment = _enrolment(data, known.enrolment)
    if (enrolment.fleet, enrolment.device) != (known.fleet, known.device):
        raise TrustError(Distrust.WRONG_FLEET, f"{known.enrolment} renewed another device")
    begin_s, end_s = lifetime(enrolment.certificate, key, known.device)
    if not enrolment.enrolment:
        enrolment = msgspec.structs.replace(enrolment, enrolment=known.enrolment)
    return msgspec.structs.replace(
        membership, enrolment=enrolment, not_before_s=begin_s, not_after_s=end_s
    )


def _text(pem: bytes, origin: str) -> str:
    try:
        return pem.decode("ascii")
    except UnicodeDecodeError as error:
        raise TrustError(
            Distrust.MALFORMED, f"{origin} has more in it than a certificate: {error}"
        ) from error


def _enrolment(data: bytes, url: str) -> Enrolment:
    try:
        enrolment = msgspec.json.decode(data, type=Enrolment)
        if enrolment.command_key:  # with a bad one the agent would not start again
            read_public_key(enrolment.command_key.encode(), "its command key")
    except (msgspec.MsgspecError, UnicodeError, RecursionError, EdgeRuntimeError) as error:
        raise TrustError(
            Distrust.MALFORMED, f"{url} answers nothing that this program understands: {error}"
        ) from error
    return enrolment
