"""JSON text of documents: bounded, versioned, and the same bytes for the same document.

Unknown fields are ignored, so that old devices read new documents; what an old device must not
ignore is named in ``required_features``, and a newer ``schema_version`` is refused.
"""

from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from fleet.documents.errors import DocumentError

SCHEMA_VERSION: Final = 1
FEATURES: Final[frozenset[str]] = frozenset()
"""Words this program understands in ``required_features``."""
FEATURES_MAX: Final = 64
ADVICE: Final = "write it again with edge-fleet"

_T = TypeVar("_T")

SchemaVersion = Annotated[int, Meta(ge=1, le=2**31, description="Version of this format.")]
Features = Annotated[
    tuple[Annotated[str, Meta(max_length=64)], ...],
    Meta(max_length=FEATURES_MAX, description="Features whose meaning a reader must know."),
]


class Head(msgspec.Struct, frozen=True):
    """What decides whether the rest can be understood at all."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    required_features: Features = ()


def check_head(head: Head, origin: str) -> None:
    """Refuse a document that is made for newer programs.

    Args:
        head: Its version and features.
        origin: Where it comes from, for messages.

    Raises:
        DocumentError: This program cannot understand it.
    """
    if head.schema_version > SCHEMA_VERSION:
        raise DocumentError(
            f"{origin}: schema_version {head.schema_version} is newer than {SCHEMA_VERSION}, the "
            "newest this program reads; update it"
        )
    for feature in head.required_features:
        if feature not in FEATURES:
            raise DocumentError(
                f"{origin}: needs the feature {feature!r}, which this program does not have; "
                "update it"
            )


def decode(data: bytes, kind: type[_T], origin: str, limit_bytes: int) -> _T:
    """Read a document.

    Args:
        data: Its JSON text.
        kind: What it must be.
        origin: Where it comes from, for messages.
        limit_bytes: Most bytes it may have.

    Raises:
        DocumentError: It is too large, too new, or anything but that.
    """
    if len(data) > limit_bytes:
        raise DocumentError(f"{origin}: over {limit_bytes} bytes, the limit; {ADVICE}")
    try:
        text = data.decode("utf-8")
        check_head(msgspec.json.decode(text, type=Head), origin)
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DocumentError(f"{origin}: {error}; {ADVICE}") from error
    except RecursionError as error:
        raise DocumentError(f"{origin}: nested too deeply; {ADVICE}") from error


def convert(value: object, kind: type[_T], origin: str) -> _T:
    """Read a document that somebody else has parsed as JSON or TOML.

    Args:
        value: Dictionaries, lists, texts and numbers.
        kind: What it must be.
        origin: Where it comes from, for messages.

    Raises:
        DocumentError: It is too new, or anything but that.
    """
    try:
        check_head(msgspec.convert(value, Head), origin)
        return msgspec.convert(value, kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DocumentError(f"{origin}: {error}; {ADVICE}") from error


def encode(document: msgspec.Struct, origin: str) -> bytes:
    """Write a document: keys sorted, no spaces.

    Raises:
        DocumentError: It cannot be written as JSON.
    """
    try:
        return msgspec.json.encode(document, order="sorted")
    except (TypeError, ValueError, OverflowError) as error:
        raise DocumentError(f"{origin}: cannot be written as JSON: {error}") from error


def schema_text(kind: type[msgspec.Struct], title: str, description: str) -> str:
    """Give the JSON Schema of a document, to be published.

    Args:
        kind: The document.
        title: What it is called.
        description: What it is for, in a sentence.
    """
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": description,
        **msgspec.json.schema(kind),
    }
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"
