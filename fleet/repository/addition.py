"""Adds a release: checks the bundle, copies its files in, cuts them, and has it signed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import msgspec
from tuf.api.metadata import TargetFile, Targets

from edge_runtime.digest import file_sha256
from edge_runtime.manifest import MANIFEST_FILE, SIGNATURE_FILE
from edge_runtime.trust.signatures import SigningKey
from fleet.documents.chunks import write_chunks
from fleet.documents.paths import CHUNKS_SUFFIX, artifact_file_path, artifact_path
from fleet.documents.release import GuardRails, ReleaseFacts, Requires, custom_of
from fleet.errors import RefusedError
from fleet.repository.bundles import BundleHead, Progress, copy_in, read_head
from fleet.repository.chunking import LEAST_FILE_BYTES, chunk_index
from fleet.repository.disk import locked, put, staging
from fleet.repository.draft import Draft, Signed
from fleet.repository.key_files import Keys
from fleet.repository.layout import Layout
from fleet.repository.release_checks import check_files, check_order, least_counter, next_counter
from fleet.repository.releases import artifacts_of, releases_of
from fleet.repository.roles import RELEASES
from fleet.repository.settings import read_settings
from fleet.repository.state import read_state


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRelease:
    """What is said of a release beside its bundle.

    Attributes:
        counter: Rises with every release of the model; ``None``: the next one.
        min_counter: No device goes below it any more; ``None``: as before.
        requires: What a device must be.
        guard_rails: Bounds of every plan for it.
        sign: Signs a manifest that nobody signed; ``None``: there is no key for that.
        allow_unsigned: Whether the manifest may stay without a signature.
        chunks: Whether large files get a chunk index.
    """

    counter: int | None = None
    min_counter: int | None = None
    requires: Requires = field(default_factory=Requires)
    guard_rails: GuardRails = field(default_factory=GuardRails)
    sign: SigningKey | None = None
    allow_unsigned: bool = False
    chunks: bool = True


@dataclass(frozen=True, slots=True)
class AddedRelease:
    """What became of it.

    Attributes:
        facts: As they are signed.
        files: How many artifacts it has.
        size_bytes: Bytes of all of them.
        is_new: Whether anything was added; the same bundle may be added again.
        signed: What was written.
    """

    facts: ReleaseFacts
    files: int
    size_bytes: int
    is_new: bool
    signed: Signed


def add_release(
    layout: Layout,
    bundle: Path,
    wanted: NewRelease,
    keys: Keys,
    *,
    now: datetime,
    progress: Progress = lambda _: None,
) -> AddedRelease:
    """Add a release, and publish it if the online keys are here.

    Args:
        layout: The repository.
        bundle: A folder or a tar file.
        wanted: What is said of it.
        keys: With the key of the role releases.
        now: The time, with whole seconds.
        progress: Told of bytes that are copied.

    Raises:
        FleetError: It may not be added, or its key is not here; nothing changed.
        ArtifactError: The bundle is not good; nothing changed.
        DocumentError: What is said of it cannot be signed; nothing changed.
        OSError: The disk refused; clients see what they saw before.
    """
    head = read_head(bundle).signed(wanted.sign, allow_unsigned=wanted.allow_unsigned)
    check_files(head.shown, [file.path for file in head.manifest.files()])
    with locked(layout):
        state = read_state(layout)
        releases = state.releases.signed
        draft = Draft(layout, state, read_settings(layout), keys, now)
        there = releases_of(releases).get(head.manifest.name, {})
        if head.manifest.version in there:
            facts = there[head.manifest.version]
            _check_same(releases, head, facts, wanted)
            return _added(releases, facts, draft.write(), is_new=False)
        facts = _facts(head, there, wanted, now)
        check_order(facts, there)
        custom = custom_of(facts)
        draft.check_keys(RELEASES)
        with staging(layout) as folder:
            digests = copy_in(bundle, head, folder, progress)
            if wanted.chunks:
                _cut(folder, digests)
            artifacts = _described(folder, head, digests)
            artifacts[MANIFEST_FILE].unrecognized_fields["custom"] = custom
            for file, target in artifacts.items():
                releases.targets[target.path] = target
                place = artifact_file_path(target.path, target.hashes["sha256"])
                put(folder / file, layout.artifacts / place)
        draft.renew(RELEASES)
        return _added(releases, facts, draft.write(), is_new=True)


def _facts(
    head: BundleHead, there: Mapping[int, ReleaseFacts], wanted: NewRelease, now: datetime
) -> ReleaseFacts:
    least = least_counter(there.values())
    return ReleaseFacts(
        model=head.manifest.name,
        version=head.manifest.version,
        counter=next_counter(there) if wanted.counter is None else wanted.counter,
        min_counter=least if wanted.min_counter is None else wanted.min_counter,
        requires=wanted.requires,
        guard_rails=wanted.guard_rails,
        created_s=int(now.timestamp()),
    )


def _check_same(
    releases: Targets, head: BundleHead, facts: ReleaseFacts, wanted: NewRelease
) -> None:
    """Let the same release be added again, and nothing else under its version."""
    artifacts = artifacts_of(releases, facts.model, facts.version)
    for file, data in ((MANIFEST_FILE, head.data), (SIGNATURE_FILE, head.signature)):
        there = artifacts[file].hashes.get("sha256", "") if file in artifacts else None
        if there != (None if data is None else sha256(data).hexdigest()):
            raise RefusedError(
                f"{head.shown} is released already, with another {file}; what is released never "
                "changes: give it a new version"
            )
    same = msgspec.structs.replace(
        facts,
        counter=facts.counter if wanted.counter is None else wanted.counter,
        min_counter=facts.min_counter if wanted.min_counter is None else wanted.min_counter,
        requires=wanted.requires,
        guard_rails=wanted.guard_rails,
    )
    if same != facts:
        raise RefusedError(
            f"{head.shown} is released already, with other counters, requirements or guard-rails; "
            "what is released never changes: give it a new version"
        )


def _cut(folder: Path, digests: Mapping[str, str]) -> None:
    """Write a chunk index beside every large file."""
    for file, digest in digests.items():
        path = folder / file
        if path.stat().st_size > LEAST_FILE_BYTES:
            index = write_chunks(chunk_index(path, digest))
            path.with_name(path.name + CHUNKS_SUFFIX).write_bytes(index)


def _described(folder: Path, head: BundleHead, digests: Mapping[str, str]) -> dict[str, TargetFile]:
    """Describe every staged file as an artifact."""
    files = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    described: dict[str, TargetFile] = {}
    for file in files:
        path = artifact_path(head.manifest.name, head.manifest.version, file)
        hashes = {"sha256": digests.get(file) or file_sha256(folder / file)}
        described[file] = TargetFile((folder / file).stat().st_size, hashes, path)
    return described


def _added(releases: Targets, facts: ReleaseFacts, signed: Signed, *, is_new: bool) -> AddedRelease:
    artifacts = artifacts_of(releases, facts.model, facts.version)
    size_bytes = sum(target.length for target in artifacts.values())
    return AddedRelease(facts, len(artifacts), size_bytes, is_new, signed)
