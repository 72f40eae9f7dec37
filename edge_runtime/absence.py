"""Requests for a version that is not in memory: a kept answer, a wait, an older answer, or no.

A version that can be brought back gives a kept answer that is still young as it always does, else
the request waits for it. One that cannot, or fails to come, gives a kept answer where the model's
settings allow that, marked ``stale``; else the caller is told why not.
"""

from collections.abc import Callable
from time import perf_counter_ns

from edge_runtime.cache.predictions import PredictionCache
from edge_runtime.cache.ticket import Hit, Ticket
from edge_runtime.cache.version_cache import VersionCache
from edge_runtime.catalog import Catalog
from edge_runtime.errors import EdgeRuntimeError, RequestError
from edge_runtime.fairness import User
from edge_runtime.prediction import Reply, feeds_of, outputs_of, reason_of, wanted_of
from edge_runtime.protocol.messages import InferRequest, InferResponse, Spent
from edge_runtime.routing import LoadedVersion

Run = Callable[[LoadedVersion, InferRequest, Reply, int, int], None]
Count = Callable[[User], None]


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

        cache.fetch(feeds, names, request.caller.uid, answer, wake, priority=request.priority)

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
        deadline_ns = received + request.timeout_us * 1000 if request.timeout_us else 0
        user = request.caller.uid

        def is_cancelled() -> bool:
            return request.cancelled or bool(deadline_ns and perf_counter_ns() >= deadline_ns)

        def resume(error: EdgeRuntimeError | None) -> None:
            self._end(user)  # whoever runs it counts it anew
            if error is not None:
                self._instead(request, reply, error, received)
                return
            try:
                version = self._catalog.lease(request.model_name, request.model_version)
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
        if not waits:
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
