"""The last number given, where kill -9 does not lose it and flash does not feel it.

Twenty-four bytes are written in place at every number and never synced: they are in the kernel's
memory, which outlives the process but not the power. In a folder of the runtime directory (a
tmpfs) they never reach flash at all.
"""

import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

_SLOT: Final = struct.Struct("<QQQ")
_SALT: Final = 0x6F75_7462_6F78_2E31


class Mark(NamedTuple):
    """What was written last.

    Attributes:
        boot: Number of the run of the agent.
        seq: The last number that it gave.
    """

    boot: int
    seq: int


class SequenceMark:
    """The file.

    Args:
        path: Made if it is missing.

    Attributes:
        found: What an earlier run left, or ``None``.
        is_kept: Whether every mark could be written so far.
    """

    def __init__(self, path: Path) -> None:
        self.found: Mark | None = None
        self.is_kept = True
        self._descriptor = -1
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(path, flags, 0o600)
            self.found = _newest(os.pread(self._descriptor, 2 * _SLOT.size, 0))
        except OSError:
            self.is_kept = False

    def write(self, boot: int, seq: int) -> None:
        """Note a number before it is used; the two places take turns, so one is always whole."""
        if self._descriptor < 0:
            return
        data = _SLOT.pack(boot, seq, boot ^ seq ^ _SALT)
        try:
            os.pwrite(self._descriptor, data, (seq & 1) * _SLOT.size)
        except OSError:
            self.is_kept = False

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _newest(data: bytes) -> Mark | None:
    marks = []
    for offset in range(0, len(data) - _SLOT.size + 1, _SLOT.size):
        boot, seq, check = _SLOT.unpack_from(data, offset)
        if check == boot ^ seq ^ _SALT:
            marks.append(Mark(boot, seq))
    return max(marks, default=None)
