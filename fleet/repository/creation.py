"""Makes a repository: keys, the first version of every role, and the root for devices."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)

from edge_runtime.private_folder import remove_tree, sync
from fleet.documents.paths import RELEASES_PATHS, ROLLOUTS_PATHS
from fleet.errors import BadInputError
from fleet.repository.disk import check_outside, uninterrupted, write_new
from fleet.repository.key_files import NewKey, keys_written, new_key
from fleet.repository.layout import Layout
from fleet.repository.roles import (
    LISTED,
    RELEASES,
    ROLLOUTS,
    ROOT,
    RULES,
    SIGNING_ORDER,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
)
from fleet.repository.settings import RepositorySettings, make_settings, settings_text
from fleet.repository.state import AnyMetadata

ROOT_KEYS_MAX: Final = 32
OFFLINE_FOLDER: Final = "offline"
ONLINE_FOLDER: Final = "online"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRepository:
    """What a new repository is to be.

    Attributes:
        fleet: Name of the fleet.
        root_keys: How many keys root has.
        root_threshold: How many of them sign a new root.
        expires_days: How long metadata last, by role, where the operator wants something else.
    """

    fleet: str
    root_keys: int = 3
    root_threshold: int = 2
    expires_days: Mapping[str, int] = field(default_factory=dict)


def create(
    layout: Layout,
    keys_folder: Path,
    wanted: NewRepository,
    *,
    passphrase: bytes | None,
    now: datetime,
) -> dict[str, list[NewKey]]:
    """Make a repository where none is.

    Args:
        layout: Its place: no folder, or an empty one.
        keys_folder: Where the private keys go, below ``offline`` and ``online``.
        wanted: What it is to be.
        passphrase: Encrypts the keys; ``None``: they are not encrypted.
        now: The time, with whole seconds.

    Returns:
        The keys of each role.

    Raises:
        BadInputError: It cannot be made so, or there; nothing was written.
        OSError: The disk refused; nothing is left of it.
    """
    settings = make_settings(wanted.fleet, dict(wanted.expires_days))
    if not 1 <= wanted.root_threshold <= wanted.root_keys <= ROOT_KEYS_MAX:
        raise BadInputError(
            f"root cannot be signed by {wanted.root_threshold} of {wanted.root_keys} keys; at "
            f"least 1 of at most {ROOT_KEYS_MAX}"
        )
    folder = layout.folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInputError(f"{layout.folder} is there and not empty; name a new folder")
    if not folder.parent.is_dir():
        raise BadInputError(f"{folder.parent} is not a folder; make it first")
    check_outside(keys_folder, folder)
    keys = _make_keys(keys_folder, wanted.root_keys)
    metadata = _first_metadata(keys, wanted.root_threshold, settings, now)
    every = [key for made in keys.values() for key in made]
    with uninterrupted(), keys_written(every, passphrase):
        _write(folder, metadata, settings)
    return keys


def _make_keys(folder: Path, root_keys: int) -> dict[str, list[NewKey]]:
    keys: dict[str, list[NewKey]] = {}
    for role, rule in RULES.items():
        below = folder / (ONLINE_FOLDER if rule.is_online else OFFLINE_FOLDER)
        count = root_keys if role == ROOT else 1
        names = [f"{role}-{number}" if count > 1 else role for number in range(1, count + 1)]
        keys[role] = [new_key(below / f"{name}.pem") for name in names]
    return keys


def _first_metadata(
    keys: Mapping[str, list[NewKey]],
    root_threshold: int,
    settings: RepositorySettings,
    now: datetime,
) -> dict[str, AnyMetadata]:
    expires = {role: now + timedelta(days=settings.days(role)) for role in RULES}
    ids = {role: [key.public.keyid for key in made] for role, made in keys.items()}

    def public(authority: str) -> dict[str, Key]:
        return {
            key.public.keyid: key.public
            for role, made in keys.items()
            if RULES[role].authority == authority
            for key in made
        }

    root = Root(
        expires=expires[ROOT],
        keys=public(ROOT),
        roles={
            role: Role(ids[role], root_threshold if role == ROOT else 1)
            for role in (ROOT, TARGETS, SNAPSHOT, TIMESTAMP)
        },
        consistent_snapshot=True,
    )
    delegated = {
        role: DelegatedRole(role, ids[role], 1, terminating=True, paths=list(paths))
        for role, paths in ((RELEASES, RELEASES_PATHS), (ROLLOUTS, ROLLOUTS_PATHS))
    }
    targets = Targets(expires=expires[TARGETS], delegations=Delegations(public(TARGETS), delegated))
    snapshot = Snapshot(
        expires=expires[SNAPSHOT], meta={f"{role}.json": MetaFile(version=1) for role in LISTED}
    )
    metadata: dict[str, AnyMetadata] = {
        ROOT: Metadata(root),
        TARGETS: Metadata(targets),
        RELEASES: Metadata(Targets(expires=expires[RELEASES])),
        ROLLOUTS: Metadata(Targets(expires=expires[ROLLOUTS])),
        SNAPSHOT: Metadata(snapshot),
        TIMESTAMP: Metadata(
            Timestamp(expires=expires[TIMESTAMP], snapshot_meta=MetaFile(version=1))
        ),
    }
    for role, made in metadata.items():
        for key in keys[role]:
            made.sign(key.signer, append=True)
    return metadata


def _write(folder: Path, metadata: Mapping[str, AnyMetadata], settings: RepositorySettings) -> None:
    """Fill a folder beside, which takes its place as a whole."""
    new = folder.with_name(f".{folder.name}.{os.urandom(4).hex()}.new")
    layout = Layout(new)
    try:
        for made in (new, layout.metadata, layout.artifacts):
            made.mkdir()
        for role in SIGNING_ORDER:
            write_new(layout.metadata_file(role, 1), metadata[role].to_bytes())
        write_new(layout.root, metadata[ROOT].to_bytes())
        write_new(layout.lock, b"")
        write_new(layout.settings, settings_text(settings))
        sync(new)
        new.rename(folder)
        sync(folder.parent)
    except BaseException:
        remove_tree(new)
        raise
