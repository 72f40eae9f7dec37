"""What the cache says of itself: ``GET /v2/cache/stats`` on the admin socket."""

import msgspec


class Memory(msgspec.Struct, kw_only=True):
    """Answers in memory."""

    entries: int
    size_bytes: int
    limit_bytes: int


class File(msgspec.Struct, kw_only=True):
    """Answers on disk."""

    path: str
    problem: str = ""
    entries: int = 0
    used_bytes: int = 0
    limit_bytes: int = 0
    pending_bytes: int = 0
    written_bytes_this_hour: int = 0
    quarantined: int = 0
    errors: int = 0


class Version(msgspec.Struct, kw_only=True):
    """The cache of one model version."""

    name: str
    version: str
    verdict: str
    hits: int
    disk_hits: int
    joined: int
    misses: int
    stale: int
    bypassed: int
    evicted: int
    disk_evicted: int
    dropped: int
    errors: int
    memory_entries: int
    memory_bytes: int
    disk_entries: int
    disk_bytes: int


class Status(msgspec.Struct, kw_only=True):
    """The whole cache."""

    memory: Memory
    file: File | None = None
    versions: list[Version] = []


class ClearRequest(msgspec.Struct):
    """``POST /v2/cache/clear``; an empty model is every model."""

    model: str = ""
