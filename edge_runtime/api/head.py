"""Judges a request's head, before a byte of its body is accepted, and what is no request. Pure.

Source: RFC 9110, RFC 9112.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from edge_runtime.protocol.messages import ROUTING_KEY_BYTES_MAX
from edge_runtime.settings import Limits

HOST: Final = b"host"
CONTENT_LENGTH: Final = b"content-length"
TRANSFER_ENCODING: Final = b"transfer-encoding"
CONTENT_ENCODING: Final = b"content-encoding"
EXPECT: Final = b"expect"
JSON_LENGTH: Final = b"inference-header-content-length"
ACCEPT: Final = b"accept"
ROUTING_KEY: Final = b"edge-routing-key"
#: The headers that matter here; all others are passed over.
READ: Final = frozenset(
    {
        HOST,
        CONTENT_LENGTH,
        TRANSFER_ENCODING,
        CONTENT_ENCODING,
        EXPECT,
        JSON_LENGTH,
        ACCEPT,
        ROUTING_KEY,
    }
)

DIGITS_MAX: Final = 19  # of a size: more is no size, and int() raises from 4301 on
VERSIONS: Final = ("1.0", "1.1")
_TLS_HANDSHAKE: Final = 0x16


class Refusal(NamedTuple):
    """Why a request is not read on."""

    status: int
    message: str


def refusal(
    method: bytes,
    headers: Mapping[bytes, bytes],
    *,
    head_bytes: int,
    version: str,
    limits: Limits,
) -> Refusal | None:
    """Say why a request cannot be served, as far as its head tells.

    Args:
        method: Upper case.
        headers: Those of ``READ``, by lower-case name.
        head_bytes: Size of the target and all headers.
        version: Of HTTP, like ``1.1``.
        limits: What a caller may ask.
    """
    if head_bytes > limits.header_bytes:
        return Refusal(431, f"the headers are larger than {limits.header_bytes} bytes")
    if version not in VERSIONS:
        return _other_version(version)
    is_http_1_0 = version == "1.0"
    if HOST not in headers and not is_http_1_0:
        return Refusal(400, "an HTTP/1.1 request needs a Host header")
    if method == b"CONNECT":
        return Refusal(501, "this is not a proxy")
    stated = headers.get(CONTENT_LENGTH, b"0").strip()  # llhttp let only one number through
    if len(stated) > DIGITS_MAX:
        return Refusal(400, "Content-Length has too many digits")
    length = int(stated)
    if length > limits.body_bytes:
        return Refusal(
            413,
            f"the body has {length} bytes; "
            f"at most {limits.body_bytes} are accepted (limits.body_bytes)",
        )
    json_length = headers.get(JSON_LENGTH, b"0")
    if not json_length.isdigit() or len(json_length) > DIGITS_MAX:
        return Refusal(400, "Inference-Header-Content-Length must be a number of bytes")
    if len(headers.get(ROUTING_KEY, b"")) > ROUTING_KEY_BYTES_MAX:
        return Refusal(400, f"Edge-Routing-Key is longer than {ROUTING_KEY_BYTES_MAX} bytes")
    if headers.get(TRANSFER_ENCODING, b"chunked").lower() != b"chunked":
        return Refusal(501, "the only Transfer-Encoding served here is chunked")
    if headers.get(CONTENT_ENCODING, b"identity").lower() != b"identity":
        return Refusal(501, "compressed bodies are not served here: send them as they are")
    if not is_http_1_0 and headers.get(EXPECT, b"100-continue").lower() != b"100-continue":
        return Refusal(417, "the only Expect served here is 100-continue")
    return None


def again(method: bytes, target: bytes, version: str, headers: Mapping[bytes, bytes]) -> bytes:
    """Write a head with nothing but what is read here: without its wish for another protocol."""
    lines = [b"%s %s HTTP/%s" % (method, target, version.encode())]
    lines += [b"%s: %s" % each for each in headers.items()]
    return b"\r\n".join([*lines, b"", b""])


def unreadable(reason: str, *, is_unknown_method: bool, version: str, first_byte: int) -> Refusal:
    """Say what is wrong with bytes that the parser gave up on.

    Args:
        reason: What the parser says.
        is_unknown_method: Whether it stumbled over the method.
        version: Of HTTP, as far as the parser came; else ``0.0``.
        first_byte: Of what was read.
    """
    if is_unknown_method:
        if first_byte == _TLS_HANDSHAKE:
            return Refusal(400, "this is plain HTTP, and the client speaks TLS: use http://")
        return Refusal(501, "unknown method")
    if version not in {*VERSIONS, "0.0"}:
        return _other_version(version)
    return Refusal(400, f"this is not HTTP/1.1: {reason}")


def _other_version(version: str) -> Refusal:
    return Refusal(505, f"HTTP/{version} is not served here; use HTTP/1.1")
