"""A real repository for tests: made, signed and served on loopback by the fleet's own code.

Names for the tests of the agent::

    with make_repository(tmp_path) as repository:
        repository.add_bundle({"model.onnx": ...}, model="m", version=2)
        repository.set_plan(model="m", version=2)
        repository.url, repository.root, repository.timestamp()
"""

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edge_runtime import manifest
from edge_runtime.manifest import MANIFEST_FILE
from fleet.documents.chunks import ChunkIndex, read_chunks
from fleet.documents.paths import artifact_file_path, chunks_path, plans_path
from fleet.documents.plan import Plan, Plans, read_plans
from fleet.documents.release import GuardRails, ReleaseFacts, Requires
from fleet.repository.addition import AddedRelease, NewRelease, add_release
from fleet.repository.creation import NewRepository, create
from fleet.repository.key_files import Keys
from fleet.repository.layout import Layout
from fleet.repository.plans import set_plan
from fleet.repository.refreshing import refresh
from fleet.repository.releases import artifacts_of, releases_of
from fleet.repository.server import bind, server
from fleet.repository.state import State, now, read_state
from fleet.repository.verification import verify
from tests.daemons import eventually
from tests.signing import signing_key
from tests.store_bundles import ONNX, described

FLEET = "test-fleet"
CHANNEL = "stable"
MODEL = "m"
SIGNER = "publisher"
"""Name of the key that signs manifests: ``tests.signing.signing_key(SIGNER)``."""


@dataclass
class TestRepository:
    """A repository on disk, which may be served.

    Attributes:
        layout: Where it lies.
        keys_folder: Its private keys, below ``offline`` and ``online``.
        url: Folder of ``metadata/`` and ``artifacts/``; ``file://`` while it is not served.
    """

    __test__ = False

    layout: Layout
    keys_folder: Path
    url: str

    @property
    def folder(self) -> Path:
        """Its folder."""
        return self.layout.folder

    @property
    def root(self) -> Path:
        """The file that a device is given first."""
        return self.layout.root

    @property
    def metadata_url(self) -> str:
        """Where metadata are."""
        return f"{self.url}/metadata"

    @property
    def artifacts_url(self) -> str:
        """Where artifacts are."""
        return f"{self.url}/artifacts"

    @property
    def keys(self) -> Keys:
        """Every private key."""
        return Keys([self.keys_folder])

    def add(self, bundle: Path, *, at: datetime | None = None, **wanted: Any) -> AddedRelease:  # noqa: ANN401
        """Release a bundle that lies somewhere; ``wanted`` as ``NewRelease`` has it."""
        wanted.setdefault("sign", signing_key(SIGNER))
        return add_release(self.layout, bundle, NewRelease(**wanted), self.keys, now=at or now())

    def add_bundle(
        self,
        files: Mapping[str, bytes] | None = None,
        *,
        model: str = MODEL,
        version: int = 1,
        **wanted: Any,  # noqa: ANN401
    ) -> AddedRelease:
        """Make a bundle of some files and release it."""
        bundle = self.folder.parent / f"bundle-{model}-{version}"
        write_bundle(bundle, {"model.onnx": ONNX} if files is None else files, model, version)
        return self.add(bundle, **wanted)

    def set_plan(
        self,
        *,
        channel: str = CHANNEL,
        at: datetime | None = None,
        rollout: str = "",
        model: str = MODEL,
        version: int = 1,
        **fields: Any,  # noqa: ANN401
    ) -> Plan:
        """Set a plan, for every device unless the fields say something else."""
        fields = {
            "rollout": rollout or f"to-{version}",
            "model": model,
            "version": version,
            "stages": [{"permyriad": 10_000}],
            **fields,
        }
        return set_plan(self.layout, channel, fields, self.keys, now=at or now()).plan

    def refresh(self, *, at: datetime | None = None) -> None:
        """Sign everything online again."""
        refresh(self.layout, self.keys, older_than=timedelta(), now=at or now())

    def state(self) -> State:
        """Read the newest metadata."""
        return read_state(self.layout)

    def timestamp(self) -> bytes:
        """Give the raw timestamp, as it is announced."""
        return (self.layout.metadata / "timestamp.json").read_bytes()

    def plans(self, channel: str = CHANNEL) -> Plans:
        """Read the plans of a channel."""
        path = plans_path(channel)
        digest = self.state().rollouts.signed.targets[path].hashes["sha256"]
        return read_plans(
            (self.layout.artifacts / artifact_file_path(path, digest)).read_bytes(), path
        )

    def facts(self, model: str = MODEL, version: int = 1) -> ReleaseFacts:
        """Give the signed facts of a release."""
        return releases_of(self.state().releases.signed)[model][version]

    def artifact(self, file: str, model: str = MODEL, version: int = 1) -> Path:
        """Find the file that holds an artifact of a release."""
        target = artifacts_of(self.state().releases.signed, model, version)[file]
        return self.layout.artifacts / artifact_file_path(target.path, target.hashes["sha256"])

    def chunks(self, file: str, model: str = MODEL, version: int = 1) -> ChunkIndex:
        """Read the chunk index of a file of a release."""
        path = self.artifact(f"{file}.chunks", model, version)
        return read_chunks(path.read_bytes(), chunks_path(model, version, file))


def write_bundle(
    folder: Path, files: Mapping[str, bytes], model: str = MODEL, version: int = 1
) -> Path:
    """Write a bundle folder whose manifest nobody has signed."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    (folder / MANIFEST_FILE).write_bytes(manifest.write(described(files, model, version)))
    return folder


def new_repository(
    folder: Path, *, fleet: str = FLEET, at: datetime | None = None, **expires_days: int
) -> TestRepository:
    """Make an empty repository in ``folder/repository``, its keys in ``folder/keys``."""
    layout, keys = Layout(folder / "repository"), folder / "keys"
    folder.mkdir(exist_ok=True)
    wanted = NewRepository(fleet=fleet, expires_days=expires_days)
    create(layout, keys, wanted, passphrase=None, now=at or now())
    return TestRepository(layout, keys, layout.folder.as_uri())


@contextmanager
def served(repository: TestRepository) -> Iterator[TestRepository]:
    """Serve a repository on loopback, from a thread, until the end."""
    listening = bind("127.0.0.1", 0)
    serving = server(repository.layout)
    thread = threading.Thread(target=serving.run, args=([listening],), name="repository")
    thread.start()
    before = repository.url
    try:
        eventually(lambda: serving.started, "the start of the server")
        repository.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        yield repository
    finally:
        repository.url = before
        serving.should_exit = True
        thread.join()
        listening.close()


@contextmanager
def make_repository(
    folder: Path,
    *,
    files: Mapping[str, bytes] | None = None,
    requires: Requires | None = None,
    guard_rails: GuardRails | None = None,
    fleet: str = FLEET,
) -> Iterator[TestRepository]:
    """Serve a repository with version 1 of the model ``m`` and a plan for every device.

    Args:
        folder: An empty folder.
        files: Of the bundle; ``None``: the smallest model that there is.
        requires: What a device must be.
        guard_rails: Bounds of the plan.
        fleet: Name of the fleet.
    """
    repository = new_repository(folder, fleet=fleet)
    repository.add_bundle(
        files, requires=requires or Requires(), guard_rails=guard_rails or GuardRails()
    )
    repository.set_plan()
    with served(repository):
        yield repository


def tree(folder: Path) -> dict[str, str]:
    """Give the digest of every file below a folder, by its path: equal if nothing changed."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else ""
        for path in sorted(folder.rglob("*"))
    }


def problems(repository: TestRepository) -> tuple[str, ...]:
    """Walk a repository as a client; empty: it is whole."""
    return verify(repository.layout, now=now()).problems


def refused(
    repository: TestRepository, error: type[Exception], words: str, act: Callable[[], object]
) -> None:
    """See that something is refused and that not a byte changed, of the repository or its keys."""
    before = tree(repository.folder.parent)
    with pytest.raises(error, match=words):
        act()
    assert tree(repository.folder.parent) == before
