"""Brings what the daemon lacks of a release, and lays it out for the hand-over.

The manifest comes first, and the daemon says which files it needs of it: only those are downloaded.
What is wanted is written down as soon as that is known: a restart knows it without the network, and
no other update's end sweeps what is on its way.
"""

import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from agent.device.remarks import Remarks
from agent.download.blobs import is_file
from agent.download.bundle_files import BundleFiles, OlderFile
from agent.download.disk import translated
from agent.download.downloads import Downloads, Order
from agent.download.indexes import ChunkIndexes
from agent.download.notices import Notice, Progress
from agent.errors import AgentError, CanceledError, Distrust, StateError, TrustError
from agent.records.updates import Update
from agent.runtime_client.handover import Handover, Needs
from agent.trust.repository import Repository
from agent.trust.verified import MANIFEST, Artifact, VerifiedRelease
from agent.update.ports import LostError, StoppedError
from edge_runtime.manifest import MAX_BYTES, SIGNATURE_FILE
from edge_runtime.private_folder import sync

_log = logging.getLogger(__name__)

CHUNKS: Final = ".chunks"
WANTED: Final = "wanted.json"
BUNDLE: Final = "bundle"
OLDER_MAX: Final = 4
"""Versions whose files are looked at for chunks, the newest first."""
#: The daemon runs as another user, and is given only the folder: what is above stays closed.
_FOLDER_MODE: Final = 0o755
_FILE_MODE: Final = 0o644


class Bundles:
    """An ``agent.update.ports.Downloads`` over artifacts, the daemon's word and a folder.

    Args:
        folder: One folder for each update is made in it.
        repository: What is believed.
        downloads: Brings artifacts.
        indexes: Chunk indexes that are kept here.
        handover: Says what the daemon lacks.
        installed: Versions of each model that the daemon has.
        remarks: Keeps what the fleet should know of downloads.
        on_progress: Told how far a file of an update is.
    """

    def __init__(
        self,
        folder: Path,
        *,
        repository: Repository,
        downloads: Downloads,
        indexes: ChunkIndexes,
        handover: Handover,
        installed: Callable[[], Mapping[str, Iterable[int]]],
        remarks: Remarks,
        on_progress: Callable[[Update, str, Progress], None],
    ) -> None:
        self._folder = folder
        self._repository = repository
        self._downloads = downloads
        self._indexes = indexes
        self._files = BundleFiles(downloads, indexes)
        self._handover = handover
        self._installed = installed
        self._remarks = remarks
        self._on_progress = on_progress
        with translated(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def fetch(self, update: Update, cancelled: threading.Event) -> None:
        """Download and verify everything that is needed; doing it twice costs nothing."""
        try:
            self._fetch(update, self._release(update), cancelled)
        except CanceledError as error:
            raise StoppedError(error.message) from error

    def is_whole(self, update: Update) -> bool:
        """Tell whether everything that was fetched is still there; reads names, not bytes."""
        wanted = self._wanted(update)
        if wanted is None:
            return False
        with translated(self._folder):
            return all(self._downloads.blob(sha256).exists() for sha256 in wanted.values())

    def bundle(self, update: Update) -> Path:
        """Give the folder for the hand-over; doing it twice gives the same."""
        wanted = self._wanted(update)
        if wanted is None:
            raise LostError("what was downloaded is not there any more; it is downloaded again")
        folder = self._place(update) / BUNDLE
        with translated(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=_FOLDER_MODE)
            folder.chmod(_FOLDER_MODE)
            for file, sha256 in wanted.items():
                blob = self._downloads.blob(sha256)
                if not is_file(blob, sha256):
                    blob.unlink(missing_ok=True)
                    raise LostError(f"{file} was lost or damaged on the disk; it comes again")
                path = folder / file
                path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
                blob.chmod(_FILE_MODE)
                os.link(blob, path)
            for path in folder.rglob("*"):
                if path.is_dir():
                    path.chmod(_FOLDER_MODE)
        return folder

    def forget(self, update: Update) -> None:
        """Let go of what lies there for an update that is over."""
        keep: set[str] = set()
        with translated(self._folder):
            shutil.rmtree(self._place(update), ignore_errors=True)
            for place in self._folder.iterdir():
                keep.update((_read(place / WANTED) or {}).values())
        self._downloads.sweep(keep)
        try:
            self._indexes.sweep(keep | self._installed_files())
        except AgentError as error:
            _log.info("chunk indexes are swept another time: %s", error.message)

    def _installed_files(self) -> set[str]:
        """Name the files of every version that is here, by digest."""
        found: set[str] = set()
        for model, versions in self._installed().items():
            for version in versions:
                release = self._repository.release(model, version)
                if release is not None:
                    found.update(artifact.sha256 for artifact in release.artifacts.values())
        return found

    def _fetch(self, update: Update, release: VerifiedRelease, cancelled: threading.Event) -> None:
        needs, wanted = self._needed(update, release, cancelled)
        artifacts = [_signed(release, each.file, each.sha256) for each in needs.files]
        wanted |= {each.file: each.sha256 for each in needs.files}
        self._write(update, wanted)
        self._downloads.preflight(artifacts)
        prepared = []
        for needed, artifact in zip(needs.files, artifacts, strict=True):
            order = self._order(update, needed.file, cancelled)
            index = release.artifacts.get(f"{needed.file}{CHUNKS}")
            # A file that nobody made an index for was never meant to be made of older ones.
            older = [] if index is None else self._older(update, needed.file)
            prepared.append((self._files.prepare(artifact, index, older, order), order))
        # All of it or nothing: half a bundle is of no use, and its bytes would be spent.
        cost = sum(each.cost_bytes for each, _ in prepared)
        self._downloads.ask(self._order(update, "", cancelled), cost)
        for each, order in prepared:
            self._files.bring(each, order)

    def _needed(
        self, update: Update, release: VerifiedRelease, cancelled: threading.Event
    ) -> tuple[Needs, dict[str, str]]:
        """Bring what is read first, and ask the daemon what it lacks beside."""
        manifest = self._text(update, release.artifacts[MANIFEST], cancelled)
        signed = release.artifacts.get(SIGNATURE_FILE)
        signature = None if signed is None else self._text(update, signed, cancelled)
        needs = self._handover.needs(
            manifest, None if signature is None else signature.decode("utf-8", "replace")
        )
        wanted = {MANIFEST: release.artifacts[MANIFEST].sha256}
        if signed is not None:
            wanted[SIGNATURE_FILE] = signed.sha256
        return needs, wanted

    def _release(self, update: Update) -> VerifiedRelease:
        release = self._repository.release(update.model, update.version)
        if release is None or release.artifacts[MANIFEST].sha256 != update.manifest_sha256:
            raise TrustError(
                Distrust.MIXED,
                f"the repository has another bundle of {update.model} {update.version} than the "
                "one that was decided about",
            )
        return release

    def _text(self, update: Update, artifact: Artifact, cancelled: threading.Event) -> bytes:
        if artifact.size > MAX_BYTES:
            raise TrustError(Distrust.TOO_LARGE, f"{artifact.path} is over {MAX_BYTES} bytes")
        path = self._downloads.fetch(artifact, self._order(update, artifact.path, cancelled))
        with translated(path):
            return path.read_bytes()

    def _older(self, update: Update, file: str) -> list[OlderFile]:
        found = []
        here = self._installed().get(update.model, ())
        for version in sorted(here, reverse=True)[:OLDER_MAX]:
            release = self._repository.release(update.model, version)
            artifact = None if release is None else release.artifacts.get(file)
            if release is not None and artifact is not None:
                index = release.artifacts.get(f"{file}{CHUNKS}")
                found.append(OlderFile(artifact.sha256, index))
        return found

    def _order(self, update: Update, file: str, cancelled: threading.Event) -> Order:
        def notice(notice: Notice) -> None:
            _log.warning(
                "update %d of %s: %s: %s", update.id, update.model, notice.kind, notice.text
            )
            self._remarks.add(update.model, update.version, update.rollout, notice)

        return Order(
            rollout=update.rollout,
            rollout_bytes_max=update.bytes_max,
            progress=lambda progress: self._on_progress(update, file, progress),
            notice=notice,
            cancelled=cancelled,
        )

    # -- what is wanted ------------------------------------------------------------------------

    def _place(self, update: Update) -> Path:
        return self._folder / str(update.id)

    def _wanted(self, update: Update) -> dict[str, str] | None:
        return _read(self._place(update) / WANTED)

    def _write(self, update: Update, wanted: dict[str, str]) -> None:
        place = self._place(update)
        aside = place / f".{WANTED}"
        with translated(place):
            place.mkdir(mode=0o700, exist_ok=True)
            with aside.open("wb") as file:
                file.write(msgspec.json.encode(wanted))
                file.flush()
                os.fsync(file.fileno())
            aside.replace(place / WANTED)
            sync(place)


def _read(path: Path) -> dict[str, str] | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
        return None
    except OSError as error:
        raise StateError(f"cannot read {path}: {error.strerror}") from error


def _signed(release: VerifiedRelease, file: str, sha256: str) -> Artifact:
    """Give the artifact of a file that the manifest names."""
    artifact = release.artifacts.get(file)
    if artifact is None or artifact.sha256 != sha256:
        raise TrustError(
            Distrust.MIXED,
            f"the manifest of {release.facts.model} {release.facts.version} names a {file} that "
            "the repository does not have; publish the release again",
        )
    return artifact
