"""How much memory something adds to this process at most; for a process that does little else."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")
_RESET_PEAK: Final = "5"
_KIB: Final = 1024


class MemoryPeak:
    """Measures parts of the work and leaves out what is between them.

    Attributes:
        size_bytes: Most resident memory that the measured parts added, in bytes; what one part
            keeps counts in the next. 0: nothing was measured, or the system does not tell.
    """

    def __init__(self) -> None:
        self.size_bytes = 0
        self._kept_bytes = 0

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Measure what is done within."""
        start_bytes, lowest_peak = _begin()
        try:
            yield
        finally:
            status = _status()
            peak_bytes = max(_field(status, "VmHWM"), lowest_peak)
            added = self._kept_bytes + max(peak_bytes - max(start_bytes, lowest_peak), 0)
            self.size_bytes = max(self.size_bytes, added)
            self._kept_bytes += max(_field(status, "VmRSS") - start_bytes, 0)
            self.size_bytes = max(self.size_bytes, self._kept_bytes)


def _begin() -> tuple[int, int]:
    """Forget the peak so far; give the memory held now, and a peak that cannot be forgotten.

    Source:
        proc_pid_clear_refs(5), value 5.
    """
    try:
        _CLEAR.write_text(_RESET_PEAK, "ascii")
    except OSError:
        status = _status()
        return _field(status, "VmRSS"), _field(status, "VmHWM")
    return _field(_status(), "VmRSS"), 0


def _status() -> str:
    try:
        return _STATUS.read_text("ascii", "replace")
    except OSError:
        return ""


def _field(status: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * _KIB if found else 0
