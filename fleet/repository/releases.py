"""Reads back which releases a repository holds: from signed metadata alone."""

from collections.abc import Mapping
from typing import Final

from tuf.api.metadata import TargetFile, Targets

from edge_runtime.manifest import MANIFEST_FILE
from fleet.documents.errors import DocumentError
from fleet.documents.release import ReleaseFacts, release_of
from fleet.errors import RepositoryError

_PARTS: Final = 4

Releases = Mapping[str, Mapping[int, ReleaseFacts]]
"""Facts of each release: by model, then by version, oldest first."""


def releases_of(targets: Targets) -> Releases:
    """List every release.

    Args:
        targets: What the role releases says.

    Raises:
        RepositoryError: Something is signed there that no program of ours wrote.
    """
    found: dict[str, dict[int, ReleaseFacts]] = {}
    for path, target in targets.targets.items():
        parts = path.split("/")
        if len(parts) != _PARTS or parts[-1] != MANIFEST_FILE:
            continue
        try:
            facts = release_of(target.custom, path)
        except DocumentError as error:
            raise RepositoryError(f"releases: {error.message}") from error
        if (facts.model, str(facts.version)) != (parts[1], parts[2]):
            raise RepositoryError(
                f"releases: {path} has the facts of {facts.model} version {facts.version}"
            )
        found.setdefault(facts.model, {})[facts.version] = facts
    return {model: dict(sorted(found[model].items())) for model in sorted(found)}


def artifacts_of(targets: Targets, model: str, version: int) -> dict[str, TargetFile]:
    """List the artifacts of a release.

    Args:
        targets: What the role releases says.
        model: The model's name.
        version: Its version.

    Returns:
        Length and digests, by the file's path in the bundle; chunk indexes are among them.
    """
    prefix = f"models/{model}/{version}/"
    return {
        path.removeprefix(prefix): target
        for path, target in targets.targets.items()
        if path.startswith(prefix)
    }
