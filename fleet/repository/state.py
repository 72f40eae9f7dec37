"""The newest metadata of a repository, read from disk and checked against the keys above them.

Metadata of releases may be newer than what the snapshot names: they were signed where the online
keys are not, and wait to be published.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar, cast

from tuf.api.exceptions import RepositoryError as TufError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from fleet.errors import RepositoryError
from fleet.repository.layout import Layout
from fleet.repository.roles import (
    LISTED,
    RELEASES,
    ROLLOUTS,
    ROOT,
    RULES,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
)

_S = TypeVar("_S", Root, Targets, Snapshot, Timestamp)

AnyMetadata = Metadata[Root] | Metadata[Targets] | Metadata[Snapshot] | Metadata[Timestamp]


@dataclass(slots=True)
class State:
    """The newest metadata of every role. Commands change them in memory before they are signed.

    Attributes:
        root: Names the keys of the roles below it.
        targets: Names the keys of releases and rollouts.
        releases: Every file of every release.
        rollouts: The plans of every channel.
        snapshot: Which versions of the three above belong together.
        timestamp: Which snapshot is the newest.
    """

    root: Metadata[Root]
    targets: Metadata[Targets]
    releases: Metadata[Targets]
    rollouts: Metadata[Targets]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]

    def of(self, role: str) -> AnyMetadata:
        """Give the metadata of a role."""
        return cast("AnyMetadata", getattr(self, role))

    def authority(self, role: str) -> Root | Targets:
        """Give what names the keys of a role."""
        return self.root.signed if RULES[role].authority == ROOT else self.targets.signed

    def is_signed(self, role: str) -> bool:
        """Tell whether the metadata of a role are signed by enough of its keys."""
        return _is_signed(self.authority(role), role, self.of(role))

    def pending(self) -> tuple[str, ...]:
        """List the roles whose newest metadata no snapshot names yet."""
        meta = self.snapshot.signed.meta
        return tuple(
            role
            for role in LISTED
            if f"{role}.json" not in meta
            or meta[f"{role}.json"].version != self.of(role).signed.version
        )


def read_state(layout: Layout) -> State:
    """Read the newest metadata of every role.

    A newer file that is not signed as it must be is passed over: a command was stopped between
    writing it and writing what names its key.

    Raises:
        BadInputError: There is no repository.
        RepositoryError: Metadata are missing, broken, or signed by too few keys.
    """
    layout.check()
    root = read_metadata(layout.metadata_file(ROOT, layout.versions(ROOT)[-1]), Root)
    if not _is_signed(root.signed, ROOT, root):
        raise RepositoryError(
            f"{layout.metadata_file(ROOT, root.signed.version)} is not signed by enough of its own "
            "keys; restore it from a copy"
        )
    # These two only say what is on disk: they are made anew, never built upon.
    timestamp = read_metadata(layout.metadata_file(TIMESTAMP, 0), Timestamp)
    version = timestamp.signed.snapshot_meta.version
    snapshot = read_metadata(layout.metadata_file(SNAPSHOT, version), Snapshot)
    published = snapshot.signed.meta
    targets = _newest(layout, TARGETS, root.signed, published)
    releases = _newest(layout, RELEASES, targets.signed, published)
    rollouts = _newest(layout, ROLLOUTS, targets.signed, published)
    return State(root, targets, releases, rollouts, snapshot, timestamp)


def read_metadata(path: Path, kind: type[_S]) -> Metadata[_S]:
    """Read one metadata file; says nothing of its signatures.

    Args:
        path: The file.
        kind: What it must hold.

    Raises:
        RepositoryError: It cannot be read, or is something else.
    """
    try:
        metadata: Metadata[_S] = Metadata.from_bytes(path.read_bytes())
    except (OSError, DeserializationError) as error:
        raise RepositoryError(f"{path}: {error}; restore it from a copy") from error
    if not isinstance(metadata.signed, kind):
        raise RepositoryError(
            f"{path} holds metadata of the type {metadata.signed.type}; restore it from a copy"
        )
    return metadata


def now() -> datetime:
    """Tell the time, in whole seconds: metadata know no smaller ones."""
    return datetime.now(UTC).replace(microsecond=0)


def _newest(
    layout: Layout, role: str, authority: Root | Targets, published: Mapping[str, MetaFile]
) -> Metadata[Targets]:
    """Read the newest version that is signed; never one before what clients see."""
    entry = published.get(f"{role}.json")
    least = 1 if entry is None else entry.version
    for version in reversed(layout.versions(role)):
        if version < least:
            break
        metadata = read_metadata(layout.metadata_file(role, version), Targets)
        if _is_signed(authority, role, metadata):
            return metadata
    raise RepositoryError(
        f"{layout.metadata} has no version {least} or later of {role} that enough of its keys "
        "signed; restore it from a copy"
    )


def _is_signed(authority: Root | Targets, role: str, metadata: AnyMetadata) -> bool:
    try:
        authority.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (TufError, ValueError):
        return False
    return True
