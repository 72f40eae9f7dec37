"""What is said on the hand-over socket, as structs; docs/releases.md has it in words.

One packet is one JSON request with at most one descriptor, and gets one JSON answer with at most
one. An answer that is longer than a packet comes as a descriptor of its text (``Attached``).
"""

from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from edge_runtime.protocol.release_schemas import StageOptions

PACKET_BYTES_MAX: Final = 65_536
"""Longest request, and longest answer that is not attached."""


class NeedsRequest(Struct, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag="needs"):
    """Ask which files of a bundle would have to come; its manifest is the descriptor."""

    signature: Annotated[
        str | None, Meta(description="Text of the manifest's signature; null: there is none.")
    ] = None


class OpenRequest(Struct, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag="open"):
    """Ask for a content of the store."""

    sha256: Annotated[
        str, Meta(pattern="^[0-9a-f]{64}$(?!\n)", description="Of the content, in hexadecimal.")
    ]


class StageRequest(
    StageOptions, kw_only=True, forbid_unknown_fields=True, tag_field="op", tag="stage"
):
    """Stage a bundle, whose folder or tar is the descriptor."""


Request = NeedsRequest | OpenRequest | StageRequest


class NeededFile(Struct, kw_only=True):
    """A file that is not in the store."""

    file: Annotated[str, Meta(description="Path in the bundle.")]
    sha256: str
    size: Annotated[int, Meta(description="In bytes.")]


class Needs(Struct, kw_only=True):
    """What this device needs of a bundle; answers ``needs``."""

    variants: Annotated[
        list[str], Meta(description="Model files of the variants that this CPU can run.")
    ]
    files: Annotated[list[NeededFile], Meta(description="What has to come.")]
    present: Annotated[list[str], Meta(description="SHA-256 of what the store has already.")]


class Content(Struct, kw_only=True):
    """Answers ``open``, with the content's descriptor, where the store has it."""

    size: Annotated[int, Meta(description="In bytes.")]


class Done(Struct, kw_only=True):
    """The answer to a request that was done; null: the store does not have what was asked for."""

    ok: Any


class Refused(Struct, kw_only=True):
    """The answer to any other."""

    error: Annotated[str, Meta(description="What is wrong, and what to do.")]
    status: Annotated[int, Meta(description="HTTP status of the same refusal.")]


class Attached(Struct, kw_only=True):
    """The answer is the content of the descriptor that comes with this."""

    attached: Annotated[int, Meta(description="Its size in bytes.")]
