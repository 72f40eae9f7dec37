"""What the process that tries a candidate out may take, and what its death means."""

import contextlib
import os
import resource
import signal
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from edge_runtime.settings import Release

Kind = Literal["crashed", "memory", "cpu-time", "hung", "killed", "starved", "broken", "ended"]
"""How a trial's process came to its end before it had answered.

``crashed``: a signal. ``memory``, ``cpu-time``, ``hung``: over a limit. ``killed``: by somebody
else, the system most likely: it is the first to go when memory is short, whoever takes it, so once
says nothing against the model. ``starved``: it got no CPU, which says nothing either. ``broken``:
an answer that is none. ``ended``: somebody ended the trial.
"""

FILE_BYTES: Final = 2**20
"""Most that it may write to a file: what it prints."""
DOING_BYTES: Final = 512
"""Size of the file in which it says what it is doing."""
_STARVED_SHARE: Final = 4  # of the time of a self-test: a quarter
_MEMORY_SHARE: Final = 2  # of the device's memory: half
_HARD_CPU_S: Final = 5  # after the signal that says so, for who ignores it
_OOM_SCORE: Final = "1000"
# What libraries reserve and do not use: stacks of threads, arenas of the allocator.
_RESERVED_BYTES: Final = 2**30
_OOM_SCORE_FILE: Final = Path("/proc/self/oom_score_adj")

_MEANINGS: Final = {
    signal.SIGILL: "an instruction that this CPU does not have",
    signal.SIGFPE: "a division that the CPU refuses",
    signal.SIGSEGV: "memory that is not its own",
    signal.SIGBUS: "a file that became shorter, or memory that is not there",
    signal.SIGABRT: "it gave itself up",
}


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a trial may take.

    Attributes:
        self_test_s: Time of the self-test of all variants, in seconds awake.
        self_test_cpu_s: CPU time of the self-test of one variant.
        memory_bytes: Resident memory of the process.
        load_s: Time to load both versions, in seconds awake.
        compare_s: Time of one comparison, in seconds awake.
        starved_after_s: How long it may run only while nobody else wants to, without getting half
            of a CPU; then it gets a tenth of what others get, so that it comes to an end.
        runs: Runs of the self-test after which a variant counts as stable.
        runs_cpu_s: CPU seconds after which fewer are enough.
    """

    self_test_s: float = 120.0
    self_test_cpu_s: float = 120.0
    memory_bytes: int = 2**31
    load_s: float = 120.0
    compare_s: float = 30.0
    starved_after_s: float = 30.0
    runs: int = 200
    runs_cpu_s: float = 2.0


class Usage(NamedTuple):
    """What a process holds and has used.

    Attributes:
        resident_bytes: Memory it holds now.
        cpu_s: CPU time so far, in steps of 10 ms.
    """

    resident_bytes: int
    cpu_s: float


def limits(settings: Release) -> Limits:
    """Take the limits from the configuration.

    Args:
        settings: Its ``[release]``.
    """
    return Limits(
        self_test_s=settings.self_test_s,
        self_test_cpu_s=settings.self_test_cpu_s,
        memory_bytes=settings.trial_memory_bytes or _device_bytes() // _MEMORY_SHARE,
        load_s=settings.self_test_s,
        starved_after_s=settings.self_test_s / _STARVED_SHARE,
    )


def confine(*, memory_bytes: int, cpu_s: float) -> None:
    """Let the calling process take no more than this, and be the first that the system ends.

    The daemon watches the resident memory; the system's own limit is only there for what is asked
    for at once, and is wider, because libraries reserve more than they use.

    Args:
        memory_bytes: Memory it may hold.
        cpu_s: CPU time it may use; 0: any.
    """
    with contextlib.suppress(OSError):  # a container may not have it
        _OOM_SCORE_FILE.write_text(_OOM_SCORE, "ascii")
    # Of 0 bytes a dump would still be piped to a program that collects them; of 1 it is not
    # (Linux, do_coredump).
    _limit(resource.RLIMIT_CORE, 1)
    _limit(resource.RLIMIT_FSIZE, FILE_BYTES)
    _limit(resource.RLIMIT_DATA, _data_bytes() + memory_bytes + _RESERVED_BYTES)
    if cpu_s:
        seconds = int(cpu_s) + 1
        _limit(resource.RLIMIT_CPU, seconds, seconds + _HARD_CPU_S)


def usage(pid: int) -> Usage | None:
    """Look at a process of ours.

    Args:
        pid: Its id.

    Returns:
        What it uses; ``None``: it is gone, or the system does not tell.

    Source:
        proc_pid_statm(5), proc_pid_stat(5).
    """
    folder = Path("/proc", str(pid))
    try:
        pages = int((folder / "statm").read_bytes().split()[1])
        # The second field is a name in brackets, and may hold anything.
        fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
    except (OSError, IndexError, ValueError):
        return None
    return Usage(pages * resource.getpagesize(), ticks / os.sysconf("SC_CLK_TCK"))


def queued_s(pid: int) -> float | None:
    """Say how long the threads of a process have waited for a CPU in all, since it began.

    Args:
        pid: Its id.

    Returns:
        Seconds; ``None``: the system does not tell.

    Source:
        Linux, Documentation/scheduler/sched-stats.rst, ``/proc/<pid>/schedstat``.
    """
    waited_ns = 0
    try:
        for thread in Path("/proc", str(pid), "task").iterdir():
            waited_ns += int((thread / "schedstat").read_bytes().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return waited_ns / 1e9


def death(status: int, doing: str, said: str) -> tuple[Kind, str]:
    """Say what the end of a process means that nobody here ended.

    Args:
        status: Its return code: a signal's number, negated, or an exit code.
        doing: What it said that it was doing; empty: nothing yet.
        said: The last line that it printed.

    Returns:
        How it died, and a sentence's part for a person.
    """
    when = f" while {doing}" if doing else " before it began"
    last = f"; it said: {said}" if said else ""
    if status >= 0:
        return "broken", f"the process of the trial ended with {status}{when}{last}"
    try:
        sign = signal.Signals(-status)
    except ValueError:
        return "crashed", f"crashed (signal {-status}){when}{last}"
    if sign is signal.SIGXCPU:
        return "cpu-time", f"used more CPU time than it may{when}"
    if sign is signal.SIGKILL:
        return "killed", f"was killed by the system, out of memory most likely,{when}"
    meaning = f": {_MEANINGS[sign]}" if sign in _MEANINGS else ""
    return "crashed", f"crashed ({sign.name}{meaning}){when}{last}"


def _limit(which: int, soft: int, hard: int | None = None) -> None:
    """Lower a limit as far as it may be lowered; a lower one of the daemon's stays."""
    _, ceiling = resource.getrlimit(which)
    hard = soft if hard is None else hard
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(which, (soft, hard))


def _data_bytes() -> int:
    """Give the writable memory that this process has reserved so far."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[5]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return 0


def _device_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * resource.getpagesize()
