"""What the agent sends of the prediction journal, and what the receiver says; pure.

::

    GET URL/DEVICE/JOURNAL             -> Progress: the last row that is stored there for good
    PUT URL/DEVICE/JOURNAL/FIRST-LAST  Batch as gzipped JSON -> Progress

A row is named by (device, journal, number), and the receiver ignores what it has: whatever is sent
twice is stored once. ``Edge-Signature`` holds base64 of the device key's signature over
``signed_text``; the TLS connection needs no client certificate.
"""

import gzip
from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from edge_runtime.protocol.journal_schemas import JournalRow

SCHEMA_VERSION: Final = 1
BATCH_BYTES: Final = 1_048_576
"""Records of one batch before they are packed; one larger record goes alone."""
SIGNATURE_HEADER: Final = "Edge-Signature"
KEY_HEADER: Final = "Edge-Key"
CONTEXT: Final = b"edge-runtime/journal/1\0"


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that follow each other, the oldest first; numbers may be missing, never repeat."""

    fleet: str
    device: str
    journal: str
    rows: tuple[JournalRow, ...]
    schema_version: Annotated[int, Meta(ge=1, le=SCHEMA_VERSION)] = SCHEMA_VERSION


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """What the receiver has.

    Attributes:
        through: Every row up to this number is stored for good, or will never be asked for.
    """

    through: Annotated[int, Meta(ge=0)]


def first_batch(rows: Sequence[JournalRow]) -> tuple[JournalRow, ...]:
    """Take as many rows from the front as fit a batch; at least one."""
    size = 0
    for index, row in enumerate(rows):
        size += len(row.record)
        if index and size > BATCH_BYTES:
            return tuple(rows[:index])
    return tuple(rows)


def packed(batch: Batch) -> bytes:
    """Give a batch's bytes; the same batch gives the same bytes."""
    return gzip.compress(msgspec.json.encode(batch, order="sorted"), compresslevel=6, mtime=0)


def signed_text(batch: Batch, body: bytes) -> bytes:
    """Give the exact bytes that the device signs: names, numbers, and the body's digest."""
    first, last = batch.rows[0].number, batch.rows[-1].number
    head = [batch.fleet, batch.device, batch.journal, first, last, sha256(body).hexdigest()]
    return CONTEXT + msgspec.json.encode(head)
