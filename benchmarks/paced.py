"""One caller who asks at a steady pace, one request at a time, and how long each answer takes."""

import time
from dataclasses import dataclass

from benchmarks.wire import Address, connect, head, receive
from benchmarks.workload import Workload


@dataclass(frozen=True, slots=True)
class Wait:
    """One request and its answer."""

    status: int
    ms: float
    """From before the first byte is sent until the last one is here."""


def ask_paced(address: Address, workload: Workload, per_s: float, seconds: float) -> list[Wait]:
    """Ask over one connection for a while.

    Turns that passed while an answer was awaited are left out, not made up for: nobody waits for
    them.

    Args:
        address: The server.
        workload: What to send, in turn.
        per_s: Requests per second, if answers come in time.
        seconds: How long.

    Returns:
        At least one wait, in the order of the requests.

    Raises:
        OSError: The server cannot be reached, or does not answer.
    """
    bodies = [path.read_bytes() for path in workload.bodies]
    requests = [
        head("POST", workload.target, workload.headers, len(body)) + body for body in bodies
    ]
    waits: list[Wait] = []
    with connect(address) as stream:
        due = time.perf_counter()
        end = due + seconds
        while due < end:
            time.sleep(max(0.0, due - time.perf_counter()))
            before = time.perf_counter()
            stream.sendall(requests[len(waits) % len(requests)])
            status = receive(stream).status
            after = time.perf_counter()
            waits.append(Wait(status, (after - before) * 1e3))
            due = max(due + 1 / per_s, after)
    return waits
