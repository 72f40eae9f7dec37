"""A device's downloads for tests: the real ones, from a server that can be told to misbehave."""

import hashlib
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.download.downloads import Downloads, Order
from agent.download.notices import Notice, NoticeKind, Progress
from agent.records import budget as budget_records
from agent.records.budget import Budget
from agent.records.file import RecordsFile
from agent.settings.device import Downloads as DownloadSettings
from agent.settings.device import LinkClass
from agent.settings.device import Repository as RepositorySettings
from agent.trust.http import Http, open_http
from fleet.documents.chunks import Chunk, ChunkIndex
from tests.hostile_http import HostileServer, hostile_server

NOVEMBER_S = 1_794_000_000.0  # a day in November 2026
ROLLOUT = "to-2"
PROMPT = DownloadSettings(retry_first_s=0.01, retry_most_s=0.02, reserve_bytes=1)


@dataclass(frozen=True)
class SignedFile:
    """What is signed about a file.

    Attributes:
        size: Its bytes.
        sha256: Of its content.
        url_path: Below the URL of artifacts.
    """

    size: int
    sha256: str
    url_path: str

    @property
    def path(self) -> str:
        """As the hostile server notes it."""
        return f"/{self.url_path}"


@dataclass
class FixedClock:
    """A clock that stands still, and can be set."""

    now_s: float = NOVEMBER_S
    own_floor_s: float = 0.0

    def wall_s(self) -> float:
        """Tell the time."""
        return self.now_s

    def is_trusted(self) -> bool:
        """Say so."""
        return True


def noise(size: int, seed: int = 0) -> bytes:
    """Make bytes that nothing compresses, the same every time."""
    return random.Random(seed).randbytes(size)  # noqa: S311 - not a secret


def sha256(data: bytes) -> str:
    """Hash bytes."""
    return hashlib.sha256(data).hexdigest()


def publish(folder: Path, data: bytes, name: str = "model.onnx") -> SignedFile:
    """Put a file where the server has it."""
    digest = sha256(data)
    signed = SignedFile(len(data), digest, f"models/m/1/{digest}.{name}")
    path = folder / signed.url_path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return signed


def chunked(data: bytes, size: int) -> ChunkIndex:
    """Cut bytes into chunks of one size, and index them."""
    pieces = [(at, data[at : at + size]) for at in range(0, len(data), size)]
    chunks = tuple(Chunk(offset=at, size=len(piece), sha256=sha256(piece)) for at, piece in pieces)
    return ChunkIndex(file_sha256=sha256(data), file_size=len(data), chunks=chunks)


@dataclass
class Store:
    """Files that the runtime has."""

    folder: Path

    def add(self, data: bytes) -> Path:
        """Have a file."""
        self.folder.mkdir(exist_ok=True)
        path = self.folder / sha256(data)
        path.write_bytes(data)
        return path

    def have(self, digest: str) -> int | None:
        """Open one."""
        try:
            return os.open(self.folder / digest, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None


@dataclass
class Device:
    """A device that downloads.

    Attributes:
        folder: Everything of it.
        urls: Of artifacts, the repository's at the end.
        settings: Of downloads.
        limits: Bytes of a month by link class.
        clock: Its clock.
        notices: What was told.
        progress: What was told of the way.
        cancelled: Calls the download off.
        tell: Called with each notice.
        read_s: Longest silence of a server.
        ca: File of the authority of servers; empty: the system's.
    """

    folder: Path
    urls: Sequence[str]
    settings: DownloadSettings = PROMPT
    limits: Mapping[LinkClass, int] = field(default_factory=dict)
    clock: FixedClock = field(default_factory=FixedClock)
    notices: list[Notice] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    tell: Callable[[Notice], None] = lambda _: None
    read_s: float = 60.0
    ca: str = ""

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.file = RecordsFile(self.folder / "agent.db", [budget_records.SCHEMA])
        self.budget = Budget(self.file, self.clock.wall_s, lambda: "unmetered", self.limits)
        self.store = Store(self.folder / "store")
        self.http: Http = open_http(RepositorySettings(read_s=self.read_s, ca=self.ca), self.clock)
        self.downloads = Downloads(
            self.folder / "blobs",
            self.http,
            self.urls,
            settings=self.settings,
            budget=self.budget,
            have=self.store.have,
        )

    def order(self, rollout_bytes_max: int = 0) -> Order:
        """Give an order whose notices are kept."""

        def note(notice: Notice) -> None:
            self.notices.append(notice)
            self.tell(notice)

        return Order(ROLLOUT, rollout_bytes_max, self.progress.append, note, self.cancelled)

    def fetch(
        self,
        artifact: SignedFile,
        chunks: ChunkIndex | None = None,
        older: Sequence[ChunkIndex] = (),
        *,
        rollout_bytes_max: int = 0,
    ) -> bytes:
        """Bring an artifact and read it."""
        order = self.order(rollout_bytes_max)
        path = self.downloads.fetch(artifact, order, chunks=chunks, older=older)
        assert path.name == artifact.sha256
        assert not list(path.parent.glob("*.part*"))
        return path.read_bytes()

    def kinds(self) -> list[NoticeKind]:
        """List what was told."""
        return [notice.kind for notice in self.notices]

    def close(self) -> None:
        """Let go of everything."""
        self.http.close()
        self.budget.settle()
        self.file.close()


@dataclass
class World:
    """A server and what it serves.

    Attributes:
        server: The repository.
        web: Its folder.
        folder: Where devices live.
    """

    server: HostileServer
    web: Path
    folder: Path
    devices: list[Device] = field(default_factory=list)

    def device(self, *mirrors: str, **settings: object) -> Device:
        """Start a device; a second one has the state of the first."""
        device = Device(self.folder / "device", [*mirrors, self.server.url], **settings)  # type: ignore[arg-type]
        self.devices.append(device)
        return device


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """Serve a folder for the length of a block."""
    web = folder / "web"
    web.mkdir()
    with hostile_server(web) as server:
        here = World(server, web, folder)
        try:
            yield here
        finally:
            for device in here.devices:
                device.close()
