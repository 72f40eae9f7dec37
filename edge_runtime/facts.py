"""What was found out when a version was loaded, kept for the next time. Any of it may be lost.

A fact belongs to what runs (its ``key``: ``optimized_graphs.graph_key``) and to how it runs (its
``run``, such as the number of threads).
"""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from edge_runtime.private_folder import PrivateFolder

DIGESTS_MAX: Final = 256
"""Files whose digests are remembered; the first ones are forgotten first."""

_DIGESTS: Final = "digests.json"


class Facts:
    """Facts on disk; made and used on the thread that loads.

    Args:
        folder: Where they are kept.
    """

    def __init__(self, folder: PrivateFolder) -> None:
        self._folder = folder

    def of(self, key: str, run: str) -> dict[str, Any]:
        """Read what is known; empty where nothing is.

        Args:
            key: What runs.
            run: How it runs.
        """
        return self._read(f"{key}/{run}.json")

    def remember(self, key: str, run: str, **facts: Any) -> None:  # noqa: ANN401 - any JSON
        """Add facts to those that are known; written only if that changes them.

        Args:
            key: What runs.
            run: How it runs.
            **facts: JSON values.
        """
        known = self.of(key, run)
        if known | facts != known:
            self._folder.write(f"{key}/{run}.json", msgspec.json.encode(known | facts))

    def digest(self, paths: list[Path]) -> str:
        """Give the digest that was last found for these files; empty: they were not read yet.

        They are recognised by path, inode, size and times. That is good enough to guess a size
        from, and never a reason to trust a file.

        Args:
            paths: Every file that a session reads.
        """
        found = self._read(_DIGESTS).get(file_states(paths), "")
        return found if isinstance(found, str) else ""

    def remember_digest(self, paths: list[Path], digest: str) -> None:
        """Note the digest of files that were read.

        Args:
            paths: Every file that a session reads.
            digest: As ``digest.variant_digest`` gives it.
        """
        known, look = self._read(_DIGESTS), file_states(paths)
        if look and known.get(look) != digest:
            kept = dict(list(known.items())[-DIGESTS_MAX + 1 :])
            self._folder.write(_DIGESTS, msgspec.json.encode(kept | {look: digest}))

    def _read(self, name: str) -> dict[str, Any]:
        data = self._folder.read(name)
        try:
            return msgspec.json.decode(data, type=dict[str, Any]) if data else {}
        except msgspec.MsgspecError:
            return {}  # found out again


def known(facts: Mapping[str, Any], name: str) -> int:
    """Take a count out of facts; 0 where there is none.

    Args:
        facts: As ``Facts.of`` gives them.
        name: Of the fact.
    """
    value = facts.get(name)
    return value if type(value) is int and value > 0 else 0


def file_states(paths: list[Path]) -> str:
    """Describe files without reading them; empty where one cannot be looked at."""
    parts: list[str] = []
    for path in paths:
        try:
            found = path.stat()
        except OSError:
            return ""
        times = f"{found.st_mtime_ns} {found.st_ctime_ns}"
        parts.append(f"{path}\0{found.st_ino} {found.st_size} {times}")
    return sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
