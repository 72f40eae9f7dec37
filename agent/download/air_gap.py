"""``edge-agent import FILE``: a repository that comes in a tar file instead of over the network.

Nothing in it is believed here: its files are laid out in a folder, from which they are read as from
a web server (``file://``), with every signature and digest checked on the way. A file that carries
its digest in its name, as artifacts do, is held against it at once: sticks rot.
"""

import os
import re
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

from agent.download.disk import preflight, translated
from agent.errors import CanceledError, ConfigError
from edge_runtime.errors import ManifestError
from edge_runtime.failpoints import failpoint
from edge_runtime.manifest import check_file_name
from edge_runtime.private_folder import sync
from edge_runtime.store.tar_format import Entry, TarError, entries
from fleet.documents.paths import ARTIFACTS_FOLDER, METADATA_FOLDER

BLOCK_BYTES: Final = 1_048_576
DEPTH_MAX: Final = 12
METADATA_BYTES_MAX: Final = 16_777_216
"""Largest file of metadata."""

_FOLDERS: Final = (METADATA_FOLDER, ARTIFACTS_FOLDER)
_METADATA_PART: Final = re.compile(r"[A-Za-z0-9_@+=,%~-][A-Za-z0-9._@+=,%~ -]{0,254}")
_DIGEST_NAMED: Final = re.compile(r"([0-9a-f]{64})\..+")
"""How TUF's consistent snapshots name an artifact: its SHA-256, then its name."""
_PART_BYTES_MAX: Final = 255  # of a name on every file system that Linux has
_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600


@dataclass(frozen=True, slots=True)
class ImportLimits:
    """What an archive may ask for.

    Attributes:
        archive_bytes: Most bytes of all its files.
        entries: Most files and folders in it.
        reserve_bytes: What must stay free on the disk.
    """

    archive_bytes: int = 68_719_476_736
    entries: int = 100_000
    reserve_bytes: int = 67_108_864


@dataclass(frozen=True, slots=True)
class Imported:
    """What came in.

    Attributes:
        folder: Holds ``metadata`` and ``artifacts``.
        files: How many files.
        size_bytes: Of all of them.
    """

    folder: Path
    files: int
    size_bytes: int

    @property
    def metadata_url(self) -> str:
        """The folder of metadata as ``file://`` URL."""
        return (self.folder / METADATA_FOLDER).absolute().as_uri()

    @property
    def artifacts_url(self) -> str:
        """The folder of artifacts as ``file://`` URL."""
        return (self.folder / ARTIFACTS_FOLDER).absolute().as_uri()


def import_file(
    archive: Path,
    folder: Path,
    limits: ImportLimits,
    progress: Callable[[int, int], None],
    cancelled: threading.Event,
) -> Imported:
    """Lay the files of an archive out in a folder, all of them or none.

    Args:
        archive: A tar file, not compressed.
        folder: Made anew: what is there goes first.
        limits: What it may ask for.
        progress: Called with the bytes that were read, and all there are.
        cancelled: Ends it when it is set.

    Raises:
        CanceledError: It was called off.
        ConfigError: It cannot be read, is no tar file, is damaged, or holds what a repository does
            not.
        DiskFullError: The disk has no room.
        StateError: The disk fails.
    """
    try:
        with _opened(archive) as file, translated(folder):
            size = os.fstat(file.fileno()).st_size
            folder.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            preflight(folder.parent, size, limits.reserve_bytes)
            _remove(folder)
            folder.mkdir(_FOLDER_MODE)
            try:
                reader = _Reader(archive, file, size, progress, cancelled)
                files, total = reader.unpack(folder, limits)
                sync(folder.parent)
                failpoint("agent.import.laid_out")
            except BaseException:
                _remove(folder)
                raise
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise ConfigError(f"cannot read {archive}: {error.strerror}; check the path") from error
    progress(size, size)
    return Imported(folder, files, total)


def _opened(archive: Path) -> BinaryIO:
    """Open a file that has an end; a pipe without a writer must hold nobody up."""
    descriptor = os.open(archive, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ConfigError(
            f"cannot read {archive}: it is no file; name what `edge-fleet repo export` wrote"
        )
    return open(descriptor, "rb")  # noqa: PTH123 - a descriptor


class _Reader:
    """An archive that is read forwards; see ``tar_format.Bytes``."""

    def __init__(
        self,
        archive: Path,
        file: BinaryIO,
        size: int,
        progress: Callable[[int, int], None],
        cancelled: threading.Event,
    ) -> None:
        self.position = 0
        self._archive = archive
        self._file = file
        self._size = size
        self._progress = progress
        self._cancelled = cancelled

    def exactly(self, size_bytes: int) -> bytes:
        """Read so many bytes; fewer only at the end."""
        try:
            self._file.seek(self.position)
            data = self._file.read(size_bytes)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"cannot read {self._archive}: {error}; copy it again") from error
        self.position += len(data)
        return data

    def skip_to(self, position: int) -> None:
        """Go on at a later place."""
        self.position = position

    def unpack(self, folder: Path, limits: ImportLimits) -> tuple[int, int]:
        """Write every file of the repository; gives their number and bytes."""
        seen: set[str] = set()
        total = 0
        try:
            for entry in entries(self, limits.entries):
                if entry.path.partition("/")[0] not in _FOLDERS:
                    continue
                self._check(entry, seen)
                total += entry.size_bytes
                if total > limits.archive_bytes:
                    raise ConfigError(
                        f"{self._archive}: over {limits.archive_bytes} bytes, the limit for it"
                    )
                self._write(entry, folder)
        except TarError as error:
            raise ConfigError(f"{self._archive}: {error}") from error
        if not any(path.startswith(f"{METADATA_FOLDER}/") for path in seen):
            raise ConfigError(
                f"{self._archive}: there is no {METADATA_FOLDER}/ in it; make it with "
                "'edge-fleet repo export'"
            )
        (folder / ARTIFACTS_FOLDER).mkdir(_FOLDER_MODE, exist_ok=True)
        sync(folder / ARTIFACTS_FOLDER)
        for parent in {parent for name in seen for parent in Path(name).parents}:
            sync(folder / parent)
        return len(seen), total

    def _check(self, entry: Entry, seen: set[str]) -> None:
        parts = entry.path.split("/")
        if len(parts) > DEPTH_MAX or not _is_name(parts):
            raise ConfigError(f"{self._archive}: {entry.path!a} is no name of a repository's file")
        if entry.path in seen:
            raise ConfigError(f"{self._archive}: {entry.path!a} is there twice")
        if parts[0] == METADATA_FOLDER and entry.size_bytes > METADATA_BYTES_MAX:
            raise ConfigError(
                f"{self._archive}: {entry.path!a} has over {METADATA_BYTES_MAX} bytes"
            )
        if entry.position + entry.size_bytes > self._size:
            raise ConfigError(f"{self._archive}: it is cut off in {entry.path!a}; copy it again")
        seen.add(entry.path)

    def _write(self, entry: Entry, folder: Path) -> None:
        path = folder / entry.path
        try:
            path.parent.mkdir(_FOLDER_MODE, parents=True, exist_ok=True)
            descriptor = os.open(
                path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE
            )
        except (FileExistsError, NotADirectoryError) as error:
            raise ConfigError(
                f"{self._archive}: {entry.path!a} is a file and a folder at once"
            ) from error
        digest = sha256()
        with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 - a descriptor
            left = entry.size_bytes
            while left:
                if self._cancelled.is_set():
                    raise CanceledError(f"the import of {self._archive} was called off")
                data = self.exactly(min(left, BLOCK_BYTES))
                if not data:
                    raise ConfigError(f"{self._archive}: it is cut off; copy it again")
                file.write(data)
                digest.update(data)
                left -= len(data)
                self._progress(self.position, self._size)
            os.fsync(descriptor)
        named = _DIGEST_NAMED.fullmatch(path.name)
        if named is not None and named[1] != digest.hexdigest():
            raise ConfigError(
                f"{self._archive}: {entry.path!a} is damaged, its content is not what its name "
                "says; copy the archive again"
            )


def _is_name(parts: list[str]) -> bool:
    """Tell whether a repository can hold a file of that name: a release's may be in any script."""
    if parts[0] == METADATA_FOLDER:
        return all(_METADATA_PART.fullmatch(part) for part in parts)
    try:
        check_file_name("/".join(parts))
        return all(len(part.encode()) <= _PART_BYTES_MAX for part in parts)
    except (ManifestError, UnicodeEncodeError):
        return False


def _remove(folder: Path) -> None:
    from shutil import rmtree  # noqa: PLC0415 - rarely needed, and it imports every compressor

    if folder.exists():
        rmtree(folder)
