"""When and where a run happens: this turn on the loop's thread, or in the pool by priority.

Rules: everything but ``_execute`` runs on the event loop's thread, so there is no lock; the queue
is bounded; what expired or lost its client is dropped before it costs a run. Nothing waits while
a thread is idle. Batching sits in front of ``submit`` and hands over merged runs.
"""

import asyncio
import contextlib
import heapq
import logging
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from threading import Thread
from time import perf_counter_ns
from typing import Final, Protocol

import msgspec

from edge_runtime.errors import (
    DeadlineExceededError,
    EdgeRuntimeError,
    ModelFailedError,
    OverloadedError,
    UnavailableError,
)
from edge_runtime.tensors import Array

_log = logging.getLogger(__name__)

_LOWEST_PRIORITY: Final = 2**31  # where 0, the default, sorts: behind every stated priority
_WARM_UP_RUNS: Final = 2
_STEP_MAX: Final = 4
_STEP_FLOOR_NS: Final = 10_000
_SAME_SIZE: Final = 1e-6  # relative spread that rounding alone can make
_LEARN_EVERY: Final = 16  # learning costs a microsecond, so a steady model pays it rarely
_FORGET: Final = 0.95  # weight of the past per observation: about the last 20 count
_RETRY_AFTER_S: Final = 1
_TURN_NS: Final = (
    2_000_000  # short runs of one turn of the loop, before sockets are looked at again
)


class Runnable(Protocol):
    """What the scheduler needs of a model: a session that runs."""

    def run(self, names: Sequence[str], feeds: Mapping[str, Array], /) -> list[Array]:
        """Run the model: outputs in the order of ``names``."""
        ...


class Cancellable(Protocol):
    """What the scheduler needs of a request."""

    cancelled: bool


class RunCost:
    """Expected time of a run: ``a + b * size``, fitted to what was seen lately.

    A size is a number of rows, or of elements where other axes than the first may vary.

    Attributes:
        seen: Runs so far.
        known: Whether there is an estimate: the first runs warm the model up and do not count.
    """

    __slots__ = (
        "_intercept_ns",
        "_slope_ns",
        "_sum_r",
        "_sum_rr",
        "_sum_rt",
        "_sum_t",
        "_weight",
        "known",
        "seen",
    )

    def __init__(self) -> None:
        self.seen = 0
        self.known = False
        self._intercept_ns = self._slope_ns = 0.0
        self._weight = self._sum_r = self._sum_t = self._sum_rr = self._sum_rt = 0.0

    def estimate_ns(self, size: int) -> float:
        """Give the expected time of a run, in nanoseconds; only meaningful once ``known``."""
        return self._intercept_ns + self._slope_ns * size

    def observe(self, size: int, ns: float) -> None:
        """Learn from one run of this size that took ``ns`` nanoseconds."""
        self.seen += 1
        if self.seen <= _WARM_UP_RUNS:
            return
        if self.known:
            expected = self._intercept_ns + self._slope_ns * size
            if expected < 2 * ns < 4 * expected and self.seen % _LEARN_EVERY:
                return
            # One run that the system interrupted must not banish a model to the pool; a model
            # that really became slower gets there in a few steps.
            ns = min(ns, _STEP_MAX * expected + _STEP_FLOOR_NS)
        self.known = True
        self._weight = weight = self._weight * _FORGET + 1
        self._sum_r = sum_r = self._sum_r * _FORGET + size
        self._sum_t = sum_t = self._sum_t * _FORGET + ns
        self._sum_rr = self._sum_rr * _FORGET + size * size
        self._sum_rt = self._sum_rt * _FORGET + size * ns
        spread = weight * self._sum_rr - sum_r * sum_r
        if spread > weight + _SAME_SIZE * sum_r * sum_r:  # sizes differed: fit a line
            slope = (weight * self._sum_rt - sum_r * sum_t) / spread
            self._slope_ns = max(slope, 0.0)
            self._intercept_ns = max((sum_t - self._slope_ns * sum_r) / weight, 0.0)
        else:  # one size only: take cost as proportional, the careful guess for larger ones
            self._slope_ns = sum_t / max(sum_r, 1.0)
            self._intercept_ns = 0.0


class Run(msgspec.Struct, kw_only=True, eq=False):
    """One execution of a model. A struct, because it is made for every request.

    Attributes:
        session: What runs.
        cost: The model's expected times, learned from this run.
        names: Outputs wanted.
        feeds: Arrays by input name.
        rows: Rows of the run.
        size: Elements of all inputs together, which its cost follows; 0: as many as rows.
        request: Asked whether its client is still there.
        done: Called once, on the loop's thread, perhaps before ``submit`` returns.
        received: When the request was here, in monotonic nanoseconds.
        priority: 0 for the default, 1 for the highest.
        deadline_ns: Monotonic nanoseconds after which it must not start; 0: never.
        outputs: The result, in the order of ``names``.
        error: Why there is no result.
        queued: When its inputs were checked, in monotonic nanoseconds.
        started: When the model began to run, or the run ended without.
        ended: When the model had run.
    """

    session: Runnable
    cost: RunCost
    names: Sequence[str]
    feeds: Mapping[str, Array]
    rows: int
    request: Cancellable
    done: Callable[["Run"], None]
    received: int
    size: int = 0
    priority: int = 0
    deadline_ns: int = 0
    outputs: list[Array] = []
    error: EdgeRuntimeError | None = None
    queued: int = 0
    started: int = 0
    ended: int = 0

    def fail(self, error: EdgeRuntimeError) -> None:
        """End the run without a result."""
        self.error = error
        self.started = self.ended = perf_counter_ns()
        self.done(self)


class Scheduler:
    """Runs models on the loop's thread or in a small pool.

    Args:
        loop: The event loop whose thread ``submit`` is called on.
        threads: Runs that may go on at once in the pool.
        inline_limit_ns: Runs expected to be shorter execute on the loop's thread, all that one
            turn of the loop gathered together.
        queue_depth: Runs that may wait for the pool.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        threads: int,
        inline_limit_ns: float,
        queue_depth: int,
    ) -> None:
        self._loop = loop
        self._threads = threads
        self._inline_limit_ns = inline_limit_ns
        self._queue_depth = queue_depth
        self._jobs: SimpleQueue[Run | None] = SimpleQueue()
        # Started here, so that a device without room for threads says so at the start and not in
        # the middle of a request. Daemons: a stuck run must not keep the interpreter from ending.
        self._pool = [
            Thread(target=self._work, name=f"run-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._pool:
            thread.start()
        self._waiting: list[tuple[int, int, Run]] = []
        self._short: list[Run] = []  # bounded by connections and their pipelines
        self._sequence = 0
        self._running = 0
        self._idle = asyncio.Event()  # set while nothing runs in the pool
        self._idle.set()

    @property
    def waiting(self) -> int:
        """Runs that wait for the pool."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Runs in the pool now."""
        return self._running

    def submit(self, run: Run) -> None:
        """Execute a run when its turn comes; ``run.done`` is called once, whatever happens."""
        run.queued = perf_counter_ns()
        cost = run.cost
        if cost.known and cost.estimate_ns(run.size or run.rows) < self._inline_limit_ns:
            if not self._short:
                self._loop.call_soon(self._run_short)
            self._short.append(run)
            return
        if self._running < self._threads:
            self._start(run)
            return
        if len(self._waiting) >= self._queue_depth:
            self._drop_undue()
        if len(self._waiting) >= self._queue_depth:
            run.fail(
                OverloadedError(
                    f"{self._queue_depth} requests are waiting already; try again later",
                    retry_after_s=_RETRY_AFTER_S,
                )
            )
            return
        self._sequence += 1
        priority = run.priority or _LOWEST_PRIORITY
        heapq.heappush(self._waiting, (priority, self._sequence, run))

    def _run_short(self) -> None:
        """Execute the short runs that this turn of the loop gathered, then answer them all.

        Run by run and answer by answer, the model's code and ours push each other out of the
        CPU's caches: measured at 32 connections, both take nearly twice as long.
        """
        runs = self._short
        budget = perf_counter_ns() + _TURN_NS
        executed = 0
        for run in runs:
            executed += 1
            if self._is_due(run):
                _execute(run)
                if run.ended > budget:
                    break
        self._short = runs[executed:]
        if self._short:  # the sockets first, then the rest
            self._loop.call_soon(self._run_short)
        for run in runs[:executed]:
            self._finish(run)

    async def close(self, within_s: float) -> bool:
        """Fail what waits, give what runs some time, end the threads.

        Args:
            within_s: Time for runs that go on, in seconds.

        Returns:
            Whether every thread has ended; a run cannot be cut from outside.
        """
        waiting = [*self._short, *(run for _, _, run in self._waiting)]
        self._short = []
        self._waiting = []
        for run in waiting:
            run.fail(UnavailableError("the daemon is stopping"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        for _ in self._pool:
            self._jobs.put(None)
        if self._running:
            return False
        for thread in self._pool:
            thread.join()
        return True

    def _start(self, run: Run) -> None:
        self._running += 1
        self._idle.clear()
        self._jobs.put(run)

    def _work(self) -> None:
        """Execute one run after the other, on a thread of the pool."""
        while (run := self._jobs.get()) is not None:
            _execute(run)
            try:
                self._loop.call_soon_threadsafe(self._worked, run)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return
            del run  # its tensors must not wait for the next one

    def _worked(self, run: Run) -> None:
        self._running -= 1
        # The next run starts before this one's answer is written: the pool never idles for us.
        self._start_next()
        if not self._running:
            self._idle.set()
        self._finish(run)

    def _start_next(self) -> None:
        while self._waiting and self._running < self._threads:
            _, _, run = heapq.heappop(self._waiting)
            if self._is_due(run):
                self._start(run)
            else:
                self._finish(run)

    def _drop_undue(self) -> None:
        """Take out of the queue whose client left or whose time passed."""
        dropped = [run for _, _, run in self._waiting if not self._is_due(run)]
        if dropped:
            self._waiting = [entry for entry in self._waiting if entry[2].error is None]
            heapq.heapify(self._waiting)
        for run in dropped:
            self._finish(run)

    def _is_due(self, run: Run) -> bool:
        """Tell whether a run that waited is still worth its time; sets its error if not."""
        if run.request.cancelled:
            run.error = UnavailableError("the client is gone")
        elif run.deadline_ns and perf_counter_ns() >= run.deadline_ns:
            run.error = DeadlineExceededError("the request's timeout passed before it could run")
        else:
            return True
        run.started = run.ended = perf_counter_ns()
        return False

    def _finish(self, run: Run) -> None:
        if run.error is None:
            run.cost.observe(run.size or run.rows, run.ended - run.started)
        try:
            run.done(run)
        except Exception:  # noqa: BLE001 - the runs behind it must not suffer
            _log.exception("the end of a run failed in a way nobody foresaw")


def _execute(run: Run) -> None:
    """Run the model. The only part that other threads execute."""
    run.started = perf_counter_ns()
    try:
        run.outputs = run.session.run(run.names, run.feeds)
    except EdgeRuntimeError as error:
        run.error = error
    except Exception:  # noqa: BLE001 - the thread goes on, the client gets an answer, the log says
        _log.exception("a run failed in a way nobody foresaw")
        run.error = ModelFailedError("the daemon failed to run the model; its log says why")
    run.ended = perf_counter_ns()
