"""Requests that failed on a version on trial: the proven version answers, nobody else hears of it.

Only requests that named no version: whoever asks for a version gets what that one does. The failure
is counted on the version on trial, and the request keeps its deadline, its place among its user's
and the time since it came.
"""

import logging
from collections.abc import Callable
from time import perf_counter_ns
from typing import Final

import numpy as np

from edge_runtime.catalog import Catalog
from edge_runtime.errors import (
    EdgeRuntimeError,
    InvalidTensorError,
    ModelFailedError,
    RequestError,
)
from edge_runtime.fairness import User
from edge_runtime.prediction import Reply, feeds_of, wanted_of
from edge_runtime.prediction_run import PredictionRun
from edge_runtime.protocol.messages import InferRequest, InferResponse
from edge_runtime.routing import LoadedVersion

_log = logging.getLogger(__name__)

_FAILED: Final = "BACKEND"  # Triton's word for a model that failed
_WRONG: Final = "OTHER"  # and for everything that is nobody's fault here
#: Errors of a run that another version may not have.
_TAKEN: Final = (ModelFailedError, InvalidTensorError)
_UNSPEAKABLE: Final = ModelFailedError("an output holds NaN or infinity, which JSON cannot carry")

#: Goes on with a version that is leased: when the request came, and how long that is ago by now.
Run = Callable[[LoadedVersion, InferRequest, Reply, int, int], None]


class Fallback:
    """Has the proven version answer where one on trial failed.

    Args:
        catalog: The models.
        run: Goes on with a version that is leased, told when the request was here and how long
            it waited, in nanoseconds.
        end: Counts a request out of its user's unanswered ones; ``run`` counts it in again.

    Attributes:
        noted: Called with the version on trial and its error each time, when that is counted;
            may be replaced.
    """

    def __init__(self, catalog: Catalog, run: Run, end: Callable[[User], None]) -> None:
        self._catalog = catalog
        self._run = run
        self._end = end
        self.noted: Callable[[LoadedVersion, EdgeRuntimeError], None] = lambda _loaded, _error: None

    def takes(self, run: PredictionRun) -> bool:
        """Go on with a run of a version on trial that ended badly; tell whether.

        An answer that its caller cannot be sent ends badly too: NaN or infinity in JSON; and so
        does a run that blames the input. Whether that is the version's fault is known when the
        proven one has answered.

        Args:
            run: If it is taken, its lease and its place are given back here.
        """
        error, reply = run.error, run.reply
        received = run.received - run.waited_ns
        if not isinstance(error, _TAKEN) and (error is not None or _is_speakable(run)):
            return False
        proven = self._lease(run.version, run.asked)
        if proven is None:
            return False
        if isinstance(error, ModelFailedError):
            self._count(run.version, error, received)
        else:
            reply = self._judging(run.version, error or _UNSPEAKABLE, reply, received)
        self._end(run.client)
        self._go_on(run.version, proven, run.asked, reply, received)
        return True

    def takes_refused(
        self,
        version: LoadedVersion,
        request: InferRequest,
        reply: Reply,
        error: EdgeRuntimeError,
        received: int,
    ) -> bool:
        """Go on with a request that a version on trial refused before it ran; tell whether.

        Only where the proven version takes it: else it is the request that is wrong.

        Args:
            version: On trial, and leased: if the request is taken, the lease is given back here.
            request: What is asked.
            reply: Called once.
            error: Why it was refused.
            received: When the request was here, in monotonic nanoseconds.
        """
        proven = self._lease(version, request) if isinstance(error, RequestError) else None
        if proven is None:
            return False
        try:
            feeds_of(proven.signature, request)
            wanted_of(proven.signature, request)
        except EdgeRuntimeError:
            self._catalog.release(proven)
            return False
        self._count(version, error, received)
        self._go_on(version, proven, request, reply, received)
        return True

    def _lease(self, version: LoadedVersion, request: InferRequest) -> LoadedVersion | None:
        """Lease the version that answers for another one, if that one was our choice."""
        if request.cancelled or (request.model_version and not request.is_version_ours):
            return None
        routes = self._catalog.table.get(version.name)
        proven = routes.proven if routes is not None else None
        if proven is None or proven.version == version.version:
            return None
        return self._catalog.lease(proven.name, proven.version)

    def _go_on(
        self,
        version: LoadedVersion,
        proven: LoadedVersion,
        request: InferRequest,
        reply: Reply,
        received: int,
    ) -> None:
        self._catalog.release(version)
        self._run(proven, request, reply, received, perf_counter_ns() - received)

    def _count(self, version: LoadedVersion, error: EdgeRuntimeError, received: int) -> None:
        """Count a failure of a version on trial that its caller does not see."""
        statistics = version.statistics
        statistics.failed(_FAILED, perf_counter_ns() - received)
        statistics.fallbacks += 1
        try:
            self.noted(version, error)
        except Exception:  # noqa: BLE001 - the caller waits for an answer
            _log.exception("a failure could not be noted")

    def _judging(
        self, version: LoadedVersion, error: EdgeRuntimeError, reply: Reply, received: int
    ) -> Reply:
        """Count an answer that could not be sent as a failure, if the proven version's could."""

        def judge(answer: InferResponse | EdgeRuntimeError) -> EdgeRuntimeError | None:
            unsent = reply(answer)
            if unsent is None and isinstance(answer, InferResponse):
                self._count(version, error, received)
            else:
                version.statistics.failed(_WRONG, perf_counter_ns() - received)
            return unsent

        return judge


def _is_speakable(run: PredictionRun) -> bool:
    """Tell whether the outputs can be sent in the forms asked for."""
    declared = run.version.signature.outputs
    return all(
        output.binary
        or output.classes
        or declared[output.name].datatype.json != "float"
        or bool(np.isfinite(array).all())
        for output, array in zip(run.wanted, run.outputs, strict=True)
    )
