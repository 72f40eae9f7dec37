"""Contents that are on this device already: in the daemon's store, or imported by hand."""

import os
import re
from pathlib import Path
from typing import Final

from agent.errors import RuntimeAwayError, RuntimeRefusedError
from agent.runtime_client.handover import Handover

_NAMED: Final = re.compile(r"([0-9a-f]{64})\..+")
"""How TUF's consistent snapshots name a file: its digest, then its name."""


class LocalContents:
    """Finds contents by their digest; whoever reads them checks it.

    Args:
        handover: The daemon's store.
        imported: Folder of the artifacts that were imported last; need not be there.
    """

    def __init__(self, handover: Handover, imported: Path) -> None:
        self._handover = handover
        self._imported = imported
        self._seen: tuple[int, int] | None = None
        self._paths: dict[str, Path] = {}

    def open(self, sha256: str) -> int | None:
        """Open a content for reading; ``None``: it is not here, or nobody can say now."""
        path = self._files().get(sha256)
        if path is not None:
            try:
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                self._seen = None  # it changed under us: look again the next time
        try:
            return self._handover.open(sha256)
        except (RuntimeAwayError, RuntimeRefusedError):
            return None

    def _files(self) -> dict[str, Path]:
        """List the imported files, once for each import: it replaces the folder."""
        try:
            found = self._imported.stat()
        except OSError:
            return {}
        seen = found.st_ino, found.st_mtime_ns
        if seen != self._seen:
            self._paths = {
                match[1]: path
                for path in self._imported.rglob("*")
                if (match := _NAMED.fullmatch(path.name)) and path.is_file()
            }
            self._seen = seen
        return self._paths
