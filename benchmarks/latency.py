"""What serving adds to one prediction over the Unix socket, in paired rounds.

``python -m benchmarks.latency FOLDER MODEL FILE SOCKET ROUNDS PAIRS`` alternates one run in this
process with one binary request to the server, so that both meet the same noise, and prints JSON.
"""

import json
import socket
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.in_process import Feeds, read_feeds
from benchmarks.session import open_session
from benchmarks.wire import connect, head, receive
from benchmarks.workload import Workload, check, read_workload


@dataclass(frozen=True, slots=True)
class Round:
    """Medians of one round, in milliseconds."""

    in_process_ms: float
    served_ms: float

    @property
    def added_ms(self) -> float:
        """What serving adds."""
        return self.served_ms - self.in_process_ms


class Caller:
    """A client that keeps its connection and sends a tensor from where it lies."""

    def __init__(self, stream: socket.socket, workload: Workload, json_bytes: int) -> None:
        """Remember the parts of the request that never change.

        Args:
            stream: A connection to the server.
            workload: Binary requests.
            json_bytes: Length of the JSON before the tensor, in bytes.
        """
        body = workload.bodies[0].read_bytes()
        self._stream = stream
        self._start = head("POST", workload.target, workload.headers, len(body)) + body[:json_bytes]

    def infer(self, feeds: Feeds) -> list[Any]:
        """Send one tensor and take the answer's outputs as arrays.

        Args:
            feeds: One tensor.

        Returns:
            Views of the outputs, which must all be float32.
        """
        (tensor,) = feeds.values()
        data = memoryview(tensor.data).cast("B")
        sent = self._stream.sendmsg([self._start, data])
        if sent < len(self._start):
            raise ConnectionError("the head did not fit into the socket's buffer")
        self._stream.sendall(data[sent - len(self._start) :])
        answer = receive(self._stream)
        if answer.status != 200:
            raise ConnectionError(f"status {answer.status}: {answer.body[:300]!r}")
        offset = int(answer.headers["inference-header-content-length"])
        outputs: list[Any] = []
        for output in json.loads(answer.body[:offset])["outputs"]:
            size = output["parameters"]["binary_data_size"]
            array = np.frombuffer(answer.body, np.float32, size // 4, offset)
            outputs.append(array.reshape(output["shape"]))
            offset += size
        return outputs


def measure(caller: Caller, session: Any, feeds: list[Feeds], pairs: int) -> Round:  # noqa: ANN401
    """Alternate the two ways, each first in turn.

    Args:
        caller: The served way.
        session: The same model in this process.
        feeds: Inputs, used in turn.
        pairs: How often each way runs.
    """
    in_process: list[int] = []
    served: list[int] = []
    for index in range(pairs):
        feed = feeds[index % len(feeds)]
        ways = [
            (in_process, lambda feed=feed: session.run(None, feed)),
            (served, lambda feed=feed: caller.infer(feed)),
        ]
        for times, call in ways if index % 2 else reversed(ways):
            before = time.perf_counter_ns()
            call()
            times.append(time.perf_counter_ns() - before)
    return Round(statistics.median(in_process) / 1e6, statistics.median(served) / 1e6)


def main(arguments: list[str]) -> None:
    """Measure and print ``{"in_process_ms": [...], "served_ms": [...], "added_ms": [...]}``.

    Args:
        arguments: The command line.
    """
    folder, model, path, unix = Path(arguments[0]), arguments[1], arguments[2], arguments[3]
    rounds, pairs = int(arguments[4]), int(arguments[5])
    workload = read_workload(folder, model, "binary")
    feeds = read_feeds(folder, workload)
    session = open_session(path)
    json_bytes = int(workload.headers["Inference-Header-Content-Length"])
    with connect(unix) as stream:
        body = workload.bodies[0].read_bytes()
        stream.sendall(head("POST", workload.target, workload.headers, len(body)) + body)
        check(receive(stream), workload.expected[0], model)
        caller = Caller(stream, workload, json_bytes)
        measure(caller, session, feeds, pairs)
        results = [measure(caller, session, feeds, pairs) for _ in range(rounds)]
    print(
        json.dumps(
            {
                "in_process_ms": [result.in_process_ms for result in results],
                "served_ms": [result.served_ms for result in results],
                "added_ms": [result.added_ms for result in results],
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
