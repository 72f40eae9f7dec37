"""Ends processes, whatever happens."""

import subprocess
from typing import Final

_STOP_S: Final = 15.0


def stop(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """End a process by its id: asked first, forced after a while.

    Args:
        process: A child of this process.
    """
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        pass  # forced below, as after a second Ctrl-C
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
