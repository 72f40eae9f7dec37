"""One client's connection: requests come from ``http``, answers leave in their order.

Rules:

* Answers leave in the order of the requests, whatever order they are ready in, and those that
  become ready in one turn of the loop leave in one write.
* While a client does not read, nothing more of it is read, run or written: what waits is bounded
  by ``limits.pipeline_depth`` answers that were under way and ``OUTGOING_BYTES_MAX``.
* Every way to end has a deadline: a client that reads nothing cannot keep its connection.

Source: RFC 9112 section 9.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from edge_runtime.api.exchange import Buffers, Exchange
from edge_runtime.api.halves import hang_up, has_unread, is_gone, peer_of
from edge_runtime.api.http import Reception
from edge_runtime.api.timeouts import NEVER

if TYPE_CHECKING:
    from edge_runtime.api.door import Door

LINGER_S: Final = 2.0  # after refusing a body: time for the peer to read our answer
OUTGOING_BYTES_MAX: Final = 1_048_576  # gathered in one turn of the loop; then no more is run

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_UNAVAILABLE: Final = 503
_RETRY: Final = (("Retry-After", "1"),)  # what we have too little of now is in use, not missing


class Connection(Reception):
    """One client's connection.

    Args:
        door: Where it came in.
    """

    __slots__ = (
        "_door",
        "_draining",
        "_ends",
        "_flushing",
        "_full",
        "_held",
        "_lingers",
        "_outgoing",
        "_outgoing_bytes",
        "_parked",
        "_queue",
        "_transport",
        "_write_paused",
    )

    def __init__(self, door: "Door") -> None:
        super().__init__(door.limits, door.timeouts, door.budget)
        self._door = door
        self._transport: Any = None
        self._queue: deque[Exchange] = deque()  # unanswered, in order
        self._parked: deque[Exchange] = deque()  # the end of the queue: not dispatched yet
        self._outgoing: Buffers = []
        self._outgoing_bytes = 0
        self._full = False  # nothing more is dispatched or written before something has left
        self._write_paused = False
        self._held = False  # reading is paused
        self._flushing = False
        self._draining = False
        self._ends = False  # closes after what is going out
        self._lingers = False

    # -- the transport's side ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start, or turn the client away when there are too many."""
        self._transport = transport
        door = self._door
        statistics = door.statistics
        statistics.connections_total += 1
        statistics.connections_open += 1
        door.connections.add(self)
        door.empty.clear()
        self.peer = peer_of(transport)
        if door.admit(self):
            self._set_deadline(self._limits.idle_timeout_s)
            return
        statistics.connections_refused += 1
        if door.may_tell:
            self._refuse(503, door.places.refusal(self.peer.uid, self._limits))
        else:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget everything; what still waits for this client need not run."""
        self._abandon()
        self._ends = True
        door = self._door
        door.connections.discard(self)
        door.give_up(self)
        door.timeouts.forget(self)
        door.statistics.connections_open -= 1
        if not door.connections:
            door.empty.set()
        self._cancel_queued()
        for exchange in self._queue:
            if exchange.infer is None:  # else its memory is in use until its run is over
                self._release(exchange)
        self._queue.clear()
        self._parked.clear()

    def eof_received(self) -> bool:
        """Leave a client that is gone; one that only sends no more may still be answered.

        Over TCP the two look alike: there what has not started is cancelled.
        """
        if self._ends:
            return bool(self._outgoing)
        cut_off = self._abandon()
        gone = is_gone(self._transport)
        if gone:
            self.abort()
            return False
        if self._draining and cut_off is not None:  # it began to come while we hung up
            cut_off.keep_alive = False
            self._queue.append(cut_off)
            cut_off.error(503, "the daemon closes this connection; ask again on a new one")
            return True
        if gone is None:
            self._cancel_queued()
        if self._queue:
            self._queue[-1].keep_alive = False
        else:
            self._end()
        return not self._transport.is_closing()

    def pause_writing(self) -> None:
        """Stop reading while the client does not read."""
        self._write_paused = self._full = True
        self._hold()
        self._set_answer_deadline()

    def resume_writing(self) -> None:
        """Go on where ``pause_writing`` stopped."""
        self._write_paused = self._full = False
        if not self._ends:  # else the deadline still counts: for the rest to leave
            self.deadline = NEVER
            self._pump()

    # -- requests ------------------------------------------------------------------------------

    def _received(self, exchange: Exchange) -> None:
        self._queue.append(exchange)
        if self._full or len(self._queue) > self._limits.pipeline_depth:
            self._parked.append(exchange)
            self._hold()
            return
        self._door.dispatch(exchange)

    def _refuse(self, status: int, message: str) -> None:
        exchange = self._abandon() or Exchange(self)
        exchange.keep_alive = False
        exchange.lingers = True
        self._queue.append(exchange)
        exchange.error(status, message, _RETRY if status == _UNAVAILABLE else ())

    def _invite(self) -> None:
        # Before an earlier answer the client would take the 100 for that one's.
        if not self._queue:
            self._expects = False
            if not self._outgoing:
                self._door.write_later(self)
            self._outgoing.append(_CONTINUE)

    def _hold(self) -> None:
        """Stop reading."""
        self._held = True
        self._transport.pause_reading()

    def _take_more(self) -> None:
        """Read again when there is room."""
        if self._deaf or self._full or self._parked:
            return
        if len(self._queue) <= self._limits.pipeline_depth // 2:
            self._held = False
            self._transport.resume_reading()
            if self._exchange is not None:
                self._await_again()

    def _cancel_queued(self) -> None:
        for exchange in self._queue:
            exchange.cancel()

    # -- answers -------------------------------------------------------------------------------

    def answered(self, exchange: Exchange) -> None:
        """Write every answer whose turn has come. ``exchange`` just got its own."""
        door = self._door
        status = exchange.status
        statuses = door.statistics.responses
        statuses[status] = statuses.get(status, 0) + 1
        if status >= door.log.from_status:
            door.log.note(exchange)
        if exchange.reserved:
            self._release(exchange)
        self._pump()

    def _pump(self) -> None:
        if self._flushing:  # an inline answer inside the loop below: the loop goes on with it
            return
        self._flushing = True
        queue = self._queue
        parked = self._parked
        try:
            while queue and not self._full and not self._ends:
                if queue[0].answer is not None:
                    self._write(queue.popleft())
                elif parked and len(queue) - len(parked) < self._limits.pipeline_depth:
                    self._door.dispatch(parked.popleft())
                else:
                    break
        finally:
            self._flushing = False
        if self._held:
            self._take_more()
        if not queue:
            self._rest()

    def _write(self, exchange: Exchange) -> None:
        answer = exchange.answer
        if not self._outgoing:
            self._door.write_later(self)
        if isinstance(answer, bytes):
            self._outgoing.append(answer)
            self._outgoing_bytes += len(answer)
        elif answer is not None:
            self._outgoing += answer
            self._outgoing_bytes += sum(map(len, answer))
        if self._outgoing_bytes >= OUTGOING_BYTES_MAX:
            self._full = True
        if not exchange.keep_alive:
            self._deaf = True
            self._ends = True
            self._lingers = exchange.lingers

    def write_outgoing(self) -> None:
        """Write what this turn of the loop gathered."""
        outgoing = self._outgoing
        self._outgoing = []
        self._outgoing_bytes = 0
        if self._transport.is_closing():
            return
        if len(outgoing) == 1:
            self._transport.write(outgoing[0])
        else:
            self._transport.writelines(outgoing)
        if self._ends:
            self._leave()
        elif self._full and not self._write_paused:
            self._full = False
            self._pump()

    def _rest(self) -> None:
        """Nothing is owed any more: wait for the next request, or leave."""
        if self._deaf or self._full:
            return
        if self._exchange is not None:
            if self._expects:
                self._invite()
        elif self._draining:
            self._end()
        else:
            self.deadline = self._loop.time() + self._limits.idle_timeout_s
            if self.deadline < self._timeouts.due:
                self._timeouts.watch(self)

    # -- time and end --------------------------------------------------------------------------

    def timed_out(self) -> None:
        """Act on the passed deadline."""
        self.deadline = NEVER
        if self._ends or self._write_paused:
            self._transport.abort()
        elif self._held:  # it is we who do not read; the clock starts again when we do
            return
        elif self._exchange is not None:
            part = "body" if self._head_complete else "head"
            self._refuse(408, f"the request's {part} took too long to arrive")
        elif not self._queue:
            self._end()

    def drain(self) -> None:
        """Close when idle, else after the last answer."""
        self._draining = True
        if not self._queue and self._exchange is None and not self._ends:
            self._end()

    def end_if_idle(self) -> bool:
        """Close, soon, if nothing is asked, owed or on its way here; tell whether."""
        is_busy = self._queue or self._outgoing or self._exchange is not None or self._held
        if is_busy or self._ends or self._transport.get_write_buffer_size():
            return False
        if has_unread(self._transport):
            return False
        self._draining = True
        hang_up(self._transport)
        return True

    @property
    def is_draining(self) -> bool:
        """Whether this connection ends with its last answer."""
        return self._draining and len(self._queue) == 1

    def abort(self) -> None:
        """Cut the connection now."""
        self._ends = True
        self._transport.abort()

    def _end(self) -> None:
        """Close, after what is going out."""
        self._deaf = True
        self._ends = True
        if not self._outgoing:
            self._leave()

    def _leave(self) -> None:
        """Close; everything was given to the transport."""
        grace_s = 0.0
        if self._lingers:
            self._transport.write_eof()
            self._transport.resume_reading()  # closing on unread input would reset the answer away
            grace_s = LINGER_S
        else:
            self._transport.close()
        if self._transport.get_write_buffer_size():
            self._set_answer_deadline(grace_s)
        elif grace_s:
            self._set_deadline(grace_s)

    def _set_answer_deadline(self, grace_s: float = 0.0) -> None:
        limits = self._limits
        size = self._transport.get_write_buffer_size()
        allowed_s = limits.answer_timeout_s + size / limits.body_rate_bytes_per_s
        self._set_deadline(grace_s + allowed_s)
