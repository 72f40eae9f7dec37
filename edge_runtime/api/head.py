"""Judges a request's head, before a byte of its body is accepted. Pure.

Source: RFC 9110, RFC 9112.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from edge_runtime.config import Limits

HOST: Final = b"host"
CONTENT_LENGTH: Final = b"content-length"
TRANSFER_ENCODING: Final = b"transfer-encoding"
CONTENT_ENCODING: Final = b"content-encoding"
EXPECT: Final = b"expect"
JSON_LENGTH: Final = b"inference-header-content-length"
#: The headers that matter here; all others are passed over.
READ: Final = frozenset(
    {HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONTENT_ENCODING, EXPECT, JSON_LENGTH}
)


class Refusal(NamedTuple):
    """Why a request is not read on."""

    status: int
    message: str


def refusal(
    method: bytes,
    headers: Mapping[bytes, bytes],
    *,
    head_bytes: int,
    is_http_1_0: bool,
    limits: Limits,
) -> Refusal | None:
    """Say why a request cannot be served, as far as its head tells.

    Args:
        method: Upper case.
        headers: Those of ``READ``, by lower-case name.
        head_bytes: Size of the target and all headers.
        is_http_1_0: Whether the client speaks HTTP/1.0.
        limits: What a caller may ask.
    """
    if head_bytes > limits.header_bytes:
        return Refusal(431, f"the headers are larger than {limits.header_bytes} bytes")
    if HOST not in headers and not is_http_1_0:
        return Refusal(400, "an HTTP/1.1 request needs a Host header")
    if method == b"CONNECT":
        return Refusal(501, "this is not a proxy")
    length = int(headers.get(CONTENT_LENGTH, b"0"))  # llhttp let only one number through
    if length > limits.body_bytes:
        return Refusal(
            413,
            f"the body has {length} bytes; "
            f"at most {limits.body_bytes} are accepted (limits.body_bytes)",
        )
    if not headers.get(JSON_LENGTH, b"0").isdigit():
        return Refusal(400, "Inference-Header-Content-Length must be a number of bytes")
    if headers.get(TRANSFER_ENCODING, b"chunked").lower() != b"chunked":
        return Refusal(501, "the only Transfer-Encoding served here is chunked")
    if headers.get(CONTENT_ENCODING, b"identity").lower() != b"identity":
        return Refusal(501, "compressed bodies are not served here: send them as they are")
    if not is_http_1_0 and headers.get(EXPECT, b"100-continue").lower() != b"100-continue":
        return Refusal(417, "the only Expect served here is 100-continue")
    return None
