"""The JSON bodies of the prediction journal on the admin socket."""

from typing import Annotated, Final

from msgspec import Meta, Struct

ANSWER_BYTES: Final = 4_194_304
"""Records of one answer together, before base64; at least one row is always given."""


class JournalQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """The query of ``GET /admin/journal``."""

    after: Annotated[int, Meta(ge=0, description="Only rows with a larger number.")] = 0


class JournalRow(Struct, kw_only=True):
    """One prediction that was kept."""

    number: Annotated[int, Meta(description="Rises, and is never given twice.")]
    model: str
    version: str
    digest: str
    at_ms: Annotated[int, Meta(description="Milliseconds since the epoch, by the device's clock.")]
    reason: Annotated[str, Meta(description="`share`, `inputs` or `low-confidence`.")]
    is_encrypted: bool
    record: Annotated[
        bytes, Meta(description="Base64: a JSON head behind its size in 4 bytes, then the tensors.")
    ]


class JournalRows(Struct, kw_only=True):
    """``GET /admin/journal``: the oldest rows first."""

    journal: Annotated[
        str, Meta(description="Of this journal; another one when it began anew. Empty: none.")
    ]
    rows: list[JournalRow]
    has_more: bool


class Collected(Struct, kw_only=True, forbid_unknown_fields=True):
    """``POST /admin/journal/collected``: rows that are safe elsewhere, and may go."""

    journal: Annotated[str, Meta(min_length=1, description="Of which they were.")]
    through: Annotated[int, Meta(ge=1, description="The last of them.")]


class Removed(Struct, kw_only=True):
    """How many rows went."""

    rows: int
