"""A file that is not whole yet: its beginning, verified chunk by chunk as it grows.

What is on disk is always a beginning of the file, so its length says to the byte how far it came,
after ``kill -9`` too. It is never believed: whoever opens it hashes what is there, and cuts it off
where a chunk is not what the index says.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from agent.download.disk import translated
from edge_runtime.failpoints import failpoint
from edge_runtime.private_folder import sync
from fleet.documents.chunks import Chunk

DISK: Final = "disk"
"""Origin of what was there when the file was opened."""
BLOCK_BYTES: Final = 1_048_576
BLOB_MODE: Final = 0o644
"""Of a finished file: the runtime opens it through a descriptor, perhaps as another user."""
_PART_MODE: Final = 0o600


class BadChunkError(Exception):
    """A chunk is not what the index says; the file was cut off where the chunk begins.

    Args:
        chunk: The chunk, as it should be.
        origins: Where its bytes came from.
    """

    def __init__(self, chunk: Chunk, origins: frozenset[str]) -> None:
        super().__init__(f"the chunk at {chunk.offset} is wrong")
        self.chunk = chunk
        self.origins = origins


class Part:
    """A ``.part`` file that is open.

    Args:
        path: The file; made if it is missing.
        chunks: What the whole file is made of, in order and without gaps.
        alive: Called now and then while what is there is hashed; may raise.

    Attributes:
        path: The file.
        length: Bytes of the beginning that is there.

    Raises:
        DiskFullError: Of every method: the disk is full.
        StateError: Of every method: the disk fails.
    """

    def __init__(self, path: Path, chunks: Sequence[Chunk], alive: Callable[[], None]) -> None:
        self.path = path
        self.length = 0
        self._chunks = chunks
        self._size = sum(chunk.size for chunk in chunks)
        self._under_way = 0  # which chunk
        self._whole = hashlib.sha256()
        self._whole_before = self._whole.copy()  # without the chunk that is under way
        self._chunk = hashlib.sha256()
        self._origins: set[str] = set()
        with translated(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(path, flags, _PART_MODE)
        try:
            self._resume(alive)
        except BaseException:
            self.close()
            raise

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing; every chunk is what it should be then."""
        return self.length == self._size

    @property
    def verified(self) -> int:
        """How much of the beginning is known to be right, in bytes."""
        if self._under_way == len(self._chunks):
            return self._size
        return self._chunks[self._under_way].offset

    def sha256(self) -> str:
        """Give the digest of what is there."""
        return self._whole.hexdigest()

    def append(self, data: bytes | memoryview, origin: str) -> None:
        """Add the next bytes.

        Args:
            data: Not more than are missing.
            origin: Where they come from.

        Raises:
            BadChunkError: They complete a chunk that is wrong.
        """
        view = memoryview(data)
        if len(view) > self._size - self.length:
            raise ValueError("more bytes than the file has")
        with translated(self.path):
            failpoint("agent.download.received")
            written = 0
            while written < len(view):
                written += os.pwrite(self._descriptor, view[written:], self.length + written)
            failpoint("agent.download.written")
        self._absorb(view, origin)

    def read(self, begin: int, size: int) -> bytes:
        """Read what is there, fewer bytes at its end."""
        with translated(self.path):
            return os.pread(self._descriptor, min(size, self.length - begin), begin)

    def same(self, begin: int, data: memoryview) -> int:
        """Count how many bytes are the same as those that are there.

        Args:
            begin: Place of the first in the file.
            data: Not more than are there.
        """
        there = self.read(begin, len(data))
        if there == data:
            return len(data)
        pairs = enumerate(zip(there, data, strict=False))
        return next((at for at, (one, other) in pairs if one != other), len(there))

    def cut(self, length: int) -> None:
        """Forget what comes after a place that is not before ``verified``."""
        begin = self.verified
        with translated(self.path):
            os.ftruncate(self._descriptor, length)
        origins = set(self._origins)
        self._begin_chunk()
        self._whole = self._whole_before.copy()
        self.length = begin
        while self.length < length:
            with translated(self.path):
                data = os.pread(
                    self._descriptor, min(BLOCK_BYTES, length - self.length), self.length
                )
            if not data:
                break
            self._absorb(memoryview(data), DISK)
        if length > begin:
            self._origins = origins

    def finish(self, final: Path) -> None:
        """Make a whole file durable, and give it its final name."""
        with translated(self.path):
            failpoint("agent.download.verified")
            os.fchmod(self._descriptor, BLOB_MODE)
            os.fsync(self._descriptor)
            failpoint("agent.download.synced")
            self.path.replace(final)
            failpoint("agent.download.renamed")
            sync(final.parent)

    def close(self) -> None:
        """Let go of the file, which stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _resume(self, alive: Callable[[], None]) -> None:
        """Hash what is there, and cut off what is not right or too much."""
        try:
            while self.length < self._size:
                alive()
                wanted = min(BLOCK_BYTES, self._size - self.length)
                with translated(self.path):
                    data = os.pread(self._descriptor, wanted, self.length)
                if not data:
                    break
                self._absorb(memoryview(data), DISK)
        except BadChunkError:
            return
        with translated(self.path):
            os.ftruncate(self._descriptor, self.length)

    def _absorb(self, view: memoryview, origin: str) -> None:
        """Hash bytes that are on disk, chunk by chunk."""
        while view:
            chunk = self._chunks[self._under_way]
            take = min(len(view), chunk.offset + chunk.size - self.length)
            now, view = view[:take], view[take:]
            self._whole.update(now)
            self._chunk.update(now)
            self._origins.add(origin)
            self.length += take
            if self.length == chunk.offset + chunk.size:
                if self._chunk.hexdigest() != chunk.sha256:
                    origins = frozenset(self._origins)
                    self.cut(chunk.offset)
                    raise BadChunkError(chunk, origins)
                self._under_way += 1
                self._whole_before = self._whole.copy()
                self._begin_chunk()

    def _begin_chunk(self) -> None:
        self._chunk = hashlib.sha256()
        self._origins = set()
