"""Requests for a version that is not in memory: a kept answer, a wait, an older answer, or no.

A version that can be brought back gives a kept answer that is still young as it always does, else
the request waits for it. One that cannot, or fails to come, gives a kept answer where the model's
settings allow that, marked ``stale``; else the caller is told why not.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter_ns
from typing import Final

from edge_runtime.cache.predictions import PredictionCache
from edge_runtime.cache.ticket import Hit, Ticket
from edge_runtime.cache.version_cache import VersionCache
from edge_runtime.catalog import Catalog
from edge_runtime.errors import (
    DeadlineExceededError,
    EdgeRuntimeError,
    RequestError,
    UnavailableError,
)
from edge_runtime.fairness import User
from edge_runtime.prediction import Reply, feeds_of, outputs_of, reason_of, wanted_of
from edge_runtime.protocol.messages import InferRequest, InferResponse, Spent
from edge_runtime.routing import LoadedVersion

Run = Callable[[LoadedVersion, InferRequest, Reply, int, int], None]
Count = Callable[[User], None]

_NS: Final = 1e9
_DELAY_MIN_S: Final = 0.001  # a timer that comes too early must not spin
_DELAY_MAX_S: Final = 86_400.0  # callers state any timeout, event loops take shorter ones


class Absence:
    """Answers for versions that are not in memory.

    Args:
        catalog: The models.
        cache: Answers that were given before.
        run: Goes on with a version that is leased, told when the request was here and how long
            it waited, in nanoseconds.
        begin: Counts a request that begins to wait among its user's unanswered ones, or raises
            ``OverloadedError``.
        end: Counts it out again.
    """

    def __init__(
        self, catalog: Catalog, cache: PredictionCache | None, run: Run, begin: Count, end: Count
    ) -> None:
        self._catalog = catalog
        self._cache = cache
        self._run = run
        self._begin = begin
        self._end = end

    def answer(
        self, request: InferRequest, reply: Reply, error: EdgeRuntimeError, received: int
    ) -> None:
        """Answer from the cache, else wait for the version, else give an older answer or refuse.

        Args:
            request: What is asked.
            reply: Called once.
            error: Why the version does not answer now.
            received: When the request was here, in monotonic nanoseconds.
        """
        known = self._catalog.last_known(request.model_name, request.model_version)
        cache = self._kept(known, request)
        if known is None or cache is None or not self._may_come(request):
            self._wake(request, reply, error, received)
            return
        try:
            feeds = feeds_of(known.signature, request)
            wanted, names = wanted_of(known.signature, request)
        except EdgeRuntimeError as wrong:
            self._refuse(request, reply, wrong, received)
            return
        version = known

        def answer(hit: Hit) -> None:
            outputs = outputs_of(version.signature, wanted, hit.outputs)
            response = InferResponse(version.name, version.version, request.id, outputs)
            self._answer_kept(request, reply, response, version, received)

        def wake(ticket: Ticket | None) -> None:
            if ticket is not None:
                ticket.failed()  # it may take long: whoever asks the same waits for the model too
            self._wake(request, reply, error, received)

        cache.fetch(
            feeds,
            names,
            request.caller.uid,
            answer,
            wake,
            priority=request.priority,
            asks_again=True,
        )

    def _instead(
        self, request: InferRequest, reply: Reply, error: EdgeRuntimeError, received: int
    ) -> None:
        """Answer for a version that cannot be brought into memory: older than usual, or not."""
        known = self._catalog.last_known(request.model_name, request.model_version)
        cache = self._kept(known, request)
        if cache is None or not cache.policy.stale_s or isinstance(error, RequestError):
            self._refuse(request, reply, error, received)
            return
        subject = cache.subject
        try:
            feeds = feeds_of(subject.signature, request)
            wanted, names = wanted_of(subject.signature, request)
        except EdgeRuntimeError as wrong:
            self._refuse(request, reply, wrong, received)
            return

        def found(hit: Hit | None) -> None:
            if hit is None:
                self._refuse(request, reply, error, received)
                return
            outputs = outputs_of(subject.signature, wanted, hit.outputs)
            response = InferResponse(
                subject.model, subject.version, request.id, outputs, {"stale": True}
            )
            self._answer_kept(request, reply, response, known, received)

        cache.stale(feeds, names, request.caller.uid, found)

    def _may_come(self, request: InferRequest) -> bool:
        try:
            self._catalog.check_ready(request.model_name, request.model_version)
        except EdgeRuntimeError:
            return False
        return True

    def _kept(self, known: LoadedVersion | None, request: InferRequest) -> VersionCache | None:
        """Give what a version that is not in memory answered; of that very one, if it is known."""
        if self._cache is None:
            return None
        if known is not None:
            cache = self._cache.find(known.name, known.version)
            return cache if cache is not None and cache.subject.digest == known.digest else None
        number = self._catalog.number(request.model_name, request.model_version)
        return None if number is None else self._cache.find(request.model_name, number)

    def _answer_kept(
        self,
        request: InferRequest,
        reply: Reply,
        response: InferResponse,
        known: LoadedVersion | None,
        received: int,
    ) -> None:
        """Give a kept answer, and count it if the version once was in memory."""
        request.spent = Spent(response.model_version, received)
        error = reply(response)
        if known is None:
            return
        if error is None:
            known.lane.statistics.answered(0, received, perf_counter_ns())
        else:
            known.lane.statistics.failed(reason_of(error), perf_counter_ns() - received)

    def _wake(
        self, request: InferRequest, reply: Reply, error: EdgeRuntimeError, received: int
    ) -> None:
        """Let a request wait until its model is in memory, if asking can bring it there."""
        timeout = _Timeout(request, received, self._catalog.drop_cancelled)
        user = request.caller.uid

        def is_cancelled() -> bool:
            return request.cancelled or timeout.is_over

        def resume(error: EdgeRuntimeError | None) -> None:
            timeout.cancel()
            self._end(user)  # whoever runs it counts it anew
            if type(error) is UnavailableError and timeout.is_over and not request.cancelled:
                error = DeadlineExceededError(
                    "the request's timeout passed while it waited for its model to be loaded"
                )
            if error is not None:
                self._instead(request, reply, error, received)
                return
            try:
                version = self._catalog.lease(request.model_name, request.model_version, request)
            except EdgeRuntimeError as gone:
                self._instead(request, reply, gone, received)
                return
            self._run(version, request, reply, received, perf_counter_ns() - received)

        waits = False
        try:
            self._begin(user)
            try:
                waits = self._catalog.wake(
                    request.model_name, request.model_version, resume, is_cancelled, user=user
                )
            finally:
                if not waits:
                    self._end(user)
        except EdgeRuntimeError as refused:
            error = refused
        if waits:
            timeout.start()
        else:
            self._instead(request, reply, error, received)

    def _refuse(
        self, request: InferRequest, reply: Reply, error: EdgeRuntimeError, received: int
    ) -> None:
        """Answer for a version that is not in memory, and count it if it once was."""
        request.spent = Spent("", received)
        known = self._catalog.last_known(request.model_name, request.model_version)
        if known is not None:
            known.lane.statistics.failed(reason_of(error), perf_counter_ns() - received)
        reply(error)


class _Timeout:
    """The timeout of a request that waits: a load is not over because it has passed.

    Args:
        request: Says how long it may take.
        received: When it was here, in monotonic nanoseconds.
        passed: Called when that time is over, unless ``cancel`` was before.
    """

    __slots__ = ("_deadline_ns", "_passed", "_timer")

    def __init__(self, request: InferRequest, received: int, passed: Callable[[], None]) -> None:
        self._deadline_ns = received + request.timeout_us * 1000 if request.timeout_us else 0
        self._passed = passed
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_over(self) -> bool:
        """Whether the time has passed."""
        return bool(self._deadline_ns and perf_counter_ns() >= self._deadline_ns)

    def start(self) -> None:
        """Watch it from now on, if there is one."""
        if not self._deadline_ns:
            return
        left_s = (self._deadline_ns - perf_counter_ns()) / _NS
        delay_s = min(max(left_s, _DELAY_MIN_S), _DELAY_MAX_S)
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._look)

    def cancel(self) -> None:
        """Watch it no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        if self.is_over:
            self._passed()
        else:  # loops count in milliseconds of their own
            self.start()
