"""The whole request path, top to bottom: lease, check, run, answer.

Callback style: ``submit(request, reply)`` costs no Task and no Future; short runs of one turn of
the loop are executed together. ``execute`` is the seam where batching and the cache sit: anything
that takes a ``Run`` and calls its ``done``.
"""

import logging
from collections.abc import Callable, Mapping
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final, NoReturn

from edge_runtime.absence import Absence
from edge_runtime.access import Peer
from edge_runtime.backlog import Backlog, NoBacklog
from edge_runtime.batching import Run
from edge_runtime.cache.predictions import PredictionCache
from edge_runtime.cache.ticket import Hit, Ticket
from edge_runtime.cache.version_cache import VersionCache
from edge_runtime.catalog import Catalog
from edge_runtime.errors import (
    DeadlineExceededError,
    EdgeRuntimeError,
    ForbiddenError,
    ModelFailedError,
    ModelNotReadyError,
    OverloadedError,
)
from edge_runtime.fairness import User
from edge_runtime.fallback import Fallback
from edge_runtime.prediction import Reply, feeds_of, outputs_of, reason_of, wanted_of
from edge_runtime.prediction_run import PredictionRun
from edge_runtime.protocol.messages import InferRequest, InferResponse, Parameters, Spent
from edge_runtime.routing import NOT_ASKED, LoadedVersion, route
from edge_runtime.settings import Model

if TYPE_CHECKING:
    from edge_runtime.callers import Callers
    from edge_runtime.observer import Observer
    from edge_runtime.tap import Tap

_log = logging.getLogger(__name__)

_RETRY_AFTER_S: Final = 1
_NO_PARAMETERS: Final[Parameters] = {}
_STALE: Final[Parameters] = {"stale": True}
#: Errors that say that a model cannot run, so that an older answer may be better than none.
_CANNOT_RUN: Final = (ModelFailedError, OverloadedError)

Execute = Callable[[Run], None]


class Inference:
    """Answers requests for predictions.

    Args:
        catalog: The models.
        execute: What runs them: the scheduler, or something in front of it.
        cache: Answers that were given before.
        requests_per_user: Unanswered requests of one user, at most.
        backlog: What waits to be executed.

    Attributes:
        requests_per_user: As above; may be replaced.
        backlog: As above. Where it ``is_full``, ask ``refusal`` before a request is decoded.
        callers: Who may ask, by model; a model without an entry may be asked by all.
        fallback: Has the proven version answer where one on trial fails.
        taps: What takes copies of inputs, by model; empty as a rule.
        observers: What looks at answers that were just computed; none as a rule.
        tells_spent: Whether requests that succeed are told what they took, as failed ones are.
    """

    def __init__(
        self,
        catalog: Catalog,
        execute: Execute,
        *,
        cache: PredictionCache | None = None,
        requests_per_user: int = 1024,
        backlog: Backlog | None = None,
    ) -> None:
        self.backlog: Backlog = backlog or NoBacklog()
        self._catalog = catalog
        self._execute = execute
        self._cache = cache
        self._absence = Absence(catalog, cache, self._run, self._begin, self._end)
        self.fallback = Fallback(catalog, self._run, self._end)
        self.taps: dict[str, Tap] = {}
        self.observers: tuple[Observer, ...] = ()
        self._unanswered: dict[int | None, int] = {}
        self.requests_per_user = requests_per_user
        self.callers: Mapping[str, Callers] = {}
        self.tells_spent = False

    def refusal(self, name: str, version: str, caller: Peer) -> EdgeRuntimeError | None:
        """Say what a full queue would tell a request; it need not be decoded for that.

        Args:
            name: The model asked.
            version: A number or an alias; empty: the one that answers by default.
            caller: Who asks.

        Returns:
            The error, which is counted; ``None`` if the request should go on to ``submit``.
        """
        received = perf_counter_ns()
        # Of a model that is split, the default: the key may be in what is not decoded yet.
        loaded = route(self._catalog.table, name, version)
        if loaded is None or loaded.cache is not None or not self.admits(name, caller):
            return None
        error = self.backlog.refusal(loaded.lane, caller.uid)
        if error is not None:
            loaded.lane.statistics.failed(reason_of(error), perf_counter_ns() - received)
        return error

    def submit(self, request: InferRequest, reply: Reply) -> None:
        """Answer one request.

        Args:
            request: What is asked; setting ``cancelled`` on it later drops it if it still waits.
            reply: Called once with the answer or the error, perhaps before this returns.
        """
        received = perf_counter_ns()
        try:
            if self.callers:
                self.check_caller(request.model_name, request.caller)
            version = self._catalog.lease(request.model_name, request.model_version, request)
        except ModelNotReadyError as error:
            self._absence.answer(request, reply, error, received)
            return
        except EdgeRuntimeError as error:
            reply(error)
            return
        self._run(version, request, reply, received)

    def _run(
        self,
        version: LoadedVersion,
        request: InferRequest,
        reply: Reply,
        received: int,
        waited_ns: int = 0,
    ) -> None:
        """Check a request whose version is leased, and have it run.

        Args:
            version: The version.
            request: What is asked.
            reply: Called once.
            received: When the request was here, in monotonic nanoseconds.
            waited_ns: How long it waited: for the version to be in memory, or for another one.
        """
        signature = version.signature
        client = request.caller.uid
        try:
            feeds = feeds_of(signature, request)
            wanted, names = wanted_of(signature, request)
            unanswered = self._unanswered.get(client, 0) + 1
            if unanswered > self.requests_per_user:
                self._refuse_more()
        except EdgeRuntimeError as error:
            if version.on_trial and self.fallback.takes_refused(
                version, request, reply, error, received
            ):
                return
            request.spent = Spent(version.version, received)
            version.lane.statistics.failed(reason_of(error), perf_counter_ns() - received)
            self._catalog.release(version)
            reply(error)
            return
        except BaseException:
            self._catalog.release(version)
            raise
        self._unanswered[client] = unanswered
        if self.taps:
            tap = self.taps.get(version.name)
            if tap is not None and tap.wants(version):
                tap.take(version, feeds)
        lane = version.lane
        rows = signature.rows(feeds)
        run = PredictionRun(
            lane=lane,
            names=names,
            feeds=feeds,
            rows=rows,
            size=lane.size(rows, feeds),
            request=request,
            done=self._answer if version.cache is None else self._done,
            received=received + waited_ns,
            waited_ns=waited_ns,
            priority=request.priority,
            deadline_ns=received + request.timeout_us * 1000 if request.timeout_us else 0,
            client=client,
            asked=request,
            version=version,
            wanted=wanted,
            reply=reply,
        )
        if version.cache is None:
            self._execute(run)
        else:
            self._fetch(run)

    # -- the cache -----------------------------------------------------------------------------

    def take_cache_settings(self, models: Mapping[str, Model]) -> None:
        """Take the models' settings, at the start and whenever they change."""
        if self._cache is not None:
            self._cache.configure(models)
            for version in self._catalog.loaded():
                version.cache = NOT_ASKED

    def _cache_of(self, version: LoadedVersion) -> VersionCache | None:
        """Give the cache of a version that is in memory, if its model opted in."""
        cache = version.cache
        if isinstance(cache, VersionCache) and cache.is_open:
            return cache
        if self._cache is None:
            version.cache = None
        else:
            version.cache = self._cache.open(
                version.name,
                version.version,
                version.digest,
                version.session.providers,
                version.signature,
                ttl_max_s=version.manifest.defaults.cache_ttl_s,
                max_bytes=version.manifest.defaults.cache_max_bytes,
            )
        return version.cache

    def _fetch(self, run: PredictionRun) -> None:
        """Answer from the cache, or have it run."""
        cache = self._cache_of(run.version)
        if cache is None:
            self._execute(run)
            return

        def answer(hit: Hit) -> None:
            run.outputs = hit.outputs
            run.queued = run.started = run.ended = perf_counter_ns()
            self._done(run)

        def execute(ticket: Ticket | None) -> None:
            run.ticket = ticket
            self._execute(run)

        def expired() -> None:
            run.error = DeadlineExceededError(
                "the request's timeout passed while it waited for the run of an equal one"
            )
            run.queued, run.started = run.received, perf_counter_ns()
            run.ended = run.started
            self._done(run)

        cache.fetch(
            run.feeds,
            run.names,
            run.client,
            answer,
            execute,
            priority=run.priority,
            deadline_ns=run.deadline_ns,
            expired=expired,
            measures=True,
        )

    def _begin(self, client: User) -> None:
        """Count a request that waits for its version among its user's unanswered ones."""
        unanswered = self._unanswered.get(client, 0) + 1
        if unanswered > self.requests_per_user:
            self._refuse_more()
        self._unanswered[client] = unanswered

    def _end(self, client: User) -> None:
        """Count it out again."""
        self._unanswered[client] -= 1

    def _refuse_more(self) -> NoReturn:
        raise OverloadedError(
            f"{self.requests_per_user} requests of this user are unanswered already "
            "(limits.requests_per_user); wait for their answers",
            retry_after_s=_RETRY_AFTER_S,
        )

    def admits(self, name: str, caller: Peer) -> bool:
        """Tell whether a caller may ask a model: it has no allow-list, or the caller is on it."""
        callers = self.callers.get(name)
        return callers is None or callers.admit(caller)

    def check_caller(self, name: str, caller: Peer) -> None:
        """Make sure that a caller may ask a model, before anything is done for it.

        Raises:
            ForbiddenError: The model has an allow-list, and the caller is not on it.
        """
        if not self.admits(name, caller):
            raise ForbiddenError(
                f"model {name!r} is not for this caller ({caller.describe()}); the device's owner "
                f"says who may ask it (models.{name}.callers)"
            )

    def _done(self, run: Run) -> None:
        """Answer for a run that the cache may want to know of, or may have an answer for."""
        assert isinstance(run, PredictionRun)  # noqa: S101 - what comes back was handed over
        ticket, error = run.ticket, run.error
        if error is None:
            try:
                self._answer(run)
            finally:  # others may wait for this one's outcome
                if ticket is not None:
                    ticket.done(run.outputs, run.share_ns)
            return
        if ticket is not None:
            ticket.failed()
        if run.version.on_trial and self.fallback.takes(run):
            return
        if ticket is not None and ticket.kept is not None and not run.asked.cancelled:
            run.outputs, run.error = ticket.kept.outputs, None
            self._answer(run)
            return
        cache = run.version.cache
        if not isinstance(cache, VersionCache) or not isinstance(error, _CANNOT_RUN):
            self._answer(run)
            return

        def found(hit: Hit | None) -> None:
            if hit is None:
                self._answer(run)
            else:
                run.outputs, run.error = hit.outputs, None
                self._answer(run, _STALE)

        cache.stale(run.feeds, run.names, run.client, found)

    def _answer(self, run: Run, parameters: Parameters = _NO_PARAMETERS) -> None:
        """Answer for a run that has ended, and end what the request holds: its place, its lease."""
        assert isinstance(run, PredictionRun)  # noqa: S101 - what comes back was handed over
        version = run.version
        if version.on_trial and self.fallback.takes(run):
            return
        received = run.received - run.waited_ns
        queue_ns = run.started - run.queued + run.waited_ns
        if run.error is not None or self.tells_spent:
            compute_ns = run.ended - run.started
            run.asked.spent = Spent(version.version, received, run.rows, queue_ns, compute_ns)
        if self.observers and run.error is None and run.ended > run.started:  # no kept answer
            self._observe(run)
        try:
            try:
                answer = run.error or InferResponse(
                    version.name,
                    version.version,
                    run.asked.id,
                    outputs_of(version.signature, run.wanted, run.outputs),
                    parameters,
                )
                error = run.reply(answer) or run.error
            except Exception:  # noqa: BLE001 - it is logged
                # A run in the pool has no caller that could answer: without this, none would.
                _log.exception("an answer failed in a way nobody foresaw")
                error = ModelFailedError(
                    "the daemon failed to answer this request; its log says why"
                )
                run.reply(error)
            statistics = version.lane.statistics
            if error is None:
                statistics.answered(queue_ns, received, perf_counter_ns())
            else:
                statistics.failed(reason_of(error), perf_counter_ns() - received)
        finally:
            self._unanswered[run.client] -= 1
            self._catalog.release(version)

    def _observe(self, run: PredictionRun) -> None:
        """Let the observers look at what was computed; whatever fails there fails no answer."""
        for observer in self.observers:
            try:
                if observer.wants(run.version):
                    observer.answered(run.version, run.feeds, run.names, run.outputs)
            except Exception:  # noqa: BLE001 - it is logged
                _log.exception("an observer of answers failed and is left out from now on")
                self.observers = tuple(each for each in self.observers if each is not observer)
