"""Runs ``edge-fleet`` and kills it at the Nth change of a name on disk, before or after.

Usage: ``python fleet_killer.py N before|after ARGUMENT...``. Every file of a repository comes into
its place by a rename, so these are all the moments at which what is on disk differs.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Final

from fleet.cli import main

_KILLED: Final = {"count": 0}
_replace = Path.replace
_rename = Path.rename


def _counting(change: object, number: int, when: str) -> object:
    def counted(source: Path, target: Path) -> Path:
        _KILLED["count"] += 1
        is_now = _KILLED["count"] == number
        if is_now and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        done: Path = change(source, target)  # type: ignore[operator] # Path.replace or Path.rename
        if is_now:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    return counted


if __name__ == "__main__":
    number, when = int(sys.argv[1]), sys.argv[2]
    Path.replace = _counting(_replace, number, when)  # type: ignore[assignment,method-assign]
    Path.rename = _counting(_rename, number, when)  # type: ignore[assignment,method-assign]
    sys.exit(main(sys.argv[3:]))
