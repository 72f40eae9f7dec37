"""``edge-runtime bench``: latency and throughput of one model, as a program beside it sees them.

The request is encoded once and answers are read but not decoded, so that the client's own work
weighs as little as it can.
"""

import argparse
import sys
import threading
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NoReturn

import msgspec
import numpy as np
from tqdm import tqdm

from edge_runtime.cli.inputs import random_inputs, read_inputs
from edge_runtime.cli.terminal import connect, print_json, say
from edge_runtime.client import Client
from edge_runtime.client.arrays import refuse_non_finite
from edge_runtime.client.calls import encode
from edge_runtime.errors import EdgeRuntimeError, TransportError
from edge_runtime.exit_codes import ExitCode
from edge_runtime.protocol.messages import InferRequest

REQUESTS_DEFAULT: Final = 1000
SAMPLES_MAX: Final = 10_000_000  # 80 MB of durations; a longer run ends here
MESSAGES_MAX: Final = 10  # different errors that are told apart
LOOK_S: Final = 0.1  # how often the progress is looked at
STOP_WAIT_S: Final = 2.0  # after Ctrl-C: time for requests under way
NS_PER_MS: Final = 1e6


class Latency(msgspec.Struct):
    """How long answered requests took, in milliseconds."""

    mean: float
    std: float
    min: float
    p50: float
    p90: float
    p99: float
    max: float


class Report(msgspec.Struct):
    """What was measured.

    Attributes:
        model: Name of the model.
        address: Where the daemon was asked.
        concurrency: Requests under way at once.
        bytes_per_request: Size of a request's body.
        requests: Answered ones.
        errors: Failed ones.
        duration_s: From the first request to the last answer.
        throughput_per_s: Answered requests per second.
        latency_ms: ``None`` if none was answered.
        interrupted: Whether Ctrl-C ended it.
        error_messages: How often each of the most frequent ones was met.
    """

    model: str
    address: str
    concurrency: int
    bytes_per_request: int
    requests: int
    errors: int
    duration_s: float
    throughput_per_s: float
    latency_ms: Latency | None
    interrupted: bool
    error_messages: dict[str, int]


@dataclass(frozen=True)
class Job:
    """What every worker sends.

    Attributes:
        client: Shared by the workers.
        model: Name of the model.
        version: Its version, or empty.
        body: The encoded request.
        json_length: Bytes of JSON in it, or ``None``.
    """

    client: Client
    model: str
    version: str
    body: bytes
    json_length: int | None

    def send(self) -> None:
        """Send one request and read its answer.

        Raises:
            EdgeRuntimeError: It failed.
        """
        self.client.infer_raw(
            self.model, self.body, json_length=self.json_length, version=self.version
        )


@dataclass
class Run:
    """Workers that send requests until there were enough.

    Attributes:
        job: What they send.
        requests: How many, all workers together.
        seconds: For how long at most; ``None``: no limit.
        durations_ns: One array per worker, of answered requests.
        errors: Messages of failed requests.
        stop: Set to end it early.
        interrupted: Whether Ctrl-C did.
        elapsed_s: How long it took.
    """

    job: Job
    requests: int
    seconds: float | None = None
    durations_ns: list["array[int]"] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    stop: threading.Event = field(default_factory=threading.Event)
    interrupted: bool = False
    elapsed_s: float = 0.0
    _tickets: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def perform(self, concurrency: int, progress: "tqdm[NoReturn] | None") -> None:
        """Start the workers and wait for them.

        Args:
            concurrency: How many.
            progress: Shown while they work: requests, or seconds where those end it.
        """
        self.durations_ns = [array("q") for _ in range(concurrency)]
        # Daemon threads: an answer that never comes must not keep the program after Ctrl-C.
        workers = [
            threading.Thread(target=self._work, args=(durations,), daemon=True)
            for durations in self.durations_ns
        ]
        started = time.monotonic()
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                while worker.is_alive():
                    worker.join(LOOK_S)
                    self._show(progress, started)
        except KeyboardInterrupt:
            self.interrupted = True
            self.stop.set()
            self.elapsed_s = time.monotonic() - started
            for worker in workers:
                worker.join(max(0.0, started + self.elapsed_s + STOP_WAIT_S - time.monotonic()))
        else:
            self.elapsed_s = time.monotonic() - started

    def _show(self, progress: "tqdm[NoReturn] | None", started: float) -> None:
        if progress is not None:
            done: float = self._tickets
            if self.seconds is not None:
                done = min(round(time.monotonic() - started, 1), self.seconds)
            progress.update(done - progress.n)

    def _take_ticket(self) -> bool:
        with self._lock:
            if self._tickets >= self.requests:
                return False
            self._tickets += 1
            return True

    def _work(self, durations_ns: "array[int]") -> None:
        end = time.monotonic() + self.seconds if self.seconds is not None else float("inf")
        clock = time.perf_counter_ns
        while not self.stop.is_set() and time.monotonic() < end and self._take_ticket():
            started = clock()
            try:
                self.job.send()
            except EdgeRuntimeError as error:
                with self._lock:
                    self.errors[error.message] += 1
                if isinstance(error, TransportError) and not error.request_sent:
                    self.stop.set()  # nobody is there any more: more tries measure nothing
            else:
                durations_ns.append(clock() - started)


def run(options: argparse.Namespace) -> int:
    """Measure, and print.

    Raises:
        EdgeRuntimeError: The first request failed already.
    """
    with connect(options, connections=options.concurrency) as client:
        job = _job(client, options)
        job.send()  # an error here is the answer: bad input, an unknown model, nobody there
        warmup = Run(job, options.warmup)
        warmup.perform(min(options.concurrency, options.warmup), None)
        if warmup.interrupted:
            return ExitCode.INTERRUPTED
        measured = Run(job, _requests(options), options.duration)
        with _progress(options) as progress:
            measured.perform(options.concurrency, progress)
    report = _report(job, measured, options.concurrency)
    if options.json:
        print_json(report)
    else:
        _print_for_people(report)
    if measured.interrupted:
        say("interrupted: this is what was measured until then")
        return ExitCode.INTERRUPTED
    return ExitCode.FAILED if report.errors else ExitCode.DONE


def _job(client: Client, options: argparse.Namespace) -> Job:
    model = client.model_metadata(options.name, options.version)
    if options.input:
        inputs = read_inputs(options.input, model)
    else:
        inputs = random_inputs(model, options.batch)
    binary = not options.json_body
    if not binary:
        refuse_non_finite(inputs)
    parts, json_length = encode(InferRequest(inputs=inputs, binary_outputs=binary), binary=binary)
    return Job(client, options.name, options.version, b"".join(parts), json_length)


def _requests(options: argparse.Namespace) -> int:
    if options.duration is not None:
        return SAMPLES_MAX
    return min(options.requests or REQUESTS_DEFAULT, SAMPLES_MAX)


def _progress(options: argparse.Namespace) -> "tqdm[NoReturn]":
    by_time = options.duration is not None
    return tqdm(
        total=options.duration if by_time else _requests(options),
        unit="s" if by_time else "req",
        desc=f"bench {options.name}",
        disable=options.json or not sys.stderr.isatty(),
        leave=False,
        file=sys.stderr,
    )


def _report(job: Job, measured: Run, concurrency: int) -> Report:
    durations = np.concatenate(
        [np.frombuffer(each.tobytes(), np.int64) for each in measured.durations_ns]
    )
    latency = None
    if len(durations):
        times = durations / NS_PER_MS
        p50, p90, p99 = np.percentile(times, (50, 90, 99)).tolist()
        latency = Latency(
            mean=float(times.mean()),
            std=float(times.std()),
            min=float(times.min()),
            p50=p50,
            p90=p90,
            p99=p99,
            max=float(times.max()),
        )
    return Report(
        model=job.model,
        address=str(job.client.endpoint),
        concurrency=concurrency,
        bytes_per_request=len(job.body),
        requests=len(durations),
        errors=measured.errors.total(),
        duration_s=measured.elapsed_s,
        throughput_per_s=len(durations) / measured.elapsed_s,
        latency_ms=latency,
        interrupted=measured.interrupted,
        error_messages=dict(measured.errors.most_common(MESSAGES_MAX)),
    )


def _print_for_people(report: Report) -> None:
    print(
        f"{report.model}: {report.requests} requests of {report.bytes_per_request} bytes, "
        f"{report.concurrency} at once, in {report.duration_s:.2f} s"
    )
    if report.latency_ms is not None:
        for name, number in msgspec.structs.asdict(report.latency_ms).items():
            print(f"  {name:<10} {number:10.3f} ms")
    print(f"  {'throughput':<10} {report.throughput_per_s:10.1f} req/s")
    print(f"  {'errors':<10} {report.errors:10}")
    for message, count in report.error_messages.items():
        say(f"{count} x {message}")
