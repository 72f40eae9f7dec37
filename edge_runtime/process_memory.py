"""What this process holds in memory."""

import resource
from pathlib import Path
from typing import Final

_STATM: Final = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Give the resident memory of this process: anonymous pages and touched pages of files.

    Pages of a mapped file count here although the system may take them back when memory is short,
    and although other processes may share them.

    Source:
        proc_pid_statm(5), field ``resident``.
    """
    return int(_STATM.read_bytes().split()[1]) * resource.getpagesize()
