"""The run of one prediction: what was asked, which version is leased for it, whom to answer."""

from collections.abc import Sequence

from edge_runtime.batching import Run
from edge_runtime.cache.ticket import Ticket
from edge_runtime.prediction import Reply
from edge_runtime.protocol.messages import InferRequest, RequestedOutput
from edge_runtime.routing import LoadedVersion


class PredictionRun(Run, kw_only=True, eq=False):
    """A run that knows what was asked and whom to answer.

    Attributes:
        asked: The request.
        version: Leased for it.
        waited_ns: How long it waited for the version to be in memory, or for another one that
            failed; ``received`` is when that was over, so that it counts as time in the queue and
            not as work on the inputs.
        wanted: Outputs and their forms.
        reply: Answers.
        ticket: Tells the cache how it went.
    """

    asked: InferRequest
    version: LoadedVersion
    wanted: Sequence[RequestedOutput]
    reply: Reply
    ticket: Ticket | None = None
    waited_ns: int = 0
