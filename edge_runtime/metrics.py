"""Plain counters, one set per model version. The hot path adds; the exposition reads."""

from typing import Final

#: Upper bounds of the duration histograms, in seconds: powers of two from 16 us to 33 s, the same
#: on every device so that they add up.
DURATION_BUCKETS_S: Final = tuple((16 << exponent) / 1e6 for exponent in range(22))
#: The same for loads: powers of four from 1 ms to 268 s.
LOAD_BUCKETS_S: Final = tuple((1024 << 2 * exponent) / 1e6 for exponent in range(10))


class Durations:
    """A count and a sum of nanoseconds, and how they spread.

    Attributes:
        count: How many.
        ns: Their sum, in nanoseconds.
        buckets: Counts by ``bit_length`` of the duration in units of 16 us.
    """

    __slots__ = ("buckets", "count", "ns")

    def __init__(self) -> None:
        self.count = 0
        self.ns = 0
        self.buckets = [0] * (len(DURATION_BUCKETS_S) + 1)

    def add(self, ns: int) -> None:
        """Count one duration, in nanoseconds."""
        self.count += 1
        self.ns += ns
        index = (ns // 16_000).bit_length()
        self.buckets[index if index < _LAST else _LAST] += 1  # noqa: FURB136 - min() costs a call


_LAST: Final = len(DURATION_BUCKETS_S)


class LoadDurations(Durations):
    """How long loads took; the buckets are those of ``LOAD_BUCKETS_S``."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        self.buckets = [0] * (len(LOAD_BUCKETS_S) + 1)

    def add(self, ns: int) -> None:
        """Count one load, in nanoseconds."""
        self.count += 1
        self.ns += ns
        index = ((ns // 1_024_000).bit_length() + 1) // 2
        self.buckets[min(index, len(LOAD_BUCKETS_S))] += 1


class Tally:
    """A count and a sum of nanoseconds."""

    __slots__ = ("count", "ns")

    def __init__(self) -> None:
        self.count = 0
        self.ns = 0


class RunTallies:
    """Durations of the runs of one size."""

    __slots__ = ("infer_ns", "input_ns", "output_ns", "runs")

    def __init__(self) -> None:
        self.runs = 0
        self.input_ns = 0
        self.infer_ns = 0
        self.output_ns = 0


class VersionStatistics:
    """Counters of one model version.

    Requests and runs are counted apart: several requests may share one run.

    Attributes:
        success: Whole requests that were answered.
        queue: Time of a request between being ready to run and running.
        compute: Time in the model; its count is the number of runs.
        input_ns: Time spent checking inputs, in nanoseconds.
        output_ns: Time spent on outputs and the answers, in nanoseconds.
        rows: Rows inferred.
        joined: Requests that shared a run with others.
        fail: Requests that failed.
        failures: Failed requests by reason.
        fallbacks: Failed requests that another version answered, so that no caller saw it.
        by_rows: Durations by rows of a run; bounded, larger runs share the last entry.
        last_success_ns: Monotonic time of the last success, in nanoseconds; 0: never.
    """

    __slots__ = (
        "by_rows",
        "compute",
        "fail",
        "failures",
        "fallbacks",
        "input_ns",
        "joined",
        "last_success_ns",
        "output_ns",
        "queue",
        "rows",
        "success",
    )

    def __init__(self) -> None:
        self.success = Durations()
        self.queue = Durations()
        self.compute = Durations()
        self.fail = Tally()
        self.failures: dict[str, int] = {}
        self.fallbacks = 0
        self.input_ns = 0
        self.output_ns = 0
        self.rows = 0
        self.joined = 0
        self.by_rows: dict[int, RunTallies] = {}
        self.last_success_ns = 0

    def answered(self, queue_ns: int, received: int, answered: int) -> None:
        """Count one answered request.

        Args:
            queue_ns: How long it was ready to run and did not, in nanoseconds.
            received: When it was decoded, in monotonic nanoseconds.
            answered: When the answer was written.
        """
        self.success.add(answered - received)
        self.queue.add(queue_ns)
        self.last_success_ns = answered

    def ran(self, requests: int, rows: int, input_ns: int, infer_ns: int, output_ns: int) -> None:
        """Count one run; every time is in nanoseconds.

        Args:
            requests: Who shared it.
            rows: Rows it had.
            input_ns: Checking the inputs of all of them.
            infer_ns: In the model.
            output_ns: From the model's end until all were answered.
        """
        self.compute.add(infer_ns)
        self.input_ns += input_ns
        self.output_ns += output_ns
        self.rows += rows
        if requests > 1:
            self.joined += requests
        key = rows if rows < ROWS_MAX else ROWS_MAX  # noqa: FURB136 - min() costs a call
        tallies = self.by_rows.get(key)
        if tallies is None:
            tallies = self.by_rows[key] = RunTallies()
        tallies.runs += 1
        tallies.input_ns += input_ns
        tallies.infer_ns += infer_ns
        tallies.output_ns += output_ns

    def failed(self, reason: str, ns: int) -> None:
        """Count one failed request, with the time it took in nanoseconds."""
        self.fail.count += 1
        self.fail.ns += ns
        self.failures[reason] = self.failures.get(reason, 0) + 1


ROWS_MAX: Final = 1024  # sizes of a run told apart in the statistics


class ServerStatistics:
    """Counters of the daemon as a whole.

    Attributes:
        responses: Answers by HTTP status.
        connections_open: Connections open now.
        connections_total: Connections accepted since the start.
        connections_refused: Connections turned away at a limit.
        connections_evicted: Idle connections closed for users who had fewer.
        predictions_lost: Predictions that were not kept: no room in the queue, or the disk refused.
        predictions_redacted: Those that the owner's function dropped, or failed on.
        records_limited: Records of requests that were not written because there were too many.
        records_dropped: Those that were not written because the log is read too slowly.
    """

    __slots__ = (
        "connections_evicted",
        "connections_open",
        "connections_refused",
        "connections_total",
        "predictions_lost",
        "predictions_redacted",
        "records_dropped",
        "records_limited",
        "responses",
        "started_s",
    )

    def __init__(self, started_s: float) -> None:
        self.responses: dict[int, int] = {}
        self.connections_open = 0
        self.connections_total = 0
        self.connections_refused = 0
        self.connections_evicted = 0
        self.predictions_lost = 0
        self.predictions_redacted = 0
        self.records_limited = 0
        self.records_dropped = 0
        self.started_s = started_s
