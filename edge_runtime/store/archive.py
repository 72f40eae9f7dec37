"""A bundle in a tar file, which may come through a pipe; see ``reading.BundleSource``."""

import os
import select
import stat
import time
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import Final, Self

from edge_runtime.bundle import unreadable
from edge_runtime.errors import ArtifactError, ManifestError, ModelLoadError
from edge_runtime.manifest import MANIFEST_FILE, MAX_BYTES, SIGNATURE_FILE, check_file_name
from edge_runtime.store.reading import (
    CHUNK_BYTES,
    IGNORED_MAX,
    SIGNATURE_BYTES_MAX,
    SourceLimits,
)
from edge_runtime.store.tar_format import Entry, TarError, entries

_LIMIT_BYTES: Final = {MANIFEST_FILE: MAX_BYTES, SIGNATURE_FILE: SIGNATURE_BYTES_MAX}
# In a tar file each file has up to two headers and is filled up to the next 512 bytes.
_PER_ENTRY_BYTES: Final = 4096


class ArchiveSource:
    """A tar file; in one that comes through a pipe the manifest and its signature come first.

    Args:
        descriptor: The open file, pipe or socket; closed by ``close``.
        shown: How messages call it.
        limits: What it may ask.

    Attributes:
        shown: How messages call it.
    """

    def __init__(self, descriptor: int, shown: str, limits: SourceLimits) -> None:
        self.shown = shown
        self._limits = limits
        self._stream = _Stream(descriptor, shown, limits)
        self._coming = self._checked()
        self._files: dict[str, Entry] = {}  # all that were passed, by path
        self._total_bytes = 0

    def head(self) -> tuple[bytes, bytes | None]:
        """See ``reading.BundleSource``."""
        found: dict[str, bytes] = {}
        for entry in self._coming:
            if entry.path in _LIMIT_BYTES:
                found[entry.path] = self._small(entry)
            elif not self._stream.is_seekable:
                # Whatever comes first is one of the files: it is looked at again.
                self._coming = chain([entry], self._coming)
                break
        if MANIFEST_FILE not in found:
            where = "in it" if self._stream.is_seekable else "before its other files"
            raise ModelLoadError(
                f"{self.shown}: there is no {MANIFEST_FILE} {where}; build the bundle again"
            )
        return found[MANIFEST_FILE], found.get(SIGNATURE_FILE)

    def lacks(self, wanted: Collection[str]) -> frozenset[str]:
        """See ``reading.BundleSource``."""
        if not self._stream.is_seekable:
            return frozenset()
        return frozenset(path for path in wanted if path not in self._files)

    def contents(self, wanted: Collection[str]) -> Iterator[tuple[str, Iterable[bytes]]]:
        """See ``reading.BundleSource``."""
        if self._stream.is_seekable:
            for path in wanted:
                entry = self._files.get(path)
                if entry is not None:
                    self._stream.position = entry.position
                    yield path, self._chunks(entry)
            return
        wanted = set(wanted)
        for entry in self._coming:
            if entry.path in _LIMIT_BYTES:
                raise ManifestError(
                    f"{self.shown}: {entry.path} comes after other files; through a pipe it must "
                    "come before them"
                )
            if entry.path in wanted:
                yield entry.path, self._chunks(entry)

    def ignored(self, known: Collection[str]) -> tuple[str, ...]:
        """See ``reading.BundleSource``."""
        passed = (path for path in self._files if path not in known)
        return tuple(path for path, _ in zip(passed, range(IGNORED_MAX), strict=False))

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _checked(self) -> Iterator[Entry]:
        """Go through the archive, and refuse what leads out of a bundle or is there twice."""
        try:
            for entry in entries(self._stream, self._limits.entries):
                self._admit(entry)
                yield entry
        except TarError as error:
            raise ModelLoadError(f"{self.shown}: {error}") from error
        except ManifestError as error:
            raise ManifestError(f"{self.shown}: {error.message}") from error

    def _admit(self, entry: Entry) -> None:
        """Take note of a file, if it may be there."""
        check_file_name(entry.path)
        if entry.path in self._files:
            raise ManifestError(f"{entry.path!a} is there twice")
        self._total_bytes += entry.size_bytes
        if self._total_bytes > self._limits.bundle_bytes + sum(_LIMIT_BYTES.values()):
            raise ManifestError(
                f"its files have over {self._limits.bundle_bytes} bytes, the limit for a bundle"
            )
        self._files[entry.path] = entry

    def _small(self, entry: Entry) -> bytes:
        """Read a file whose size has a limit."""
        limit_bytes = _LIMIT_BYTES[entry.path]
        if entry.size_bytes > limit_bytes:
            raise ManifestError(
                f"{self.shown}: {entry.path}: over {limit_bytes} bytes, the limit for it"
            )
        return b"".join(self._chunks(entry))

    def _chunks(self, entry: Entry) -> Iterator[bytes]:
        """Read a file at whose beginning the stream is."""
        left = entry.size_bytes
        while left:
            chunk = self._stream.exactly(min(left, CHUNK_BYTES))
            if not chunk:
                raise ModelLoadError(
                    f"{self.shown}: it is cut off within {entry.path}; copy it again"
                )
            left -= len(chunk)
            yield chunk


class _Stream:
    """An open file, pipe or socket, read forwards; see ``tar_format.Bytes``.

    A file is read at places of our own: whoever handed over its descriptor shares its offset.
    """

    def __init__(self, descriptor: int, shown: str, limits: SourceLimits) -> None:
        self.position = 0
        self.is_seekable = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._descriptor = descriptor
        self._shown = shown
        self._stall_s = limits.stall_s
        self._limit_bytes = (
            limits.bundle_bytes + sum(_LIMIT_BYTES.values()) + limits.entries * _PER_ENTRY_BYTES
        )
        self._deadline = time.monotonic() + limits.read_s

    def exactly(self, size_bytes: int) -> bytes:
        """Read so many bytes; fewer only at the end.

        Raises:
            ArtifactError: It cannot be read, takes too long, or is over the limit.
        """
        chunks: list[bytes] = []
        left = size_bytes
        while left:
            chunk = self._some(left)
            if not chunk:
                break
            chunks.append(chunk)
            left -= len(chunk)
            self.position += len(chunk)
        return b"".join(chunks)

    def skip_to(self, position: int) -> None:
        """Go on at a later place; beyond the end there is nothing to read."""
        if self.is_seekable:
            self.position = position
            return
        while self.position < position:
            if not self.exactly(min(position - self.position, CHUNK_BYTES)):
                return

    def close(self) -> None:
        """Close it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _some(self, size_bytes: int) -> bytes:
        """Read at most so many bytes; nothing at the end."""
        try:
            if self.is_seekable:
                return os.pread(self._descriptor, size_bytes, self.position)
            if self.position >= self._limit_bytes:
                raise ManifestError(
                    f"{self._shown}: over {self._limit_bytes} bytes, the limit for a bundle"
                )
            return self._from_pipe(size_bytes)
        except (OSError, OverflowError) as error:
            raise _not_read(self._shown, error) from error

    def _from_pipe(self, size_bytes: int) -> bytes:
        left_s = min(self._stall_s, self._deadline - time.monotonic())
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        while left_s > 0 and poll.poll(left_s * 1000):
            try:
                return os.read(self._descriptor, size_bytes)
            except BlockingIOError:  # somebody else took it
                left_s = min(self._stall_s, self._deadline - time.monotonic())
        raise ModelLoadError(f"{self._shown}: whoever sends it takes too long; send it again")


def _not_read(shown: str, error: OSError | OverflowError) -> ArtifactError:
    if isinstance(error, OverflowError):  # a size beyond what a file can have
        return ModelLoadError(f"{shown}: it is cut off; copy it again")
    return ModelLoadError(unreadable(shown, error))
