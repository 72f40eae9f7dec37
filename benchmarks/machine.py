"""What the numbers were measured on: nothing that tells one machine's name or folders."""

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil

_PACKAGES: Final = ("onnxruntime", "numpy", "uvloop", "httptools", "msgspec")
_PEER_PACKAGES: Final = ("fastapi", "pydantic", "uvicorn", "starlette")
_INSTRUCTIONS: Final = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


def facts() -> dict[str, str]:
    """Describe the machine and the software.

    Returns:
        Texts by heading.
    """
    memory_gb = psutil.virtual_memory().total / 1e9
    return {
        "CPU": f"{_cpu()}, {len(os.sched_getaffinity(0))} cores, {platform.machine()}",
        "Instructions": ", ".join(_instructions()) or "none of note",
        "Memory": f"{memory_gb:.0f} GB",
        "Python": platform.python_version(),
        "Ours": ", ".join(f"{name} {version(name)}" for name in ("edge-runtime", *_PACKAGES)),
        "Peer": ", ".join(f"{name} {version(name)}" for name in _PEER_PACKAGES),
    }


class Strangers:
    """Tells how much of the machine others took while the benchmark ran."""

    def __init__(self) -> None:
        """Begin to look."""
        self._began_s = time.monotonic()
        self._busy_s = _busy_s()
        self._own_s = _own_s()

    def share(self) -> float:
        """Give the share of all cores that others took since, 0 to 1.

        Only children that have ended count as the benchmark's own.
        """
        elapsed_s = time.monotonic() - self._began_s
        others_s = (_busy_s() - self._busy_s) - (_own_s() - self._own_s)
        return max(0.0, others_s / (elapsed_s * (os.cpu_count() or 1)))


def _busy_s() -> float:
    """Read the time that all cores were not idle, in seconds."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


def _own_s() -> float:
    """Read the CPU time of this process and its ended children, in seconds."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _cpu() -> str:
    """Read the CPU's model name."""
    for line in _cpu_lines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return "unknown CPU"


def _instructions() -> list[str]:
    """List the instruction sets that matter to int8 and float32 kernels."""
    for line in _cpu_lines():
        if line.startswith(("flags", "Features")):
            flags = set(line.partition(":")[2].split())
            return [name for name in _INSTRUCTIONS if name in flags]
    return []


def _cpu_lines() -> list[str]:
    return Path("/proc/cpuinfo").read_text("utf-8").splitlines()
