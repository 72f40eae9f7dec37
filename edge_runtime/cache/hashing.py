"""Hashes large inputs on a thread of its own: a megabyte takes milliseconds on a small device."""

import asyncio
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

_log = logging.getLogger(__name__)

INLINE_BYTES: Final = 131_072  # what is smaller is hashed sooner than a thread would wake up

Name = Callable[[], bytes | None]
Named = Callable[[bytes | None], None]


class Hasher:
    """A thread that names questions; started by the first one that comes.

    Its queue is bounded by what the doors let in: each job is a request that waits for an answer.

    Args:
        loop: The event loop that the results go to.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: SimpleQueue[tuple[Name, Named] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, name: Name, named: Named) -> None:
        """Name a question.

        Args:
            name: Called on the thread; raises nothing.
            named: Called with the result on the loop's thread.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="cache-keys", daemon=True)
            self._thread.start()
        self._jobs.put((name, named))

    def close(self) -> None:
        """End the thread when it has done what it was given."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            name, named = job
            try:
                self._loop.call_soon_threadsafe(named, name())
            except RuntimeError:  # the loop is closed: nobody waits any more
                _log.debug("nobody waits for the cache's keys any more")
            del job, name, named  # what they hold must not wait for the next job
