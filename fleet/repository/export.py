"""Puts what a channel needs into one tar file, for devices that no network reaches.

The file holds ``metadata/`` and ``artifacts/`` as they are served, metadata first. Nothing in it
needs to be believed: devices verify it as they verify a server.
"""

import os
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Final

from tuf.api.metadata import TargetFile, Targets

from edge_runtime.private_folder import sync
from fleet.documents.paths import (
    artifact_file_path,
    plans_path,
)
from fleet.errors import BadInputError, RefusedError, RepositoryError
from fleet.repository.bundles import Progress
from fleet.repository.disk import locked
from fleet.repository.layout import Layout
from fleet.repository.plans import plans_in
from fleet.repository.releases import artifacts_of
from fleet.repository.roles import LISTED, RELEASES, ROLLOUTS, ROOT, SNAPSHOT, TIMESTAMP
from fleet.repository.state import State, read_metadata, read_state

_MODE: Final = 0o644


@dataclass(frozen=True, slots=True)
class Exported:
    """What the file holds.

    Attributes:
        releases: Model and version of each release.
        files: How many files.
        size_bytes: Bytes of the tar file.
    """

    releases: tuple[tuple[str, int], ...]
    files: int
    size_bytes: int


def export(
    layout: Layout,
    output: Path,
    channel: str,
    model: str | None = None,
    *,
    force: bool = False,
    progress: Progress = lambda _: None,
) -> Exported:
    """Write the published state of a channel into a tar file.

    Args:
        layout: The repository.
        output: The file.
        channel: Its plans, and the releases that they name, go in.
        model: Only the releases of this model; ``None``: of every model.
        force: Whether a file that is there may be replaced.
        progress: Told of bytes that are written.

    Raises:
        FleetError: There is nothing to export, or no place for it.
        OSError: The disk refused; nothing is left of the new file.
    """
    if output.exists() and not force:
        raise BadInputError(f"{output} is there already; --force replaces it")
    if not output.absolute().parent.is_dir():
        raise BadInputError(f"{output.absolute().parent} is not a folder; make it first")
    if output.is_dir():
        raise BadInputError(f"{output} is a folder; name a file")
    if output.resolve().is_relative_to(layout.folder.resolve()):
        raise BadInputError(f"{output} lies in the repository; write it somewhere else")
    with locked(layout):
        state = read_state(layout)
        named = {role: _listed(layout, state, role) for role in (RELEASES, ROLLOUTS)}
        plans = plans_in(layout, named[ROLLOUTS]).get(channel)
        if plans is None:
            raise RefusedError(f"no plan of channel {channel} is published")
        wanted = sorted(
            {
                (plan.model, version)
                for plan in plans.plans
                for version in (plan.version, plan.revert_to)
                if version is not None and model in {None, plan.model}
            }
        )
        if not wanted:
            raise RefusedError(f"channel {channel} has no plan for {model or 'any model'}")
        targets = [named[ROLLOUTS].targets[plans_path(channel)]]
        for each, version in wanted:
            targets += artifacts_of(named[RELEASES], each, version).values()
        files = [*_metadata(layout, state), *(_place(layout, target) for target in targets)]
        _write(layout, files, output, progress)
    return Exported(tuple(wanted), len(files), output.stat().st_size)


def _listed(layout: Layout, state: State, role: str) -> Targets:
    entry = state.snapshot.signed.meta.get(f"{role}.json")
    if entry is None:
        raise RepositoryError(f"the snapshot does not name {role}; publish the repository again")
    return read_metadata(layout.metadata_file(role, entry.version), Targets).signed


def _metadata(layout: Layout, state: State) -> list[Path]:
    """List the metadata that a client reads, timestamp first."""
    meta = state.snapshot.signed.meta
    return [
        layout.metadata_file(TIMESTAMP, 0),
        *(layout.metadata_file(ROOT, version) for version in layout.versions(ROOT)),
        layout.metadata_file(SNAPSHOT, state.timestamp.signed.snapshot_meta.version),
        *(layout.metadata_file(role, meta[f"{role}.json"].version) for role in LISTED),
    ]


def _place(layout: Layout, target: TargetFile) -> Path:
    return layout.artifacts / artifact_file_path(target.path, target.hashes["sha256"])


def _write(layout: Layout, files: list[Path], output: Path, progress: Progress) -> None:
    """Write the tar beside its place, the same bytes for the same files."""
    partial = output.absolute().with_name(f".{output.name}.{token_hex(4)}.new")
    try:
        with partial.open("xb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                for path in files:
                    entry = tarfile.TarInfo(path.relative_to(layout.folder).as_posix())
                    entry.size, entry.mode = path.stat().st_size, _MODE
                    with path.open("rb") as content:
                        archive.addfile(entry, content)
                    progress(entry.size)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(output)
        sync(output.absolute().parent)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
