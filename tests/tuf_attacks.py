"""A small TUF repository that its owner, or a thief of some of its keys, can do anything with.

It has the roles and paths of ours (root 2 of 2, targets, releases, rollouts, snapshot, timestamp)
and is written as the static files that a web server gives. Nothing is written before
:meth:`TufRepository.publish` or :meth:`TufRepository.write`, so a test can sign what no honest
tool would.
"""

import copy
import datetime as dt
import shutil
import time
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from fleet.documents.paths import (
    RELEASES_PATHS,
    RELEASES_ROLE,
    ROLLOUTS_PATHS,
    ROLLOUTS_ROLE,
    artifact_file_path,
    artifact_path,
    plans_path,
)
from fleet.documents.plan import Plan, Plans, Stage, write_plans
from fleet.documents.release import ReleaseFacts, custom_of

DAY_S = 86_400.0
TOP = (Root.type, Targets.type, Snapshot.type, Timestamp.type)
DELEGATED = (RELEASES_ROLE, ROLLOUTS_ROLE)
FLEET = "demo"
CHANNEL = "stable"


def signer() -> CryptoSigner:
    """Make a key."""
    return CryptoSigner.generate_ed25519()


class TufRepository:
    """The repository, and every key of it.

    Args:
        folder: Gets ``metadata/``, ``artifacts/`` and ``first-root.json``.
        now_s: The time by which it was signed, seconds since 1970; ``None``: now.
        days: Until everything expires.

    Attributes:
        folder: The same.
        signers: Keys by role; what is there signs, whether the root knows it or not.
        signed: The metadata by role, to be changed at will before it is published.
        files: Artifacts by path.
    """

    def __init__(self, folder: Path, *, now_s: float | None = None, days: float = 30) -> None:
        self.folder = folder
        self.now_s = time.time() if now_s is None else now_s
        self.signers = {role: [signer()] for role in (*TOP, *DELEGATED)}
        self.signers[Root.type].append(signer())
        self.files: dict[str, bytes] = {}
        expires = self.in_days(days)
        root = Root(expires=expires)
        targets = Targets(expires=expires)
        self.signed: dict[str, Any] = {
            Root.type: root,
            Targets.type: targets,
            Snapshot.type: Snapshot(expires=expires),
            Timestamp.type: Timestamp(expires=expires),
            **{role: Targets(expires=expires) for role in DELEGATED},
        }
        for role in TOP:
            for key in self.signers[role]:
                root.add_key(key.public_key, role)
        root.roles[Root.type].threshold = 2
        paths = {RELEASES_ROLE: RELEASES_PATHS, ROLLOUTS_ROLE: ROLLOUTS_PATHS}
        targets.delegations = Delegations(
            {},
            {
                role: DelegatedRole(role, [], 1, terminating=True, paths=list(paths[role]))
                for role in DELEGATED
            },
        )
        for role in DELEGATED:
            targets.add_key(self.signers[role][0].public_key, role)
        for role in (Targets.type, *DELEGATED):
            self.signed[Snapshot.type].meta[f"{role}.json"] = MetaFile(1)
        (folder / "metadata").mkdir(parents=True)
        (folder / "artifacts").mkdir()
        self.write()
        self.first_root = folder / "first-root.json"
        shutil.copyfile(folder / "metadata" / "1.root.json", self.first_root)

    def in_days(self, days: float) -> dt.datetime:
        """Give a time so many days after its signing, whole seconds as TUF wants them."""
        at = dt.datetime.fromtimestamp(self.now_s + days * DAY_S, tz=dt.UTC)
        return at.replace(microsecond=0)

    def add_release(
        self,
        model: str,
        version: int,
        files: Mapping[str, bytes],
        **facts: Any,  # noqa: ANN401
    ) -> None:
        """Sign a release; ``manifest.json`` must be among its files."""
        release = ReleaseFacts(
            model=model,
            version=version,
            counter=facts.pop("counter", version),
            created_s=float(int(self.now_s)),
            **facts,
        )
        for file, data in files.items():
            custom = custom_of(release) if file == "manifest.json" else None
            self.add_file(RELEASES_ROLE, artifact_path(model, version, file), data, custom)

    def set_plans(
        self,
        *plans: Plan,
        issued_s: float | None = None,
        fleet: str = FLEET,
        channel: str = CHANNEL,
    ) -> None:
        """Sign the plans of the channel."""
        document = Plans(
            fleet=fleet,
            channel=channel,
            issued_s=self.now_s if issued_s is None else issued_s,
            plans=plans,
        )
        self.add_file(ROLLOUTS_ROLE, plans_path(CHANNEL), write_plans(document))

    def add_file(
        self, role: str, path: str, data: bytes, custom: dict[str, Any] | None = None
    ) -> None:
        """Describe a file in a role, whether that role may or not."""
        target = TargetFile.from_data(path, data, ["sha256"])
        if custom is not None:
            target.unrecognized_fields["custom"] = custom
        self.signed[role].targets[path] = target
        self.files[path] = data

    def publish(self, *roles: str) -> None:
        """Raise versions of roles, of snapshot and timestamp, and write everything.

        Args:
            roles: Which; none: those of artifacts.
        """
        for role in roles or (Targets.type, *DELEGATED):
            if role not in {Snapshot.type, Timestamp.type}:
                self.signed[role].version += 1
            if role in {Targets.type, *DELEGATED}:
                self.signed[Snapshot.type].meta[f"{role}.json"].version = self.signed[role].version
        self.signed[Snapshot.type].version += 1
        self.announce()

    def announce(self) -> None:
        """Raise the timestamp's version, let it name the snapshot, and write everything."""
        timestamp = self.signed[Timestamp.type]
        timestamp.version += 1
        timestamp.snapshot_meta.version = self.signed[Snapshot.type].version
        self.write()

    def delegate(self, parent: str, role: str, *paths: str, is_last: bool = False) -> None:
        """Let a role of artifacts delegate paths to one that is new or known."""
        delegations = self.signed[parent].delegations or Delegations({}, {})
        self.signed[parent].delegations = delegations
        assert delegations.roles is not None
        delegations.roles[role] = DelegatedRole(role, [], 1, is_last, list(paths))
        if role not in self.signed:
            self.signers[role] = [signer()]
            self.signed[role] = Targets(expires=self.in_days(30))
            self.signed[Snapshot.type].meta[f"{role}.json"] = MetaFile(1)
        self.signed[parent].add_key(self.signers[role][0].public_key, role)

    def rotate(self, role: str, count: int = 1) -> None:
        """Give a top-level role new keys; the next root is signed by old and new ones of root."""
        root = self.signed[Root.type]
        fresh = [signer() for _ in range(count)]
        for keyid in list(root.roles[role].keyids):
            root.revoke_key(keyid, role)
        for key in fresh:
            root.add_key(key.public_key, role)
        old = self.signers[role] if role == Root.type else []
        root.version += 1
        self.signers[role] = [*old, *fresh]
        self.write()
        self.signers[role] = fresh

    def write(self, roles: Iterable[str] = ()) -> None:
        """Sign and write roles as they are now, and every artifact.

        Args:
            roles: Which; none: all, but a root that was written before stays as it is.
        """
        for role in roles or self.signed:
            version = self.signed[role].version
            name = f"{quote(role, safe='')}.json"
            if role != Timestamp.type:
                name = f"{version}.{name}"
            file = self.folder / "metadata" / name
            if roles or role != Root.type or not file.exists():
                file.write_bytes(self.bytes_of(role))
        for path, content in self.files.items():
            digest = sha256(content).hexdigest()
            file = self.folder / "artifacts" / artifact_file_path(path, digest)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)

    def bytes_of(self, role: str) -> bytes:
        """Sign a role as it is now."""
        metadata: Metadata[Any] = Metadata(copy.deepcopy(self.signed[role]))
        for key in self.signers[role]:
            metadata.sign(key, append=True)
        return metadata.to_bytes()

    def timestamp(self) -> bytes:
        """Read the timestamp that is published."""
        return (self.folder / "metadata" / "timestamp.json").read_bytes()

    def copy_to(self, folder: Path) -> None:
        """Keep what is published now, to be served again later."""
        shutil.copytree(self.folder / "metadata", folder / "metadata")

    def put_back(self, folder: Path) -> None:
        """Publish what was kept, as an attacker who can write files would."""
        shutil.rmtree(self.folder / "metadata")
        shutil.copytree(folder / "metadata", self.folder / "metadata")


def plan(model: str, version: int, **more: Any) -> Plan:  # noqa: ANN401
    """Make a plan for all devices."""
    return Plan(
        **{
            "rollout": f"{model}-{version}",
            "sequence": 1,
            "model": model,
            "version": version,
            "salt": "salt",
            "stages": (Stage(permyriad=10_000),),
            **more,
        }
    )
