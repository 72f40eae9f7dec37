"""What a folder of verified metadata says: versions, ends, artifacts, and whose keys signed it.

Read only after python-tuf has verified these very files; nothing here checks a signature.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import quote

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from fleet.documents.paths import RELEASES_ROLE, ROLLOUTS_ROLE

FLOORED: Final = (Targets.type, RELEASES_ROLE, ROLLOUTS_ROLE)
"""Roles below whose newest version nobody goes, beside root, timestamp and snapshot."""


@dataclass(frozen=True)
class SetFacts:
    """Facts of one consistent set of metadata.

    Attributes:
        versions: By role: root, timestamp, snapshot and ``FLOORED``, as far as they are there.
        authority: Digest of the keys of timestamp and snapshot, for which versions hold.
        ends_s: When the first of it expires, seconds since 1970.
        artifacts: Every name of an artifact that any role describes; who may is another matter.
        is_consistent: Whether artifacts have their digest in their file's name.
    """

    versions: Mapping[str, int]
    authority: str
    ends_s: float
    artifacts: tuple[str, ...]
    is_consistent: bool


def read_set(folder: Path) -> SetFacts:
    """Read a folder that python-tuf has just verified.

    Args:
        folder: With ``root.json``, ``timestamp.json``, ``snapshot.json`` and roles of artifacts.

    Raises:
        OSError: A file cannot be read.
        RepositoryError: A file cannot be understood.
    """
    root = Metadata[Root].from_file(str(folder / "root.json")).signed
    timestamp = Metadata[Timestamp].from_file(str(folder / "timestamp.json")).signed
    snapshot = Metadata[Snapshot].from_file(str(folder / "snapshot.json")).signed
    described = {name.removesuffix(".json"): file.version for name, file in snapshot.meta.items()}
    roles = dict(_roles(folder, described))
    versions = {
        Root.type: root.version,
        Timestamp.type: timestamp.version,
        Snapshot.type: snapshot.version,
        **{role: described[role] for role in FLOORED if role in described},
    }
    parts = (root, timestamp, snapshot, *roles.values())
    return SetFacts(
        versions=versions,
        authority=_authority(root),
        ends_s=min(part.expires.timestamp() for part in parts),
        artifacts=tuple(sorted({path for role in roles.values() for path in role.targets})),
        is_consistent=bool(root.consistent_snapshot),
    )


def authority_in(folder: Path, first_root: bytes) -> str:
    """Give the digest of the keys that a folder's root gives to timestamp and snapshot.

    Args:
        folder: That python-tuf verified, or nothing is in.
        first_root: Of the device; it counts for a folder without a root, or with an older one.

    Returns:
        Empty where the root cannot be read: python-tuf says so better.
    """
    path = folder / "root.json"
    try:
        roots = [Metadata[Root].from_bytes(first_root).signed]
        if path.exists():
            roots.append(Metadata[Root].from_bytes(path.read_bytes()).signed)
        return _authority(max(roots, key=lambda root: root.version))
    except (OSError, RepositoryError, ValueError):
        return ""


def _roles(folder: Path, described: Mapping[str, int]) -> Iterator[tuple[str, Targets]]:
    for role, version in described.items():
        path = folder / f"{quote(role, safe='')}.json"
        if path.is_file():
            signed = Metadata[Targets].from_file(str(path)).signed
            if signed.version == version:  # else a leftover of a role that was not asked for
                yield role, signed


def _authority(root: Root) -> str:
    keys = {role: sorted(root.roles[role].keyids) for role in (Timestamp.type, Snapshot.type)}
    return sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()
