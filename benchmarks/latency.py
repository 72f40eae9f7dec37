"""What serving adds to one prediction over the Unix socket, in paired rounds.

``python -m benchmarks.latency FOLDER MODEL FILE SOCKET ROUNDS TURNS`` alternates one run in this
process with one binary request to the server, sent over a plain socket, and one sent by our own
client, so that all meet the same noise, and prints JSON.
"""

import json
import socket
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders import CLIENT, IN_PROCESS, SOCKET
from benchmarks.in_process import Feeds, read_feeds
from benchmarks.session import open_session
from benchmarks.wire import connect, head, receive
from benchmarks.workload import Workload, check, read_workload
from edge_runtime.client import Client

Way = Callable[[Feeds], Any]


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


def measure(ways: Mapping[str, Way], feeds: list[Feeds], turns: int) -> dict[str, float]:
    """Take all ways in turn, starting with another one each time.

    Args:
        ways: What is compared.
        feeds: Inputs, used in turn.
        turns: How often each way runs.

    Returns:
        The median of each, in milliseconds.
    """
    taken: dict[str, list[int]] = {name: [] for name in ways}
    order = deque(ways.items())
    for turn in range(turns):
        feed = feeds[turn % len(feeds)]
        order.rotate()
        for name, call in order:
            before = time.perf_counter_ns()
            call(feed)
            taken[name].append(time.perf_counter_ns() - before)
    return {name: statistics.median(times) / 1e6 for name, times in taken.items()}


def main(arguments: list[str]) -> None:
    """Measure, and print a list of rounds: medians in milliseconds by way.

    Args:
        arguments: The command line.
    """
    folder, model, path, unix = Path(arguments[0]), arguments[1], arguments[2], arguments[3]
    rounds, turns = int(arguments[4]), int(arguments[5])
    workload = read_workload(folder, model, "binary")
    feeds = read_feeds(folder, workload)
    session = open_session(path)
    json_bytes = int(workload.headers["Inference-Header-Content-Length"])
    with connect(unix) as stream, Client(unix) as client:
        body = workload.bodies[0].read_bytes()
        stream.sendall(head("POST", workload.target, workload.headers, len(body)) + body)
        check(receive(stream), workload.expected[0], model)
        ways: dict[str, Way] = {
            IN_PROCESS: lambda feed: session.run(None, feed),
            SOCKET: Caller(stream, workload, json_bytes).infer,
            CLIENT: lambda feed: client.infer(model, feed),
        }
        _check_ways(ways, feeds[0])
        measure(ways, feeds, turns)
        print(json.dumps([measure(ways, feeds, turns) for _ in range(rounds)]))


def _check_ways(ways: Mapping[str, Way], feed: Feeds) -> None:
    """Make sure that every way gives the same."""
    expected = ways[IN_PROCESS](feed)
    for name in (SOCKET, CLIENT):
        got = ways[name](feed)
        arrays = got.values() if isinstance(got, dict) else got
        for left, right in zip(arrays, expected, strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-4, err_msg=name)


if __name__ == "__main__":
    main(sys.argv[1:])
