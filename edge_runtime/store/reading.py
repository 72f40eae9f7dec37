"""How the store reads a bundle that comes in, whatever form it has.

Somebody else made it and may be changing it meanwhile, so nothing that it says is believed: the
manifest is only bytes here, and what is read of a file must have the manifest's size and digest,
which the store finds out while it copies. Nothing of it is ever linked into the store.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol, Self

CHUNK_BYTES: Final = 1_048_576
"""Read at once of a file's content."""
SIGNATURE_BYTES_MAX: Final = 65_536
"""Largest ``manifest.sig``."""
IGNORED_MAX: Final = 20
"""Unknown files whose names are told."""


@dataclass(frozen=True, slots=True)
class SourceLimits:
    """What a bundle may ask of its reader.

    Attributes:
        bundle_bytes: Most that all its files take together, in bytes.
        entries: Most files and folders in it.
        stall_s: Longest wait for the next byte of a pipe or socket, in seconds.
        read_s: Longest time in which a pipe or socket must come to its end, in seconds.
    """

    bundle_bytes: int
    entries: int = 10_000
    stall_s: float = 30.0
    read_s: float = 3600.0


class BundleSource(Protocol):
    """A bundle that is read once, the manifest first.

    Attributes:
        shown: How messages call it.
    """

    shown: str

    def head(self) -> tuple[bytes, bytes | None]:
        """Read the exact bytes of the manifest, and of its signature if there is one.

        Raises:
            ArtifactError: There is no manifest, it is over its limit, or this is not a bundle.
        """
        ...

    def lacks(self, wanted: Collection[str]) -> frozenset[str]:
        """Tell which files are surely not there; a pipe cannot say before it was read.

        Args:
            wanted: Paths in the bundle that ``manifest.check_file_name`` accepted.

        Raises:
            ArtifactError: A file cannot be looked at, or is not a regular file.
        """
        ...

    def contents(self, wanted: Collection[str]) -> Iterator[tuple[str, Iterable[bytes]]]:
        """Read files, in the order in which they come.

        Args:
            wanted: Paths in the bundle that ``manifest.check_file_name`` accepted.

        Yields:
            The path of each that is there, once, and its content, to be taken before the next; it
            may be longer than it should be, and is not to be taken to its end then.

        Raises:
            ArtifactError: A file cannot be read, or is not a regular file.
        """
        ...

    def ignored(self, known: Collection[str]) -> tuple[str, ...]:
        """Name some of the other files in the bundle, at most ``IGNORED_MAX``.

        Args:
            known: Paths that are not among them.
        """
        ...

    def close(self) -> None:
        """Let go of it."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...
