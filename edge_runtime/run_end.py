"""How a run ends that is not, or was, executed: its error, its times, its answer."""

import logging
from time import perf_counter_ns

from edge_runtime.batching import Run
from edge_runtime.errors import DeadlineExceededError, EdgeRuntimeError, UnavailableError

_log = logging.getLogger(__name__)


def is_due(run: Run) -> bool:
    """Tell whether a run that waited is still worth its time; sets its error if not."""
    error: EdgeRuntimeError
    if run.request.cancelled:
        error = UnavailableError("the client is gone")
    elif run.deadline_ns and perf_counter_ns() >= run.deadline_ns:
        error = DeadlineExceededError("the request's timeout passed before it could run")
    else:
        return True
    fail(run, error)
    return False


def fail(run: Run, error: EdgeRuntimeError) -> None:
    """Give a run that will not be executed its error and its times."""
    run.error = error
    run.started = run.ended = perf_counter_ns()


def done(run: Run) -> None:
    """Answer for a run; what fails in there is logged and hurts nobody else."""
    try:
        run.done(run)
    except Exception:  # noqa: BLE001 - the runs behind it must not suffer
        _log.exception("the end of a run failed in a way nobody foresaw")
