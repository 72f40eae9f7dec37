"""Records as rows of the journal and back. Pure; imports no SQLite."""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from edge_runtime.release.records import Record

TEXT_MAX: Final = 1_000
"""Longest text that is stored, in characters; the rest is cut off."""

NUMBERS_BYTES_MAX: Final = 4_096
"""Largest measurements that are stored, as JSON."""

_JSON: Final = frozenset({"weights", "numbers"})
_CUT: Final = "..."

RecordT = TypeVar("RecordT", bound=Record)


def to_row(record: Record) -> dict[str, Any]:
    """Make the values of a row, by column.

    Args:
        record: What is to be stored. Texts are cut to ``TEXT_MAX``; measurements beyond
            ``NUMBERS_BYTES_MAX`` are left out, and their size is told instead.

    Raises:
        TypeError: The measurements hold something that JSON has no form for.
    """
    return {name: _stored(name, value) for name, value in msgspec.structs.asdict(record).items()}


def from_row(kind: type[RecordT], values: Mapping[str, Any]) -> RecordT:
    """Make a record of a row.

    Args:
        kind: Which.
        values: The row, by column.

    Raises:
        ValueError: The row is not one that this program wrote.
    """
    try:
        read = {
            name: msgspec.json.decode(value) if name in _JSON else value
            for name, value in values.items()
        }
    except TypeError as error:  # no text
        raise ValueError(str(error)) from error
    return msgspec.convert(read, kind)


def _stored(name: str, value: object) -> object:
    if name in _JSON:
        encoded = msgspec.json.encode(value, enc_hook=_plain)
        if name == "numbers" and len(encoded) > NUMBERS_BYTES_MAX:
            encoded = msgspec.json.encode({"left_out_bytes": len(encoded)})
        return encoded.decode()
    if isinstance(value, str):
        # What came from a file system may hold what UTF-8 has no form for.
        clean = value.encode("utf-8", "replace").decode()
        return clean if len(clean) <= TEXT_MAX else clean[: TEXT_MAX - len(_CUT)] + _CUT
    return value


def _plain(value: object) -> float:
    """Turn a number of another library into Python's own."""
    if hasattr(value, "__float__"):
        return float(value)
    raise TypeError(f"no number, text, list or object of JSON: {type(value).__name__}")
