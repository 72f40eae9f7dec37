"""What the store says when the disk, or whoever owns its folder, does not let it work."""

import errno
from typing import Final

from edge_runtime.errors import StorageError

_FULL: Final = {errno.ENOSPC, errno.EDQUOT}


def not_ours(what: str) -> StorageError:
    """Say that others may write to the store's folder.

    Args:
        what: What was to be done.
    """
    return StorageError(
        f"cannot {what}: the store's folder cannot be used, the log says why; make it a folder "
        "that only the daemon's user may write to, and start the daemon again"
    )


def not_stored(what: str, error: OSError) -> StorageError:
    """Say what the disk said.

    Args:
        what: What was to be done.
        error: The disk's words.
    """
    reason = error.strerror or str(error)
    remedy = "free space" if error.errno in _FULL else "check the disk and its permissions"
    return StorageError(f"cannot {what}: {reason}; nothing changed; {remedy}")
