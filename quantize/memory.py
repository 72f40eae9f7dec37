"""Measure the memory that loading and running a model needs, in a process of its own.

``python -m quantize.memory MODEL FEEDS THREADS`` is that process.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from quantize.errors import QuantizeError, StepFailedError
from quantize.signature import Array

TIMEOUT_S: Final = 300.0
"""A model that is not loaded and run by then is given up."""

_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")
_RESET_PEAK: Final = "5"  # proc_pid_clear_refs(5): forget the peak
_KIB: Final = 1024


def peak_bytes(path: Path, feeds: Mapping[str, Array], *, threads: int = 1) -> int:
    """Measure how much resident memory loading a model and running it once adds at most.

    Args:
        path: Model file.
        feeds: Inputs of the run.
        threads: Threads of the run.

    Returns:
        Bytes, at least 1; 0 where the system does not tell.

    Raises:
        StepFailedError: The model cannot be loaded or run, or takes longer than ``TIMEOUT_S``.
    """
    if not _STATUS.exists():
        return 0
    with tempfile.TemporaryDirectory(prefix="edge-quantize-") as folder:
        inputs = Path(folder) / "feeds.npz"
        # By place, not by name: an input can be called like a parameter of savez, or hold "/".
        names = list(feeds)
        np.savez(inputs, *(feeds[name] for name in names), names=np.array(names))
        # The child finds this package where we did.
        command = [sys.executable, "-m", __name__, str(path.resolve()), str(inputs), str(threads)]
        try:
            done = subprocess.run(  # noqa: S603 - ourselves
                command,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        except subprocess.TimeoutExpired as error:
            raise StepFailedError(
                f"{path.name}: memory not measured: one run took over {TIMEOUT_S:.0f} s"
            ) from error
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise StepFailedError(f"{path.name}: memory not measured: {said}")
    return int(done.stdout)


def measure(path: Path, inputs: Path, threads: int) -> int:
    """Do it in this process; see ``peak_bytes``."""
    # The library itself is loaded before the first look: it is not the model's.
    from quantize.execution import open_runner  # noqa: PLC0415

    with np.load(inputs, allow_pickle=False) as archive:
        names = [str(name) for name in archive["names"]]
        feeds = {name: archive[f"arr_{place}"] for place, name in enumerate(names)}
    peak_before = _reset_peak()
    with open_runner(path, threads=threads) as runner:
        runner.run(feeds)
        return max(1, _status("VmHWM") - peak_before)


def _reset_peak() -> int:
    """Start counting from here where the system lets us; give the memory held now."""
    try:
        _CLEAR.write_text(_RESET_PEAK, "ascii")
    except OSError:
        return _status("VmHWM")  # what loading adds below the old peak is then not seen
    return _status("VmRSS")


def _status(field: str) -> int:
    match = re.search(rf"^{field}:\s+(\d+) kB", _STATUS.read_text("ascii"), re.MULTILINE)
    return int(match[1]) * _KIB if match else 0


def main() -> None:
    """Measure what the arguments say and print the bytes."""
    try:
        path, inputs, threads = sys.argv[1:]
        sys.stdout.write(f"{measure(Path(path), Path(inputs), int(threads))}\n")
    except QuantizeError as error:
        sys.exit(error.message)


if __name__ == "__main__":
    main()
