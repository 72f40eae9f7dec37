"""Which variants of an installed version are there, where some were left out on purpose.

A device installs only what its CPU can run: files that no other variant reads need not come. The
version's folder then has a record of the variants that are there, so that a file that is absent on
purpose is not taken for one that got lost. Without a record, all of them must be there.
"""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

import msgspec

from edge_runtime.errors import ManifestError
from edge_runtime.manifest import MAX_BYTES, Manifest, Variant

PARTIAL_FILE: Final = "manifest.partial"
"""The record, beside the manifest; a bundle cannot bring one."""


class _Record(msgspec.Struct, frozen=True):
    """What the record says: names of variants, at least one."""

    variants: tuple[str, ...]


def record(variants: Iterable[str]) -> bytes:
    """Write the record.

    Args:
        variants: Names of those that are there.
    """
    return msgspec.json.encode(_Record(tuple(variants)))


def recorded(directory: Path, shown: str) -> tuple[str, ...] | None:
    """Read which variants of a version are there.

    Args:
        directory: The version's folder in the store.
        shown: How messages call it.

    Returns:
        Their names; ``None``: all.

    Raises:
        ManifestError: The record cannot be read.
    """
    try:
        with (directory / PARTIAL_FILE).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        return msgspec.json.decode(data, type=_Record).variants
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ManifestError(
            f"{shown}: cannot read which of its variants are there: {error}; install it again"
        ) from error


def complete(manifest: Manifest, absent: Collection[str]) -> tuple[Variant, ...]:
    """List the variants all of whose files are there.

    Args:
        manifest: Of the version.
        absent: Paths that are not there.
    """
    return tuple(
        variant
        for variant in manifest.variants
        if not any(file.path in absent for file in variant.reads())
    )


def names(variants: Iterable[Variant]) -> tuple[str, ...]:
    """Give the names of variants."""
    return tuple(variant.name for variant in variants)
