"""Walks a whole repository as a client would: from the first root to the last byte.

The walk is python-tuf's own client over the folder, so that nothing here repeats its rules; then
every artifact is hashed, and everything that is signed is read as a device reads it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tuf.api.exceptions import DownloadError, DownloadHTTPError, LengthOrHashMismatchError
from tuf.api.exceptions import RepositoryError as TufError
from tuf.api.metadata import TargetFile, Targets
from tuf.ngclient import FetcherInterface, Updater

from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.manifest import MANIFEST_FILE, read
from fleet.documents.chunks import read_chunks
from fleet.documents.errors import DocumentError
from fleet.documents.paths import CHUNKS_SUFFIX, METADATA_FOLDER, artifact_file_path
from fleet.errors import RepositoryError
from fleet.repository.layout import Layout
from fleet.repository.plans import plans_in
from fleet.repository.releases import artifacts_of, releases_of
from fleet.repository.roles import RELEASES, ROLLOUTS, ROOT, RULES
from fleet.repository.settings import read_settings
from fleet.repository.state import State, read_metadata, read_state

_URL: Final = "folder:"
_NOT_FOUND: Final = 404
_SOON: Final = 4
"""A role is near its end in the last quarter of its time."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found.

    Attributes:
        artifacts: How many were read.
        size_bytes: Bytes of all of them.
        problems: What a client refuses; empty: nothing.
        warnings: What an operator should do soon.
    """

    artifacts: int
    size_bytes: int
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def verify(layout: Layout, *, now: datetime) -> Verified:
    """Walk a repository; nothing is changed.

    Args:
        layout: The repository.
        now: The time, with whole seconds.

    Raises:
        BadInputError: It is not one.
        OSError: It cannot be read.
    """
    try:
        state = read_state(layout)
        named = _published(layout, state)
        seen = _walk(layout, named)
    except RepositoryError as error:
        return Verified(0, 0, (error.message,), ())
    except (TufError, DownloadError, ValueError) as error:
        return Verified(0, 0, (f"a client refuses it: {error}",), ())
    problems = [*seen, *_content_problems(layout, named)]
    newest = layout.metadata_file(ROOT, state.root.signed.version)
    if layout.root.read_bytes() != newest.read_bytes():
        problems.append(f"{layout.root} is not the newest root, {newest.name}: copy that one over")
    targets = [target for each in named.values() for target in each.targets.values()]
    size_bytes = sum(target.length for target in targets)
    return Verified(len(targets), size_bytes, tuple(problems), _warnings(layout, state, now))


class _Folder(FetcherInterface):
    """Gives a client the files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self._folder / url.removeprefix(f"{_URL}/")
        if not path.is_file():
            message = f"{path} is not there"
            raise DownloadHTTPError(message, _NOT_FOUND)
        return iter([path.read_bytes()])


def _published(layout: Layout, state: State) -> dict[str, Targets]:
    """Read what the snapshot names, which may be older than what is on disk."""
    meta = state.snapshot.signed.meta
    return {
        role: read_metadata(
            layout.metadata_file(role, meta[f"{role}.json"].version), Targets
        ).signed
        for role in (RELEASES, ROLLOUTS)
        if f"{role}.json" in meta
    }


def _walk(layout: Layout, named: dict[str, Targets]) -> list[str]:
    """Look every artifact up as a client that has known the repository from its beginning."""
    problems: list[str] = []
    first = layout.metadata_file(ROOT, layout.versions(ROOT)[0])
    with TemporaryDirectory(prefix="edge-fleet-") as folder:
        client = Updater(
            folder,
            f"{_URL}/{METADATA_FOLDER}",
            fetcher=_Folder(layout.folder),
            bootstrap=first.read_bytes(),
        )
        client.refresh()
        for role, targets in named.items():
            for path, target in targets.targets.items():
                if client.get_targetinfo(path) != target:
                    problems.append(f"{role} signs {path}, and clients do not believe it there")
                else:
                    problems += _file_problems(layout, path, target)
    return problems


def _file_problems(layout: Layout, path: str, target: TargetFile) -> list[str]:
    file = layout.artifacts / artifact_file_path(path, target.hashes.get("sha256", ""))
    try:
        with file.open("rb") as content:
            target.verify_length_and_hashes(content)
    except OSError as error:
        return [f"{file}: {error.strerror}; restore it from a copy"]
    except LengthOrHashMismatchError as error:
        return [f"{file} was changed ({error}); restore it from a copy"]
    return []


def _content_problems(layout: Layout, named: dict[str, Targets]) -> list[str]:
    """Read what is signed as a device does."""
    problems: list[str] = []
    try:
        releases = releases_of(named[RELEASES])
        channels = plans_in(layout, named[ROLLOUTS])
    except RepositoryError as error:
        return [error.message]
    for model, versions in releases.items():
        for version in versions:
            artifacts = artifacts_of(named[RELEASES], model, version)
            shown = f"{model} version {version}"
            try:
                problems += _release_problems(layout, shown, artifacts)
            except (EdgeRuntimeError, DocumentError) as error:
                problems.append(f"{shown}: {error.message}")
            except OSError as error:
                problems.append(f"{shown}: {error.filename}: {error.strerror}")
    fleet = read_settings(layout).fleet
    for channel, plans in channels.items():
        if plans.fleet != fleet:
            problems.append(f"channel {channel}: its plans are for the fleet {plans.fleet}")
        problems += [
            f"channel {channel}: plan {plan.rollout} wants {plan.model} version {plan.version}, "
            "which is not released"
            for plan in plans.plans
            if plan.version not in releases.get(plan.model, {})
        ]
    return problems


def _release_problems(layout: Layout, shown: str, artifacts: dict[str, TargetFile]) -> list[str]:
    problems: list[str] = []
    places = {
        file: layout.artifacts / artifact_file_path(target.path, target.hashes["sha256"])
        for file, target in artifacts.items()
    }
    manifest = read(places[MANIFEST_FILE].read_bytes(), f"{shown}: {MANIFEST_FILE}")
    for file in manifest.files():
        if file.path not in artifacts:
            problems.append(f"{shown}: {file.path} is in the manifest, and not an artifact")
        elif artifacts[file.path].hashes["sha256"] != file.sha256:
            problems.append(f"{shown}: {file.path} is not the file that the manifest names")
    for name, place in places.items():
        whole = name.removesuffix(CHUNKS_SUFFIX)
        if not name.endswith(CHUNKS_SUFFIX) or whole not in places:
            continue
        index = read_chunks(place.read_bytes(), f"{shown}: {name}")
        if index.file_sha256 != artifacts[whole].hashes["sha256"]:
            problems.append(f"{shown}: {name} is the index of another file")
            continue
        with places[whole].open("rb") as content:
            if any(sha256(content.read(c.size)).hexdigest() != c.sha256 for c in index.chunks):
                problems.append(f"{shown}: {name} does not fit its file")
    return problems


def _warnings(layout: Layout, state: State, now: datetime) -> tuple[str, ...]:
    settings = read_settings(layout)
    warnings = [
        f"{role} is signed and not published; `edge-fleet repo publish` does it"
        for role in state.pending()
    ]
    for role in RULES:
        left = state.of(role).signed.expires - now
        if left < timedelta(days=settings.days(role)) / _SOON:
            advice = "refresh" if role != ROOT else "rotate root"
            hours = left.total_seconds() / 3600
            warnings.append(f"{role} expires in {hours:.0f} h; `edge-fleet repo {advice}`")
    return tuple(warnings)
