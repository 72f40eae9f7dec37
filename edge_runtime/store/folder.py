"""A bundle in a folder: every step goes from an open folder to what is in it, never by a path.

Whoever owns the folder may rename and link in it while it is read. From an open folder, without
following links, that cannot lead out of it.
"""

import errno
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import Final, Self

from edge_runtime.bundle import unreadable
from edge_runtime.errors import ManifestError, ModelLoadError
from edge_runtime.manifest import MANIFEST_FILE, MAX_BYTES, SIGNATURE_FILE
from edge_runtime.store.reading import (
    CHUNK_BYTES,
    IGNORED_MAX,
    SIGNATURE_BYTES_MAX,
    SourceLimits,
)

# O_NONBLOCK: neither a pipe nor a lease that somebody holds on a file makes us wait.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_ON_THE_WAY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LISTED: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH_MAX: Final = 32
"""Folders within each other in which unknown files are looked for."""


class FolderSource:
    """See ``reading.BundleSource``.

    Args:
        descriptor: The open folder; closed by ``close``.
        shown: How messages call it.
        limits: What it may ask.

    Attributes:
        shown: How messages call it.
    """

    def __init__(self, descriptor: int, shown: str, limits: SourceLimits) -> None:
        self.shown = shown
        self._descriptor = descriptor
        self._limits = limits

    def head(self) -> tuple[bytes, bytes | None]:
        """See ``reading.BundleSource``."""
        manifest = self._small(MANIFEST_FILE, MAX_BYTES)
        if manifest is None:
            raise ModelLoadError(
                f"{self.shown}/{MANIFEST_FILE} does not exist; name the folder of a bundle"
            )
        return manifest, self._small(SIGNATURE_FILE, SIGNATURE_BYTES_MAX)

    def lacks(self, wanted: Collection[str]) -> frozenset[str]:
        """See ``reading.BundleSource``."""
        return frozenset(path for path in wanted if not self._has(path))

    def contents(self, wanted: Collection[str]) -> Iterator[tuple[str, Iterable[bytes]]]:
        """See ``reading.BundleSource``."""
        for path in wanted:
            descriptor = self._open(path)
            if descriptor is None:
                continue
            try:
                yield path, self._chunks(descriptor, path)
            finally:
                os.close(descriptor)

    def ignored(self, known: Collection[str]) -> tuple[str, ...]:
        """See ``reading.BundleSource``."""
        found: list[str] = []
        with suppress(OSError):  # it need not be readable as a list to be a bundle
            self._look(self._descriptor, "", set(known), found, [self._limits.entries])
        return tuple(found)

    def close(self) -> None:
        """Close the folder."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _has(self, path: str) -> bool:
        """Tell whether a regular file is there."""
        descriptor = self._open(path)
        if descriptor is None:
            return False
        os.close(descriptor)
        return True

    def _open(self, path: str) -> int | None:
        """Open a regular file; ``None`` if it is not there."""
        shown = f"{self.shown}/{path}"
        *folders, name = path.split("/")
        with ExitStack() as opened:
            at = self._descriptor
            try:
                for folder in folders:
                    at = os.open(folder, _ON_THE_WAY, dir_fd=at)
                    opened.callback(os.close, at)
                descriptor = os.open(name, _FILE, dir_fd=at)
            except FileNotFoundError:
                return None
            except (OSError, ValueError) as error:
                if isinstance(error, OSError) and error.errno in {errno.ELOOP, errno.ENOTDIR}:
                    raise ModelLoadError(
                        f"{shown} is a link, or lies behind one; copy the files into the bundle"
                    ) from error
                raise ModelLoadError(unreadable(shown, error)) from error
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            os.close(descriptor)
            what = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
            raise ModelLoadError(f"{shown} is {what}; a file is needed there")
        return descriptor

    def _small(self, name: str, limit_bytes: int) -> bytes | None:
        """Read a file whose size has a limit; ``None`` if it is not there."""
        descriptor = self._open(name)
        if descriptor is None:
            return None
        try:
            data = b""
            for chunk in self._chunks(descriptor, name):
                data += chunk
                if len(data) > limit_bytes:
                    raise ManifestError(
                        f"{self.shown}/{name}: over {limit_bytes} bytes, the limit for it"
                    )
            return data
        finally:
            os.close(descriptor)

    def _chunks(self, descriptor: int, path: str) -> Iterator[bytes]:
        """Read an open file to its end."""
        while True:
            try:
                chunk = os.read(descriptor, CHUNK_BYTES)
            except OSError as error:
                raise ModelLoadError(unreadable(f"{self.shown}/{path}", error)) from error
            if not chunk:
                return
            yield chunk

    def _look(
        self, at: int, prefix: str, known: set[str], found: list[str], left: list[int]
    ) -> None:
        """Collect the names of unknown files in a folder and those below, within limits."""
        folder = os.open(".", _LISTED, dir_fd=at)  # the given one may be open for its path only
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    left[0] -= 1
                    if left[0] < 0 or len(found) >= IGNORED_MAX:
                        return
                    path = f"{prefix}{entry.name}"
                    if not entry.is_dir(follow_symlinks=False):
                        if path not in known:
                            found.append(path)
                    elif prefix.count("/") < _DEPTH_MAX:
                        below = os.open(entry.name, _LISTED, dir_fd=folder)
                        try:
                            self._look(below, f"{path}/", known, found, left)
                        finally:
                            os.close(below)
        finally:
            os.close(folder)
