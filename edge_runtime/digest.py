"""The digest of what runs: the one name for "these exact answers".

It covers every file that the running variant's session reads and every session option that can
change results. An optimised-graph cache is derived from those and is never part of it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from edge_runtime.errors import ModelLoadError

# Part of the hashed text: another encoding must never give the digest of this one.
ENCODING: Final = "edge-runtime variant digest 1"


def file_sha256(path: Path, shown: str = "") -> str:
    """Hash one file without holding it in memory.

    Args:
        path: The file.
        shown: How messages call it; empty: the path.

    Returns:
        64 lower-case hexadecimal digits.

    Raises:
        ModelLoadError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelLoadError(
            f"cannot read {shown or path}: {reason}; check the file and its permissions"
        ) from error


def variant_digest(files: Iterable[tuple[str, int, str]], result_options: Mapping[str, str]) -> str:
    """Name what a session computes with.

    The hashed text is canonical JSON (sorted, no spaces, ASCII), so that no two inputs share it.

    Args:
        files: Path in the bundle, size in bytes and SHA-256 of every file the session reads; the
            order and repetitions do not matter.
        result_options: Session options that can change results.

    Returns:
        64 lower-case hexadecimal digits.
    """
    facts = [ENCODING, sorted(set(files)), dict(result_options)]
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
