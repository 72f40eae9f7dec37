"""Everything of a release that the runtime lacks, and the folder in which it is handed over.

``MANIFEST-DIGEST.json`` says which files of a bundle are needed; the folder ``MANIFEST-DIGEST``
beside it has links to them and is made anew for each hand-over.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import msgspec

from agent.download.bundle_files import BundleFiles, OlderFile
from agent.download.bundle_folder import LostFileError, assemble
from agent.download.disk import sync, translated
from agent.download.downloads import Artifact, Downloads, Order
from agent.errors import Distrust, TrustError
from edge_runtime.manifest import MANIFEST_FILE, MAX_BYTES, SIGNATURE_FILE
from fleet.documents.paths import CHUNKS_SUFFIX

OLDER_FILES_MAX: Final = 4
"""Files of older versions whose chunks are looked at for one new file."""
_RECORD_SUFFIX: Final = ".json"
_FOLDER_MODE: Final = 0o700
_HEAD: Final = (MANIFEST_FILE, SIGNATURE_FILE)


class Missing(Protocol):
    """A file that the runtime lacks; see ``agent.runtime_client.handover``."""

    @property
    def file(self) -> str:
        """Path in the bundle."""
        ...

    @property
    def sha256(self) -> str:
        """Of its content."""
        ...


Needs = Callable[[bytes, str | None], Iterable[Missing]]
"""Asks the runtime what it lacks of a bundle, by its manifest and its signature's text."""


@dataclass(frozen=True, slots=True)
class Release:
    """What is signed about the files of a release.

    Attributes:
        artifacts: By path in the bundle; chunk indexes are beside their files.
        older: The same of versions that are on this device, the likeliest first.
    """

    artifacts: Mapping[str, Artifact]
    older: Sequence[Mapping[str, Artifact]] = ()

    @property
    def manifest_sha256(self) -> str:
        """The name of the bundle here.

        Raises:
            TrustError: It has no manifest.
        """
        manifest = self.artifacts.get(MANIFEST_FILE)
        if manifest is None:
            raise _mixed(f"a release has no {MANIFEST_FILE}")
        return manifest.sha256


class _Record(msgspec.Struct, frozen=True):
    """Which files of a bundle are needed: digests by path in it."""

    files: dict[str, str]


class Bundles:
    """Bundles on their way to the runtime.

    Args:
        folder: Of records and hand-overs; made if it is missing.
        downloads: The artifacts.
        files: Brings them.
        needs: Asks the runtime what it lacks.

    Raises:
        DiskFullError: Of every method: the disk is full.
        StateError: Of every method: the disk fails.
    """

    def __init__(
        self, folder: Path, downloads: Downloads, files: BundleFiles, needs: Needs
    ) -> None:
        self._folder = folder
        self._downloads = downloads
        self._files = files
        self._needs = needs
        with translated(folder):
            folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)

    def fetch(self, release: Release, order: Order) -> None:
        """Bring everything that the runtime lacks; what is here already costs nothing.

        Raises:
            AgentError: See ``Downloads.fetch``, and what the runtime said.
            TrustError: The manifest names other files than were signed.
        """
        name = release.manifest_sha256
        head = {each: release.artifacts[each] for each in _HEAD if each in release.artifacts}
        for artifact in head.values():
            if artifact.size > MAX_BYTES:
                raise TrustError(
                    Distrust.TOO_LARGE, f"{artifact.url_path} has over {MAX_BYTES} bytes"
                )
        data = {}
        for file, artifact in head.items():
            path = self._downloads.fetch(artifact, order)
            with translated(path):
                data[file] = path.read_bytes()
        signature = data[SIGNATURE_FILE].decode("utf-8", "replace") if len(data) > 1 else None
        missing = self._needs(data[MANIFEST_FILE], signature)
        wanted = {each.file: _signed(release, each) for each in missing}
        record = {file: artifact.sha256 for file, artifact in (head | wanted).items()}
        self._write(name, _Record(record))
        self._downloads.preflight(wanted.values())
        for file, artifact in wanted.items():
            index = release.artifacts.get(f"{file}{CHUNKS_SUFFIX}")
            self._files.fetch(artifact, index, list(_older(release, file)), order)

    def is_whole(self, manifest_sha256: str) -> bool:
        """Tell whether everything that was fetched is still there; reads names, not bytes."""
        record = self._read(manifest_sha256)
        if record is None:
            return False
        return all(self._downloads.blob(digest).exists() for digest in record.files.values())

    def assemble(self, manifest_sha256: str) -> Path:
        """Make the folder for the hand-over, of verified files.

        Raises:
            LostFileError: It was not fetched, or a file is not there any more or damaged.
        """
        record = self._read(manifest_sha256)
        if record is None:
            raise LostFileError(f"nothing of bundle {manifest_sha256} is here; download it again")
        files = {file: self._downloads.blob(digest) for file, digest in record.files.items()}
        return assemble(files, self._folder / manifest_sha256)

    def sweep(self, keep: Collection[str]) -> None:
        """Remove what belongs to no bundle that is still needed.

        Args:
            keep: Digests of the manifests of bundles that are under way, fetched or not.
        """
        from shutil import rmtree  # noqa: PLC0415 - rarely needed, imports every compressor

        blobs = set(keep)
        with translated(self._folder):
            for path in sorted(self._folder.iterdir()):
                name = path.name.removesuffix(_RECORD_SUFFIX)
                if name in keep:
                    record = self._read(name)
                    blobs.update(record.files.values() if record else ())
                elif path.is_dir():
                    rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        self._downloads.sweep(blobs)

    def _read(self, manifest_sha256: str) -> _Record | None:
        try:
            data = (self._folder / f"{manifest_sha256}{_RECORD_SUFFIX}").read_bytes()
            return msgspec.json.decode(data, type=_Record)
        except (OSError, msgspec.MsgspecError, UnicodeError):
            return None

    def _write(self, manifest_sha256: str, record: _Record) -> None:
        path = self._folder / f"{manifest_sha256}{_RECORD_SUFFIX}"
        aside = self._folder / f"{path.name}.new"
        with translated(path):
            aside.write_bytes(msgspec.json.encode(record))
            sync(aside)
            aside.replace(path)
            sync(self._folder)


def _signed(release: Release, missing: Missing) -> Artifact:
    """Find what is signed about a file that the manifest names."""
    artifact = release.artifacts.get(missing.file)
    if artifact is None or artifact.sha256 != missing.sha256:
        raise _mixed(f"the manifest's {missing.file!a} is not what was signed with it")
    return artifact


def _mixed(what: str) -> TrustError:
    return TrustError(Distrust.MIXED, f"{what}; publish the release again")


def _older(release: Release, file: str) -> Iterator[OlderFile]:
    """Name older files that may have chunks of a new one: those of the same name first."""
    found = [
        (other != file, nth, other)
        for nth, artifacts in enumerate(release.older)
        for other in artifacts
        if f"{other}{CHUNKS_SUFFIX}" in artifacts
    ]
    for _, nth, other in sorted(found)[:OLDER_FILES_MAX]:
        artifacts = release.older[nth]
        yield OlderFile(artifacts[other].sha256, artifacts[f"{other}{CHUNKS_SUFFIX}"])
