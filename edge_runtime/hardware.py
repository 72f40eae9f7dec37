"""Facts about the CPU this process runs on: its instruction sets, and how much of it is ours.

Standard library only: the manifest reader takes ``CpuFacts`` from here. The functions that parse
take text and folders as arguments; only ``cpu_facts`` and ``usable_cpus`` look at the system.
"""

import math
import os
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

CPU_INFO: Final = Path("/proc/cpuinfo")
OWN_CGROUP: Final = Path("/proc/self/cgroup")
CGROUP_ROOT: Final = Path("/sys/fs/cgroup")

# One instruction that multiplies int8 and adds to int32: with it int8 models beat float ones,
# without it they often lose. Intel and AMD have it in two encodings, ARM as the dot product.
VNNI_FLAGS: Final = frozenset({"avx512_vnni", "avx_vnni", "asimddp"})

# Other systems and tools use these words for what Linux calls x86_64 and aarch64.
_ARCH_WORDS: Final = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class CpuFacts:
    """What decides which variant of a model a CPU can run.

    Attributes:
        arch: ``x86_64``, ``aarch64`` or another word of ``platform.machine()``.
        flags: Instruction sets as Linux spells them, only those that every core has.
        vnni: Whether one instruction does an int8 dot product.
        description: One line for a person.
    """

    arch: str
    flags: frozenset[str]
    vnni: bool
    description: str


def has_vnni(flags: Iterable[str]) -> bool:
    """Say whether an int8 dot product is one instruction.

    Args:
        flags: Instruction sets as Linux spells them.
    """
    return not VNNI_FLAGS.isdisjoint(flags)


def parse_cpu_info(text: str, machine: str) -> CpuFacts:
    """Read the text of ``/proc/cpuinfo``.

    Args:
        text: The file's content; may be empty, then no instruction set is known.
        machine: The architecture as ``platform.machine()`` gives it.
    """
    model = ""
    cores: list[frozenset[str]] = []
    for line in text.splitlines():
        key, _, value = line.partition(":")
        match key.strip():
            case "flags" | "Features":
                cores.append(frozenset(value.split()))
            case "model name" | "Model" if not model:
                model = value.strip()
            case _:
                pass
    # Cores of one chip can differ, and the scheduler moves threads between them.
    flags = frozenset.intersection(*cores) if cores else frozenset[str]()
    arch = _ARCH_WORDS.get(machine.lower(), machine)
    vnni = has_vnni(flags)
    description = f"{arch}, {model or 'unnamed CPU'}, {'with' if vnni else 'without'} VNNI"
    return CpuFacts(arch=arch, flags=flags, vnni=vnni, description=description)


def cpu_facts() -> CpuFacts:
    """Read the facts of the CPU that runs this process; an unreadable source adds no flags."""
    return parse_cpu_info(_text(CPU_INFO), platform.machine())


def cgroup_quota(membership: str, root: Path) -> float | None:
    """Find the tightest CPU quota on the way from a process's cgroup up to the root.

    Args:
        membership: Text of ``/proc/self/cgroup``, of version 1, 2 or both.
        root: Where the cgroup file system is mounted.

    Returns:
        The quota in CPUs (1.5 is one and a half), or ``None`` for none.
    """
    quotas: list[float] = []
    for line in membership.splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:
            for folder in _upwards(root, path):
                quotas.extend(_ratio(_text(folder / "cpu.max").split()))
        elif "cpu" in controllers.split(","):
            for mount in {root / controllers, root / "cpu"}:
                for folder in _upwards(mount, path):
                    files = (folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us")
                    quotas.extend(_ratio([_text(file).strip() for file in files]))
    return min(quotas, default=None)


def cpus_within(affinity: int, quota: float | None) -> int:
    """Turn what the scheduler allows into a number of threads worth starting.

    Args:
        affinity: CPUs in the affinity mask.
        quota: CPUs' worth of time the cgroup may use, or ``None`` for all.

    Returns:
        The smaller of both, rounded up; at least 1.
    """
    allowed = affinity if quota is None else min(affinity, math.ceil(quota))
    return max(1, allowed)


def usable_cpus() -> int:
    """Count the CPUs this process may keep busy: affinity mask and cgroup quota; at least 1."""
    quota = cgroup_quota(_text(OWN_CGROUP), CGROUP_ROOT)
    return cpus_within(len(os.sched_getaffinity(0)), quota)


def _text(path: Path) -> str:
    """Read a small system file; what cannot be read says nothing."""
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """List a cgroup's folder and every folder above it, up to the mount point.

    Inside a container the path can be the host's: folders that are not there hold no quota.
    """
    parts = PurePosixPath(path.lstrip("/")).parts
    if ".." in parts:
        # The cgroup lies outside our namespace; only the mount point itself can be read.
        parts = ()
    for length in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:length])


def _ratio(words: list[str]) -> list[float]:
    """Turn ``[quota, period]`` into at most one number of CPUs."""
    try:
        quota, period = (int(word) for word in words)
    except ValueError:
        # "max", an empty file, or no file: no limit here.
        return []
    return [quota / period] if quota > 0 and period > 0 else []
