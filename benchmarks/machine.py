"""What the numbers were measured on: nothing that tells one machine's name or folders."""

import os
import platform
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
        "Load average before": f"{os.getloadavg()[0]:.2f}",
        "Python": platform.python_version(),
        "Ours": ", ".join(f"{name} {version(name)}" for name in ("edge-runtime", *_PACKAGES)),
        "Peer": ", ".join(f"{name} {version(name)}" for name in _PEER_PACKAGES),
    }


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
