"""The C heap: one for all threads, so that what is freed goes back to the system."""

import ctypes
from typing import Final

_M_ARENA_MAX: Final = -8  # malloc.h


def share_heap() -> None:
    """Let all threads that are started from now on share the main heap (glibc only).

    glibc gives threads heaps of their own, and ``malloc_trim`` does not give back the free end of
    those: up to 64 MiB of an unloaded model stayed with the daemon (measured: all of a model of
    24 MiB). Nothing here allocates enough in several threads at once to need more than one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
