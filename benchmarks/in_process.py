"""The floor: a loop on ``InferenceSession.run`` in a process of its own, without any server.

``python -m benchmarks.in_process FOLDER MODEL FILE`` reads lines ``CALLERS SECONDS`` and answers
each with a line of JSON; it ends with its input, so that it cannot outlive the one who asks.
"""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.session import open_session
from benchmarks.workload import Workload, read_workload

Feeds = dict[str, npt.NDArray[np.float32]]


def read_feeds(folder: Path, workload: Workload) -> list[Feeds]:
    """Read the tensors of a workload.

    Args:
        folder: The cache folder.
        workload: Binary requests.

    Returns:
        What ``InferenceSession.run`` takes, for every request.
    """
    facts = json.loads((folder / "cases" / workload.model / "case.json").read_text("utf-8"))
    rows = [
        np.frombuffer(path.read_bytes()[facts["header_bytes"] :], np.float32)
        for path in workload.bodies
    ]
    return [{facts["input"]: row.reshape(facts["shape"])} for row in rows]


def run(session: Any, feeds: list[Feeds], callers: int, seconds: float) -> dict[str, float]:  # noqa: ANN401
    """Call the session over and over.

    Args:
        session: An ``InferenceSession``.
        feeds: Inputs, used in turn.
        callers: Threads that call it at once.
        seconds: How long.

    Returns:
        Calls per second, and the 50th and 99th percentile of one call in milliseconds.
    """
    started_ns = time.perf_counter_ns()
    end_ns = started_ns + int(seconds * 1e9)
    taken: list[list[int]] = [[] for _ in range(callers)]

    def call(times: list[int]) -> None:
        while (before := time.perf_counter_ns()) < end_ns:
            session.run(None, feeds[len(times) % len(feeds)])
            times.append(time.perf_counter_ns() - before)

    threads = [threading.Thread(target=call, args=(times,)) for times in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed_ns = time.perf_counter_ns() - started_ns
    ordered = sorted(time_ns for times in taken for time_ns in times)
    return {
        "per_s": len(ordered) / (elapsed_ns / 1e9),
        "p50_ms": ordered[len(ordered) // 2] / 1e6,
        "p99_ms": ordered[len(ordered) * 99 // 100] / 1e6,
    }


def main(folder: Path, model: str, path: Path) -> None:
    """Answer commands until the input ends.

    Args:
        folder: The cache folder.
        model: The model's name.
        path: Its file.
    """
    session = open_session(path)
    feeds = read_feeds(folder, read_workload(folder, model, "binary"))
    for line in sys.stdin:
        callers, seconds = line.split()
        print(json.dumps(run(session, feeds, int(callers), float(seconds))), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
