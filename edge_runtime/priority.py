"""Which of the daemon's threads make way for which: requests first, loads last."""

import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

_TURN_S: Final = 0.0001
#: A tenth of the weight of a thread that serves: enough to make way for it at once, and still a
#: load comes to its end while requests keep every CPU busy.
_NICE: Final = 10

_local = threading.local()


def take_short_turns() -> None:
    """Make Python's threads give way to each other soon: a request meets the loader often.

    Python's own 5 ms are most of what a short model's request may take; 0.1 ms costs no throughput
    that could be measured.
    """
    sys.setswitchinterval(_TURN_S)


def make_way(usual: ThreadPoolExecutor) -> None:
    """Let the calling thread make way for all others from now on; Linux only.

    Args:
        usual: A thread that does not, for ``at_usual_priority``.
    """
    if sys.platform != "linux":  # elsewhere this would be the whole process
        return
    try:
        os.setpriority(os.PRIO_PROCESS, 0, max(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    except OSError as error:  # a sandbox without it (systemd: ``SystemCallFilter=~@resources``)
        _log.warning("loads cannot make way for requests: %s", error)
    else:
        _local.usual = usual


def at_usual_priority(work: Callable[[], _Result]) -> _Result:
    """Do something at the usual priority, for what is made by it and would inherit a lower one.

    Nobody may raise a priority again who is not privileged.

    Args:
        work: Done here, or on the thread that ``make_way`` was given.
    """
    usual: ThreadPoolExecutor | None = getattr(_local, "usual", None)
    return work() if usual is None else usual.submit(work).result()
