"""A device's view of a repository for tests: real files, real HTTP, a clock that can be set."""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.clock import Clock
from agent.errors import Distrust, TrustError
from agent.records.file import RecordsFile
from agent.records.floors import SCHEMA, Floors
from agent.settings.device import Repository as RepositorySettings
from agent.trust.repository import Following, Repository
from agent.trust.room import Room, unlimited
from tests.hostile_http import HostileServer, hostile_server
from tests.tuf_attacks import CHANNEL, FLEET, TufRepository, plan


@dataclass
class Hands:
    """Of the clocks of a device; a test moves them.

    Attributes:
        system_s: The system clock.
        awake_s: Time awake.
        synchronised: Whether the system clock is.
    """

    system_s: float
    awake_s: float = 0.0
    synchronised: bool = True


OURS = Following(CHANNEL, FLEET)


@dataclass
class Device:
    """One device.

    Attributes:
        state: Its state folder.
        url: Of its repository.
        root: File of the first root.
        hands: Of its clocks.
        settings: Of the repository, beside URL and root.
        following: What it wants of the repository.
        counted: Bytes of metadata, as they were told.
        room: Says how many more may come.
        file: Its database.
    """

    state: Path
    url: str
    root: Path
    hands: Hands
    settings: dict[str, Any] = field(default_factory=dict)
    following: Following = OURS
    counted: list[int] = field(default_factory=list)
    room: Room = unlimited
    file: RecordsFile | None = None

    def __post_init__(self) -> None:
        """Start it."""
        self.state.mkdir(exist_ok=True)
        self.restart()

    def restart(self) -> None:
        """Begin anew with what is on its disk."""
        self.close()
        self.file = RecordsFile(self.state / "agent.db", [SCHEMA])
        self.floors = Floors(self.file)
        self.clock = Clock(
            self.floors,
            system=lambda: self.hands.system_s,
            awake=lambda: self.hands.awake_s,
            synchronised=lambda: self.hands.synchronised,
        )
        settings = RepositorySettings(url=self.url, root=str(self.root))
        self.repository = Repository(
            self.folder,
            msgspec.structs.replace(settings, **self.settings),
            self.floors,
            self.clock,
            self.counted.append,
            room=self.room,
            following=self.following,
        )

    @property
    def folder(self) -> Path:
        """Of the metadata."""
        return self.state / "tuf"

    def digest(self) -> str:
        """Give a digest of everything in its state folder, but the database's own files."""
        paths = sorted(path for path in self.state.rglob("*") if "agent.db" not in path.name)
        text = hashlib.sha256()
        for path in paths:
            text.update(path.relative_to(self.state).as_posix().encode() + b"\0")
            if path.is_symlink():
                text.update(str(path.readlink()).encode())
            elif path.is_file():
                text.update(path.read_bytes())
        return text.hexdigest()

    def close(self) -> None:
        """Let go of the database."""
        if self.file is not None:
            self.file.close()


def assert_refused(device: Device, *reasons: Distrust) -> TrustError:
    """A refresh fails for one of these reasons and changes nothing, now and after a restart."""
    before, floors = device.digest(), device.floors.versions()
    plans, release = device.repository.plans(CHANNEL), device.repository.release("digits", 1)
    assert plans is not None
    assert release is not None
    with pytest.raises(TrustError) as caught:
        device.repository.refresh()
    assert caught.value.reason in reasons
    assert device.digest() == before
    assert device.floors.versions() == floors
    device.restart()
    assert device.repository.plans(CHANNEL) == plans
    assert device.repository.release("digits", 1) == release
    with pytest.raises(TrustError):
        device.repository.refresh()
    assert device.digest() == before
    return caught.value


def change(repository: TufRepository) -> None:
    """Publish something new of every role."""
    repository.add_release("digits", 2, {"manifest.json": b'{"v":2}', "model.onnx": b"more"})
    repository.set_plans(plan("digits", 2))
    repository.publish()


def path_of(repository: TufRepository, role: str) -> str:
    """Give the path under which a role's newest metadata is served."""
    if role == "timestamp":
        return "/metadata/timestamp.json"
    return f"/metadata/{repository.signed[role].version}.{role}.json"


def published(folder: Path) -> TufRepository:
    """Make a repository with a release and its plan."""
    made = TufRepository(folder)
    made.add_release("digits", 1, {"manifest.json": b"{}", "model.onnx": b"weights"})
    made.set_plans(plan("digits", 1))
    made.publish()
    return made


# -- fixtures: a test file says `device = pytest.fixture(refreshed_device)`, and so on ------------


def published_repository(tmp_path: Path) -> TufRepository:
    """Make a repository with a release and its plan."""
    return published(tmp_path / "repository")


def repository_server(repository: TufRepository) -> Iterator[HostileServer]:
    """Serve a repository."""
    with hostile_server(repository.folder) as running:
        yield running


def new_device(
    repository: TufRepository, server: HostileServer, tmp_path: Path
) -> Iterator[Device]:
    """Make a device that believes nothing yet but the first root; its clock is its fleet's."""
    hands = Hands(repository.now_s)  # however long it took to get from there to here
    made = Device(tmp_path / "state", server.url, repository.first_root, hands)
    with contextlib.closing(made):
        yield made


def refreshed_device(
    repository: TufRepository, server: HostileServer, tmp_path: Path
) -> Iterator[Device]:
    """Make a device that believes what a repository said."""
    with contextlib.contextmanager(new_device)(repository, server, tmp_path) as made:
        made.repository.refresh()
        yield made
