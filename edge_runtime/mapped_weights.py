"""The file that a session maps its weights from, held open until the session is gone.

A session that ends gives its pages back under Python's lock, and holds up every request for as long
as that takes: milliseconds for 100 MB, and tens of them if the file was removed meanwhile, because
its blocks are given back with the last page. Here both happen without the lock.
"""

import ctypes
import os
from collections import Counter
from pathlib import Path
from typing import Final

_LIBC: Final = ctypes.CDLL(None)
_MAPS: Final = Path("/proc/self/maps")
_MADV_DONTNEED: Final = 4

#: Sessions by the file that they map; they come and go one by one.
_users: Final[Counter[str]] = Counter()


class MappedWeights:
    """One session's hold on its weights.

    Args:
        path: A file that a session is about to map.

    Raises:
        OSError: It cannot be opened.
    """

    __slots__ = ("_descriptor", "_shown")

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(self._descriptor)
        major, minor = os.major(status.st_dev), os.minor(status.st_dev)
        self._shown = f" {major:02x}:{minor:02x} {status.st_ino} "  # in proc_pid_maps(5)
        _users[self._shown] += 1

    def drop_pages(self) -> None:
        """Take its pages out of memory, if no other session has mapped it; they may come back."""
        if _users[self._shown] > 1 or not _MAPS.exists():
            return
        maps, shown = _MAPS.read_bytes(), self._shown.encode()
        found = maps.find(shown)
        while found >= 0:
            line = maps.rfind(b"\n", 0, found) + 1
            start, end = (int(each, 16) for each in maps[line : maps.index(b" ", line)].split(b"-"))
            _LIBC.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)
            found = maps.find(shown, found + 1)

    def close(self) -> None:
        """Let go of the file; the session must be gone."""
        _users[self._shown] -= 1
        if not _users[self._shown]:
            del _users[self._shown]
        os.close(self._descriptor)
