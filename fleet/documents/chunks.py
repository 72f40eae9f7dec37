"""Where a file's pieces begin and what is in them: what a device needs to fetch only new ones.

Boundaries follow the content, so bytes put in at the front move no later piece. The text is the
artifact ``models/NAME/VERSION/FILE.chunks``: sizes and digests side by side, about 50 bytes a
chunk; offsets follow from the sizes, so gaps and overlaps cannot be written.
"""

import base64
import binascii
from itertools import accumulate
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from fleet.documents import codec
from fleet.documents.errors import DocumentError
from fleet.documents.names import Count, Sha256

INDEX_BYTES_MAX: Final = 2_097_152
CHUNKS_MAX: Final = 32_768
CHUNK_BYTES_MAX: Final = 67_108_864
_DIGEST_BYTES: Final = 32


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a file.

    Attributes:
        offset: Where it begins, in bytes.
        size: How many bytes it has.
        sha256: Of its bytes, in hexadecimal.
    """

    offset: int
    size: int
    sha256: str


class ChunkIndex(msgspec.Struct, frozen=True, kw_only=True):
    """Every piece of a file, in order and without gaps.

    Attributes:
        schema_version: Of the format.
        file_sha256: Of the whole file, in hexadecimal.
        file_size: Bytes of the whole file.
        chunks: The pieces.
    """

    schema_version: int = codec.SCHEMA_VERSION
    file_sha256: str
    file_size: int
    chunks: tuple[Chunk, ...]


class ChunkIndexText(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk index as it is written."""

    schema_version: codec.SchemaVersion = codec.SCHEMA_VERSION
    required_features: codec.Features = ()
    file_sha256: Annotated[Sha256, Meta(description="SHA-256 of the whole file.")]
    file_size: Annotated[Count, Meta(description="Bytes of the whole file.")]
    sizes: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=CHUNK_BYTES_MAX)], ...],
        Meta(max_length=CHUNKS_MAX, description="Bytes of each chunk, in order."),
    ]
    digests: Annotated[
        str,
        Meta(
            max_length=CHUNKS_MAX * 43 + 4,
            description="SHA-256 of each chunk: 32 bytes each, one after another, in base64.",
        ),
    ]


def read_chunks(data: bytes, origin: str) -> ChunkIndex:
    """Read a chunk index.

    Args:
        data: JSON text, at most ``INDEX_BYTES_MAX``.
        origin: Where it comes from, for messages.

    Raises:
        DocumentError: Not an index that this program understands, or its sizes do not make up
            the file's.
    """
    text = codec.decode(data, ChunkIndexText, origin, INDEX_BYTES_MAX)
    try:
        digests = base64.b64decode(text.digests.encode("ascii"), validate=True)
    except (UnicodeError, binascii.Error) as error:
        raise DocumentError(f"{origin}: digests are not base64: {error}; {codec.ADVICE}") from error
    if len(digests) != len(text.sizes) * _DIGEST_BYTES:
        raise DocumentError(
            f"{origin}: {len(text.sizes)} sizes, but {len(digests)} bytes of digests; "
            f"{codec.ADVICE}"
        )
    if sum(text.sizes) != text.file_size:
        raise DocumentError(
            f"{origin}: the chunks have {sum(text.sizes)} bytes, the file {text.file_size}; "
            f"{codec.ADVICE}"
        )
    offsets = accumulate(text.sizes, initial=0)
    chunks = (
        Chunk(
            offset=offset,
            size=size,
            sha256=digests[n * _DIGEST_BYTES : (n + 1) * _DIGEST_BYTES].hex(),
        )
        for n, (offset, size) in enumerate(zip(offsets, text.sizes, strict=False))
    )
    return ChunkIndex(
        schema_version=text.schema_version,
        file_sha256=text.file_sha256,
        file_size=text.file_size,
        chunks=tuple(chunks),
    )


def write_chunks(index: ChunkIndex) -> bytes:
    """Write a chunk index: the same bytes for the same index.

    Raises:
        DocumentError: Offsets leave gaps, or ``read_chunks`` would refuse the result.
    """
    origin = f"chunks of {index.file_sha256}"
    try:
        digests = bytes.fromhex("".join(chunk.sha256 for chunk in index.chunks))
    except ValueError as error:
        raise DocumentError(f"{origin}: a digest is not hexadecimal: {error}") from error
    text = ChunkIndexText(
        schema_version=index.schema_version,
        file_sha256=index.file_sha256,
        file_size=index.file_size,
        sizes=tuple(chunk.size for chunk in index.chunks),
        digests=base64.b64encode(digests).decode("ascii"),
    )
    data = codec.encode(text, origin)
    if read_chunks(data, origin) != index:
        raise DocumentError(f"{origin}: the offsets leave gaps, or the digests are not plain")
    return data


def schema_text() -> str:
    """Give the JSON Schema of a chunk index."""
    return codec.schema_text(
        ChunkIndexText, "Chunk index", "The content-defined chunks of a file of a release."
    )
