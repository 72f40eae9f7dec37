"""When and where a run happens: this turn on the loop's thread, or in the pool, fair to clients.

Rules: everything but ``Batch.execute`` runs on the event loop's thread, so there is no lock; the
queue is bounded; what expired or lost its client is dropped before it costs a run. Nothing waits
while a thread is idle, and nothing waits for company: requests share a run when they arrived in
the same turn of the loop, or while all threads were busy.
"""

import asyncio
import contextlib
import logging
from collections import Counter, deque
from queue import SimpleQueue
from threading import Thread
from time import perf_counter_ns
from typing import Final

from edge_runtime.batching import Batch, Lane, Run
from edge_runtime.errors import (
    EdgeRuntimeError,
    OverloadedError,
    UnavailableError,
)
from edge_runtime.fair_queue import FairQueue
from edge_runtime.fairness import User
from edge_runtime.run_cost import ANY_SIZE
from edge_runtime.run_end import done, fail, is_due

_log = logging.getLogger(__name__)

_RETRY_AFTER_S: Final = 1
_TURN_NS: Final = (
    2_000_000  # short runs of one turn of the loop, before sockets are looked at again
)
_RECENTLY_NS: Final = 1_000_000_000
_SWEEP_NS: Final = 5_000_000  # a full queue is looked through so often: it takes 30 us for 256 runs
_COMPANY: Final = 1.5  # times its own length that a run may get by company, while others are about
_COMPANY_TRIED: Final = 2  # the same in size, until it is known what company costs
_STALL_NS: Final = 50_000_000  # on the loop's thread: nobody was read or answered for so long
_STALLS_NS: Final = 60_000_000_000  # a second one within this time is no accident
_NS: Final = 1e9


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
        self._jobs: SimpleQueue[Batch | None] = SimpleQueue()
        # Started here, so that a device without room for threads says so at the start and not in
        # the middle of a request. Daemons: a stuck run must not keep the interpreter from ending.
        self._pool = [
            Thread(target=self._work, name=f"run-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._pool:
            thread.start()
        self._queue = FairQueue()
        self._lanes: deque[Lane] = deque()  # with short runs; bounded by connections' pipelines
        self._running = 0
        self._running_of: Counter[int | None] = Counter()  # batches in the pool, by first client
        self._seen: dict[int | None, int] = {}  # when a client last came to the pool
        self._timer: asyncio.TimerHandle | None = None  # while a thread is kept free for others
        self._idle = asyncio.Event()  # set while nothing runs in the pool
        self._idle.set()
        self._closing = False
        self._swept = 0  # when the full queue was looked through last
        self._refused = OverloadedError(  # once: in an overload it is the answer to most requests
            f"{queue_depth} requests are waiting already; try again later",
            retry_after_s=_RETRY_AFTER_S,
        )
        #: Whether the queue may be full; ``refusal`` says for whom.
        self.is_full = False

    @property
    def waiting(self) -> int:
        """Runs that wait for the pool."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Batches in the pool now."""
        return self._running

    def submit(self, run: Run) -> None:
        """Execute a run when its turn comes; ``run.done`` is called once, whatever happens."""
        run.queued = perf_counter_ns()
        lane = run.lane
        cost = lane.cost
        if cost.known and lane.inline and cost.estimate_ns(run.size) < self._inline_limit_ns:
            if not lane.short:
                if not self._lanes:
                    self._loop.call_soon(self._run_short)
                self._lanes.append(lane)
            lane.short.append(run)
            return
        self._seen[run.client] = run.queued
        waiting = len(self._queue)
        if waiting >= self._queue_depth:
            self._submit_to_full(run)
            return
        self.is_full = waiting + 1 >= self._queue_depth
        self._queue.push(run)
        self._start_next()

    def refusal(self, lane: Lane, client: User) -> EdgeRuntimeError | None:
        """Say what a request would be told if it came now; it need not even be decoded then.

        To be called where ``is_full``: most of the requests in an overload end here.

        Args:
            lane: The version asked.
            client: Who asks.

        Returns:
            The error, or ``None`` if there is, or would be made, room.
        """
        cost = lane.cost
        if cost.known and lane.inline and cost.estimate_ns(1) < self._inline_limit_ns:
            return None  # it needs no place in the queue
        self._seen[client] = now = perf_counter_ns()
        for ended in self._sweep(now):
            done(ended)
        self.is_full = len(self._queue) >= self._queue_depth
        if self.is_full and self._queue.who_gives_way(client) == client:
            return self._refusal()
        return None

    # -- on the loop's thread --------------------------------------------------------------------

    def _run_short(self) -> None:
        """Execute the short runs that this turn of the loop gathered, then answer them all.

        Run by run and answer by answer, the model's code and ours push each other out of the
        CPU's caches: measured at 32 connections, both take nearly twice as long.
        """
        lanes = self._lanes
        until = perf_counter_ns() + _TURN_NS
        executed: list[Batch] = []
        dropped: list[Run] = []
        while lanes:
            lane = lanes.popleft()
            batch = self._next_short(lane, dropped)
            if batch is not None:
                batch.execute()
                executed.append(batch)
            if lane.short:
                lanes.append(lane)
            if batch is not None and batch.ended > until:
                if batch.ended - batch.started > _STALL_NS:
                    self._stalled(batch)
                break
        if lanes:  # the sockets first, then the rest
            self._loop.call_soon(self._run_short)
        for run in dropped:
            done(run)
        for batch in executed:
            self._finish(batch)

    def _stalled(self, batch: Batch) -> None:
        """Keep a version that held everybody up, and not once, off the loop's thread for good."""
        lane = batch.lane
        lane.stalls += 1
        before, lane.stalled = lane.stalled, batch.ended
        _log.warning(
            "a run of %s held every request up for %.0f ms",
            lane.name,
            (batch.ended - batch.started) / 1e6,
        )
        if before and batch.started - before < _STALLS_NS:
            lane.inline = False
            _log.warning("from now on, runs of %s go to the pool, however short", lane.name)

    def _next_short(self, lane: Lane, dropped: list[Run]) -> Batch | None:
        """Take as many of a lane's short runs as may share one run."""
        runs = lane.short
        batch: Batch | None = None
        taken = 0
        uniform = lane.uniform
        size_max = lane.cost.size_within(self._inline_limit_ns)
        rows_max = min(lane.cap.rows, size_max) if uniform else lane.cap.rows
        for run in runs:
            if (run.request.cancelled or run.deadline_ns) and not is_due(run):
                dropped.append(run)
            elif batch is None:
                batch = Batch(run)
                if not run.may_join:
                    taken += 1
                    break
            elif (
                batch.rows + run.rows <= rows_max
                and (uniform or batch.size + run.size <= size_max)
                and run.may_join
                and run.joins(batch.runs[0])
            ):
                batch.add(run)
            else:
                break
            taken += 1
        lane.short = runs[taken:]
        return batch

    # -- in the pool -----------------------------------------------------------------------------

    def _start_next(self) -> None:
        """Give idle threads what is next."""
        dropped: list[Run] = []
        while self._running < self._threads:
            run = self._queue.pop(self._may_run)
            if run is None:
                break
            if is_due(run):
                self._start(self._with_mates(run, dropped))
            else:
                dropped.append(run)
        if len(self._queue) and self._running < self._threads:
            self._look_again_later()
        for run in dropped:  # last: an answer may bring the next request here
            done(run)

    def _with_mates(self, run: Run, dropped: list[Run]) -> Batch:
        """Let what waits for the same version share the run."""
        batch = Batch(run)
        if not run.may_join or not len(self._queue):
            return batch
        rows_max = run.lane.cap.rows
        size_max = self._size_max(run)
        while batch.rows < rows_max and batch.size < size_max:
            mate = self._queue.pop_mate(run, rows_max - batch.rows, size_max - batch.size)
            if mate is None:
                break
            if is_due(mate):
                batch.add(mate)
            else:
                dropped.append(mate)
        return batch

    def _size_max(self, first: Run) -> int:
        """Say how large a run may become by company.

        Rows are capped already. Where they do not say everything, the objective holds for the time
        expected. While other clients are about, a run may not become much longer than it was: a
        newcomer waits for its end, and a modest client would pay for a greedy one's company.
        """
        lane = first.lane
        cost = lane.cost
        size_max = ANY_SIZE if lane.uniform else cost.size_within(lane.cap.objective_ns)
        if self._others_came_lately(first.client):
            if cost.is_guess:
                return min(size_max, _COMPANY_TRIED * first.size)
            return min(size_max, cost.size_within(_COMPANY * cost.estimate_ns(first.size)))
        return size_max

    def _may_run(self, client: int | None) -> bool:
        """Keep the last thread free for others who came lately: a run cannot be interrupted."""
        if self._threads == 1 or self._running_of[client] < self._threads - 1:
            return True
        return not self._others_came_lately(client)

    def _others_came_lately(self, client: User) -> bool:
        since = perf_counter_ns() - _RECENTLY_NS
        return any(key != client and seen >= since for key, seen in self._seen.items())

    def _look_again_later(self) -> None:
        """Give the thread kept free to who waits, once nobody else came for long enough."""
        if self._timer is None:
            self._timer = self._loop.call_later(_RECENTLY_NS / _NS, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self._start_next()

    def _start(self, batch: Batch) -> None:
        self._running += 1
        self._running_of[batch.runs[0].client] += 1
        self._idle.clear()
        self._jobs.put(batch)

    def _work(self) -> None:
        """Execute one batch after the other, on a thread of the pool."""
        while (batch := self._jobs.get()) is not None:
            batch.execute()
            try:
                self._loop.call_soon_threadsafe(self._worked, batch)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return
            del batch  # its tensors must not wait for the next one

    def _worked(self, batch: Batch) -> None:
        self._running -= 1
        client = batch.runs[0].client
        self._running_of[client] -= 1
        if not self._running_of[client]:
            del self._running_of[client]
        # The next run starts before this one's answer is written: the pool never idles for us.
        self._start_next()
        self._finish(batch)
        if not self._running:
            self._idle.set()
            self._queue.settle()
            since = perf_counter_ns() - _RECENTLY_NS
            self._seen = {client: seen for client, seen in self._seen.items() if seen >= since}

    def _submit_to_full(self, run: Run) -> None:
        """Make room in a full queue, or refuse who would have the most in it."""
        ended = self._sweep(run.queued)
        if len(self._queue) >= self._queue_depth:
            refused = self._queue.make_room(run) or run
            fail(refused, self._refusal())
            ended.append(refused)
        if run.error is None:
            self._queue.push(run)
            self._start_next()
        for each in ended:  # last: an answer may bring the next request here
            done(each)

    def _sweep(self, now: int) -> list[Run]:
        """Take out of a full queue what is too late or unwanted, not more often than it pays."""
        if now - self._swept < _SWEEP_NS:
            return []
        self._swept = now
        return self._queue.take_out(is_due)

    def _refusal(self) -> EdgeRuntimeError:
        return UnavailableError("the daemon is stopping") if self._closing else self._refused

    # -- the end ---------------------------------------------------------------------------------

    def _finish(self, batch: Batch) -> None:
        """Learn from a batch and answer for it; one that failed is taken apart."""
        if batch.error is None:
            batch.learn()
        elif len(batch.runs) > 1 and not self._closing:
            for run in batch.apart():  # not submitted again: they have their place already
                self._queue.push(run)
            self._start_next()
            return
        for run in batch.runs:
            run.error = batch.error
            run.started = batch.started
            run.ended = batch.ended
            run.shared_rows = batch.rows
            done(run)
        if batch.error is None:
            batch.count()

    async def close(self, within_s: float) -> bool:
        """Fail what waits, give what runs some time, end the threads.

        Args:
            within_s: Time for runs that go on, in seconds.

        Returns:
            Whether every thread has ended; a run cannot be cut from outside.
        """
        self._closing = True
        self._queue_depth = 0
        if self._timer is not None:
            self._timer.cancel()
        waiting = [run for lane in self._lanes for run in lane.short]
        for lane in self._lanes:
            lane.short = []
        self._lanes.clear()
        waiting += self._queue.take_out(lambda _: False)
        for run in waiting:
            fail(run, UnavailableError("the daemon is stopping"))
            done(run)
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
