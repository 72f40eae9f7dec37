"""What a web server can do wrong; ``tests.hostile_http`` does it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "truncate",
    "reset",
    "stall",
    "drip",
    "drip_head",
    "status",
    "redirect",
    "replace",
    "wrong_range",
    "ignore_range",
    "endless",
    "hang_up",
]


@dataclass(frozen=True)
class Fault:
    """What goes wrong; made by the functions below.

    Attributes:
        kind: Which.
        after_bytes: Body bytes that are sent well before.
        pause_s: Between two bytes that drip.
        code: HTTP status.
        body: Sent instead of the file.
        headers: Sent beside the usual ones, or instead of them.
    """

    kind: Kind
    after_bytes: int = 0
    pause_s: float = 0.0
    code: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def truncate(after_bytes: int) -> Fault:
    """Promise the whole body, send its beginning, close."""
    return Fault("truncate", after_bytes)


def reset(after_bytes: int = 0) -> Fault:
    """Send the body's beginning, then reset the connection."""
    return Fault("reset", after_bytes)


def stall(after_bytes: int = 0) -> Fault:
    """Send head and the body's beginning, then nothing more, and keep the connection."""
    return Fault("stall", after_bytes)


def drip(after_bytes: int = 0, pause_s: float = 0.02) -> Fault:
    """Send the rest of the body one byte at a time."""
    return Fault("drip", after_bytes, pause_s)


def drip_head(pause_s: float = 0.02) -> Fault:
    """Send headers without end, one byte at a time."""
    return Fault("drip_head", pause_s=pause_s)


def status(code: int, body: bytes = b"no", headers: Mapping[str, str] | None = None) -> Fault:
    """Answer with this status."""
    return Fault("status", code=code, body=body, headers=headers or {})


def redirect(location: str, code: int = 302) -> Fault:
    """Send the caller elsewhere."""
    return Fault("redirect", code=code, headers={"Location": location})


def replace(body: bytes, headers: Mapping[str, str] | None = None) -> Fault:
    """Answer with other bytes, whatever is asked for; ``headers`` may give another ETag."""
    return Fault("replace", body=body, headers=headers or {})


def wrong_range(shift_bytes: int = 1) -> Fault:
    """Answer a range with another one: ``shift_bytes`` further on, and say so in the head."""
    return Fault("wrong_range", shift_bytes)


def ignore_range() -> Fault:
    """Answer a range with the whole file and status 200."""
    return Fault("ignore_range")


def endless(after_bytes: int = 0) -> Fault:
    """Send the file's beginning, then bytes until the caller leaves; no length is told."""
    return Fault("endless", after_bytes)


def hang_up() -> Fault:
    """Read the request and close without a word."""
    return Fault("hang_up")
