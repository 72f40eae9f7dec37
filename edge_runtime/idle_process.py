"""A Python process of our own that makes way for everybody else and ends with the one that made it.

For work that fills memory, may crash, or may never end: none of that is then the daemon's.
"""

import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_NICEST: Final = 19
_GENTLE: Final = 10  # a tenth of the weight of a thread that serves, as the loader's thread
# At first what must hold during the imports, too, which cost as much as a model: an end with
# whoever waits for the result, and the lowest priority. (A nice process runs on for milliseconds
# when a thread that serves wakes up; an idle one makes way at once. Containers may forbid it.)
_START: Final = """\
import ctypes, os
ctypes.CDLL(None).prctl({death}, {signal})
{priority}
if os.getppid() == {parent}:
    from {module} import main
    main()
"""
_IDLE: Final = f"""\
try:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
except OSError:
    os.nice({_NICEST})
"""


def command(module: str, *arguments: str, is_idle: bool = True) -> list[str]:
    """Give the command line of a process that runs ``main()`` of one of our modules.

    It is killed when the thread that started it ends.

    Args:
        module: The module's full name.
        arguments: What ``main`` finds in ``sys.argv[1:]``.
        is_idle: Whether it runs only while nobody else wants to. Otherwise it gets a tenth of what
            others get, for work that must come to an end on a CPU that is never free.
    """
    start = _START.format(
        death=_PR_SET_PDEATHSIG,
        signal=int(signal.SIGKILL),
        priority=_IDLE if is_idle else f"os.nice({_GENTLE})",
        parent=os.getpid(),
        module=module,
    )
    return [sys.executable, "-P", "-c", start, *arguments]  # -P: not a module that lies in `.`
