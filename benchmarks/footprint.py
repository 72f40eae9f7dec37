"""What a server takes while it does nothing: memory after a load, CPU time, and wakes."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

_PROC: Final = Path("/proc")
_LIBRARY: Final = "onnxruntime"
_SWITCHES: Final = ("voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:")


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a process and its children, in MB of 1,000,000 bytes."""

    pss_mb: float
    """Proportional set size: shared pages are divided among those who map them."""

    rss_mb: float
    """Resident set size: what the PSS would be at most, with no other process about."""

    sharers: int
    """Other processes that map ONNX Runtime at this moment and so make the PSS smaller."""


def memory(pid: int) -> Memory:
    """Read a server's memory.

    Args:
        pid: Its process id.
    """
    family = _family(pid)
    pss = sum(_rollup(member, "Pss:") for member in family)
    rss = sum(_rollup(member, "Rss:") for member in family)
    return Memory(pss / 1e6, rss / 1e6, _sharers(family))


def cpu_s(pid: int) -> float:
    """Read the CPU time of a process, to the nanosecond, its ended threads included.

    Args:
        pid: Its process id; children do not count.

    Raises:
        OSError: There is no such process, or this is not Linux.
    """
    # What clock_getcpuclockid(3) gives: the process's clock, as its scheduler counts.
    return time.clock_gettime((~pid << 3) | 2)


def wakes_per_s(pid: int, seconds: float) -> float:
    """Count how often the threads of an idle server are scheduled.

    Args:
        pid: Its process id; its children count too.
        seconds: How long to look.

    Returns:
        Voluntary and involuntary context switches of all threads, per second.
    """
    before = dict(_switches(pid))
    began = time.monotonic()
    time.sleep(seconds)
    after = dict(_switches(pid))
    elapsed_s = time.monotonic() - began
    return sum(count - before.get(thread, 0) for thread, count in after.items()) / elapsed_s


def _family(pid: int) -> list[int]:
    """List a process and its children."""
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def _rollup(pid: int, field: str) -> int:
    """Read one field of ``smaps_rollup``, in bytes."""
    text = (_PROC / str(pid) / "smaps_rollup").read_text("ascii")
    (line,) = (line for line in text.splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def _sharers(family: list[int]) -> int:
    """Count the processes outside a family that map the big library."""
    count = 0
    for folder in _PROC.iterdir():
        if folder.name.isdecimal() and int(folder.name) not in family:
            try:
                count += _LIBRARY in (folder / "maps").read_text("utf-8", "replace")
            except OSError:  # it ended, or is not ours to read
                continue
    return count


def _switches(pid: int) -> Iterator[tuple[str, int]]:
    """Read the context switches of every thread, by thread id."""
    for member in _family(pid):
        for task in (_PROC / str(member) / "task").iterdir():
            lines = (task / "status").read_text("utf-8").splitlines()
            counts = (line.split()[1] for line in lines if line.startswith(_SWITCHES))
            yield task.name, sum(int(count) for count in counts)
