"""Requests that share a run: what may be joined, how many rows, and the run itself.

Rules: only what a probe proved may be joined is joined (``batching_probe``); rows count, not
requests; a joined run that fails is taken apart, so that nobody suffers for a neighbour's input.
Who is joined with whom, and when, is ``scheduling``'s business.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Final, Protocol

import msgspec
import numpy as np

from edge_runtime.errors import EdgeRuntimeError, ModelFailedError
from edge_runtime.metrics import VersionStatistics
from edge_runtime.run_cost import RunCost
from edge_runtime.tensors import VARIABLE, Array, Signature, TensorSpec

_log = logging.getLogger(__name__)

_INCREASE_ROWS: Final = 2
_INCREASE_BELOW: Final = 0.9  # of the objective; between that and the objective the cap holds
_DECREASE: Final = 0.9


class Runnable(Protocol):
    """What is needed of a model: a session that runs."""

    def run(self, names: Sequence[str], feeds: Mapping[str, Array], /) -> list[Array]:
        """Run the model: outputs in the order of ``names``."""
        ...


class Cancellable(Protocol):
    """What is needed of a request."""

    cancelled: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether requests of a version may share a run, as a probe on this device found.

    Attributes:
        joins: Whether they may.
        reason: Why, or why not, for a person.
        gain: Rows per second of the largest run probed over runs of one row; 0: not measured.
        rows: Rows of a joined run to begin with.
    """

    joins: bool
    reason: str
    gain: float = 0.0
    rows: int = 1


NOT_PROBED: Final = Verdict(joins=False, reason="not probed")


class RowCap:
    """Most rows of one run: grows by a few, shrinks by a tenth, so that runs keep to an objective.

    Args:
        objective_ns: Time that a run should stay below, in nanoseconds.
        rows: Rows to begin with.
        rows_max: Rows that are never exceeded.

    Source:
        Additive increase, multiplicative decrease as in Clipper (NSDI 2017), with its constants;
        its count is of requests, ours of rows.
    """

    __slots__ = ("_rows_max", "objective_ns", "rows")

    def __init__(self, objective_ns: float, rows: int, rows_max: int) -> None:
        self.objective_ns = objective_ns
        self._rows_max = rows_max
        self.rows = max(1, min(rows, rows_max))

    def observe(self, rows: int, ns: int) -> None:
        """Learn from one run.

        Args:
            rows: How many it had.
            ns: How long it took, in nanoseconds.
        """
        if ns > self.objective_ns:
            if rows <= self.rows:  # else one request was larger than any cap: not the cap's doing
                self.rows = max(1, int(self.rows * _DECREASE))
        elif rows >= self.rows and ns < _INCREASE_BELOW * self.objective_ns:
            self.rows = min(self._rows_max, self.rows + _INCREASE_ROWS)


class Lane:
    """A loaded version as the scheduler sees it.

    Attributes:
        session: What runs.
        statistics: Counts its runs.
        cost: Expected times of its runs.
        verdict: Whether its requests may share runs.
        cap: Most rows of a run that is shared.
        uniform: Whether only the first axis of its inputs varies, and is the same for all of
            them: then rows alone say how large a run is, and any two requests can be joined.
        inline: Whether short runs may execute on the loop's thread: not where the time of a run
            follows from values, since nobody can cut it short there.
        short: Runs gathered in this turn of the loop.
        name: What the log calls it.
        stalls: Its runs that held up everybody, on the loop's thread.
        stalled: When the last of those ended, in monotonic nanoseconds; 0: there was none.
    """

    __slots__ = (
        "cap",
        "cost",
        "inline",
        "name",
        "session",
        "short",
        "stalled",
        "stalls",
        "statistics",
        "uniform",
        "verdict",
    )

    def __init__(
        self,
        session: Runnable,
        signature: Signature,
        statistics: VersionStatistics | None = None,
        verdict: Verdict = NOT_PROBED,
        cap: RowCap | None = None,
        *,
        inline: bool = True,
        name: str = "a model",
    ) -> None:
        self.session = session
        self.inline = inline
        self.name = name
        self.stalls = self.stalled = 0
        self.statistics = statistics or VersionStatistics()
        self.cost = RunCost()
        self.verdict = verdict
        self.cap = cap or RowCap(0, 1, 1)
        self.uniform = _is_uniform(signature.inputs)
        self.short: list[Run] = []

    def size(self, rows: int, feeds: Mapping[str, Array]) -> int:
        """Say how large a run is, in the unit that its cost follows: rows, else elements."""
        if self.uniform:
            return rows
        return sum([array.size for array in feeds.values()])


class Run(msgspec.Struct, kw_only=True, eq=False):
    """One request's wish to run. A struct, because it is made for every request.

    Attributes:
        lane: The version asked.
        names: Outputs wanted.
        feeds: Arrays by input name.
        rows: Rows of the request.
        size: As ``Lane.size`` says.
        request: Asked whether its client is still there.
        done: Called once, on the loop's thread, perhaps before ``submit`` returns.
        received: When the request was here, in monotonic nanoseconds.
        priority: 0 for the default, 1 for the highest.
        deadline_ns: Monotonic nanoseconds after which it must not start; 0: never.
        client: Who asks, for fair shares: a user's number, or ``None``.
        alone: Whether it must not share a run any more, because the one it shared failed.
        outputs: The result, in the order of ``names``.
        error: Why there is no result.
        queued: When its inputs were checked, in monotonic nanoseconds.
        started: When the model began to run, or the run ended without.
        ended: When the model had run.
        shared_rows: Rows of the run that it shared; 0: not run, or alone.
    """

    lane: Lane
    names: Sequence[str]
    feeds: Mapping[str, Array]
    rows: int
    size: int
    request: Cancellable
    done: Callable[["Run"], None]
    received: int
    priority: int = 0
    deadline_ns: int = 0
    client: int | None = None
    alone: bool = False
    outputs: list[Array] = []
    error: EdgeRuntimeError | None = None
    queued: int = 0
    started: int = 0
    ended: int = 0
    shared_rows: int = 0

    @property
    def share_ns(self) -> int:
        """Its part of the time that the model ran, in nanoseconds."""
        ns = self.ended - self.started
        return ns * self.rows // self.shared_rows if self.shared_rows else ns

    @property
    def may_join(self) -> bool:
        """Whether it may share a run at all."""
        return self.lane.verdict.joins and not self.alone and self.rows > 0

    def joins(self, other: "Run") -> bool:
        """Tell whether it may share a run with another of its lane that may."""
        if self.names is not other.names and self.names != other.names:
            return False
        if self.lane.uniform:
            return True
        theirs = other.feeds
        # The first axes too: inputs of other lengths than the rows counted would mix the answers.
        return all(
            array.shape[1:] == theirs[name].shape[1:]
            and len(array) == self.rows
            and len(theirs[name]) == other.rows
            for name, array in self.feeds.items()
        )


class Batch:
    """Runs that are executed as one.

    Attributes:
        lane: The version that runs.
        runs: Who shares it; all have the same outputs and shapes.
        rows: Their rows together.
        size: Their sizes together.
        error: Why there is no result.
        started: When the model began to run, in monotonic nanoseconds.
        ended: When it had run.
    """

    __slots__ = ("ended", "error", "lane", "rows", "runs", "size", "started")

    def __init__(self, first: Run) -> None:
        self.lane = first.lane
        self.runs = [first]
        self.rows = first.rows
        self.size = first.size
        self.error: EdgeRuntimeError | None = None
        self.started = self.ended = 0

    def add(self, run: Run) -> None:
        """Take one more."""
        self.runs.append(run)
        self.rows += run.rows
        self.size += run.size

    def execute(self) -> None:
        """Run the model, and give every run its rows. The only part that other threads execute."""
        runs = self.runs
        session = self.lane.session
        first = runs[0]
        self.started = perf_counter_ns()
        try:
            if len(runs) == 1:
                first.outputs = session.run(first.names, first.feeds)
            else:
                parts = [run.feeds for run in runs]
                feeds = {
                    name: np.concatenate([part[name] for part in parts]) for name in first.feeds
                }
                _split(runs, self.rows, session.run(first.names, feeds))
        except EdgeRuntimeError as error:
            self.error = error
        except Exception:  # noqa: BLE001 - the thread goes on, the client gets an answer, the log says
            _log.exception("a run failed in a way nobody foresaw")
            self.error = ModelFailedError("the daemon failed to run the model; its log says why")
        self.ended = perf_counter_ns()

    def learn(self) -> None:
        """Learn from how long it took."""
        ns = self.ended - self.started
        lane = self.lane
        lane.cost.observe(self.size, ns)
        if lane.verdict.joins:
            lane.cap.observe(self.rows, ns)

    def count(self) -> None:
        """Count it, when all were answered."""
        runs = self.runs
        self.lane.statistics.ran(
            len(runs),
            self.rows,
            sum([run.queued - run.received for run in runs]),
            self.ended - self.started,
            perf_counter_ns() - self.ended,
        )

    def apart(self) -> Iterator[Run]:
        """Give back its runs, each to be executed alone."""
        for run in self.runs:
            run.alone = True
            yield run


def _is_uniform(inputs: Sequence[TensorSpec]) -> bool:
    if any(VARIABLE in spec.shape[1:] for spec in inputs):
        return False
    varying = [spec for spec in inputs if spec.shape[:1] == (VARIABLE,)]
    if len(varying) <= 1:
        return not varying or varying[0] is inputs[0]  # whose rows are counted
    symbols = {spec.symbols[:1] for spec in varying}
    return varying[0] is inputs[0] and len(symbols) == 1 and not symbols <= {(), (None,)}


def _split(runs: Sequence[Run], rows: int, outputs: Sequence[Array]) -> None:
    """Give every run its rows of the outputs, as views."""
    for output in outputs:
        if output.shape[:1] != (rows,):
            raise ModelFailedError(f"{rows} rows went in, an output has shape {output.shape}")
    start = 0
    for run in runs:
        end = start + run.rows
        run.outputs = [output[start:end] for output in outputs]
        start = end
