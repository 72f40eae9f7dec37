"""Threads for a disk that may not answer: nobody waits for them longer than they want to.

They are daemon threads, unlike those of an executor: one that hangs in a system call would
otherwise keep the whole process from ending.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from edge_runtime.errors import StorageError

_Result = TypeVar("_Result")

ANSWER_S: Final = 5.0
"""How long the disk may take before people are told that it does not answer, in seconds."""


@dataclass(eq=False, slots=True)
class _Job:
    work: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    result: "asyncio.Future[Any]"
    is_given_up: bool = False
    began_s: float = field(default=0.0)


class DiskThread:
    """One thread that does one thing after the other; used from the event loop's thread.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._present: _Job | None = None
        self._thread: threading.Thread | None = None

    async def __call__(self, work: Callable[[], _Result], /) -> _Result:
        """Do something, and give its result.

        Raises:
            StorageError: The disk did not answer in ``ANSWER_S``. What had not begun by then never
                will; what had may still be done.
        """
        self._check()
        job = self._put(work)
        await asyncio.wait((job.result,), timeout=ANSWER_S)
        if not job.result.done():
            with self._lock:
                job.is_given_up = True
            raise self._silent()
        result: _Result = job.result.result()
        return result

    def patiently(self, work: Callable[[], _Result], /) -> "asyncio.Future[_Result]":
        """Do something, however long it takes; nobody who stops waiting stops it."""
        return self._put(work).result

    def end(self) -> None:
        """End the thread when what it was given is done; one that hangs is left alone."""
        self._jobs.put(None)

    def _put(self, work: Callable[[], Any]) -> _Job:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        job = _Job(work, loop, loop.create_future())
        self._jobs.put(job)
        return job

    def _check(self) -> None:
        with self._lock:
            present = self._present
        if present is not None and time.monotonic() - present.began_s > ANSWER_S:
            raise self._silent()

    def _silent(self) -> StorageError:
        with self._lock:
            present = self._present
        silent_s = time.monotonic() - present.began_s if present is not None else ANSWER_S
        return StorageError(
            f"the disk has not answered for {silent_s:.0f} s; what is served is not touched by "
            "that; look at the disk, and ask again"
        )

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            with self._lock:
                if job.is_given_up:
                    continue
                job.began_s = time.monotonic()
                self._present = job
            _done(job)
            with self._lock:
                self._present = None


async def aside(work: Callable[[], _Result], *, within_s: float = 0.0) -> _Result:
    """Do something on a thread of its own.

    Args:
        work: What.
        within_s: How long to wait for it, in seconds; 0: for as long as it takes.

    Raises:
        StorageError: It took longer; it may still be done.
    """
    loop = asyncio.get_running_loop()
    job = _Job(work, loop, loop.create_future())
    threading.Thread(target=_done, args=(job,), name="disk", daemon=True).start()
    await asyncio.wait((job.result,), timeout=within_s or None)
    if not job.result.done():
        raise StorageError(f"the disk has not answered for {within_s:.0f} s; look at the disk")
    result: _Result = job.result.result()
    return result


def _done(job: _Job) -> None:
    """Do a job, and tell the loop."""
    try:
        result = job.work()
    except BaseException as error:  # noqa: BLE001 - raised where it is waited for
        _tell(job, job.result.set_exception, error)
    else:
        _tell(job, job.result.set_result, result)


def _tell(job: _Job, say: Callable[[Any], None], what: object) -> None:
    def tell() -> None:
        if not job.result.done():
            say(what)
            job.result.exception()  # perhaps nobody asks for it any more: that is no mistake

    with contextlib.suppress(RuntimeError):  # the loop is closed
        job.loop.call_soon_threadsafe(tell)
