"""Puts the files of a bundle together for the hand-over: hard links of verified artifacts."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agent.download.blobs import is_file
from agent.download.disk import translated
from agent.download.part import BLOB_MODE
from agent.errors import StateError
from edge_runtime.errors import ManifestError
from edge_runtime.manifest import check_file_name

_FOLDER_MODE: Final = 0o755
"""The runtime opens it by a descriptor, perhaps as another user."""


class LostFileError(StateError):
    """An artifact that was downloaded is not there any more, or not right: download it again."""


def assemble(files: Mapping[str, Path | bytes], into: Path) -> Path:
    """Make the folder of a bundle anew. It may lack files that the runtime has already.

    Args:
        files: By path in the bundle: a whole artifact, whose name is its digest, or a content.
        into: The folder; what is there goes.

    Raises:
        DiskFullError: The disk is full.
        LostFileError: An artifact is not there, or damaged.
        StateError: The disk fails, or a path leads elsewhere.
    """
    from shutil import rmtree  # noqa: PLC0415 - rarely needed, and it imports every compressor

    for name, source in files.items():
        try:
            check_file_name(name)
        except ManifestError as error:
            raise StateError(f"{name!a} cannot be in a bundle: {error}") from error
        if isinstance(source, Path) and not is_file(source, source.name):
            raise LostFileError(f"{source} is lost or damaged; it is to be downloaded again")
    with translated(into):
        if into.exists():
            rmtree(into)
        into.mkdir(_FOLDER_MODE, parents=True)
        for name, source in files.items():
            path = into / name
            for folder in reversed(path.relative_to(into).parents[:-1]):
                (into / folder).mkdir(_FOLDER_MODE, exist_ok=True)
            if isinstance(source, Path):
                os.link(source, path)
            else:
                path.write_bytes(source)
                path.chmod(BLOB_MODE)
    return into
