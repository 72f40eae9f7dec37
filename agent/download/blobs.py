"""Whether a whole file on this disk is what its digest says."""

import hashlib
from pathlib import Path

from agent.errors import StateError


def is_file(path: Path, sha256: str) -> bool:
    """Tell whether a file is there and has a digest.

    Args:
        path: The file.
        sha256: 64 lower-case hexadecimal digits.

    Raises:
        StateError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StateError(f"cannot read {path}: {error.strerror}; check the disk") from error
