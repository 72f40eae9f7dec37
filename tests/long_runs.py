"""A model that runs for long, and what is done while it does, however slow the machine is."""

import re
from collections.abc import Callable
from pathlib import Path

from tests.daemons import Daemon, eventually
from tests.models import identity, slow
from tests.wire import Wire, infer_zeros

LONG = [400, 512]  # rows of a run that takes the best part of a second
SHORT = [1, 512]


def models_of(folder: Path) -> list[str]:
    """Make ``slow``, whose runs last, and ``m``, whose runs do not: arguments of a daemon."""
    model = slow(folder / "slow.onnx", layers=64)
    return [f"slow={model}", f"m={identity(folder / 'm.onnx')}"]


def in_flight(daemon: Daemon) -> int:
    """Count the requests of the slow model that are not answered."""
    text = daemon.request("GET", "/metrics").body.decode()
    found = re.search(r'^edge_runtime_requests_in_flight{model="slow".*} (\d+)', text, re.MULTILINE)
    assert found is not None
    return int(found[1])


def executions(daemon: Daemon) -> int:
    """Count the runs of the slow model that are over."""
    stats = daemon.request("GET", "/v2/models/slow/stats").json()["model_stats"][0]
    count: int = stats["execution_count"]
    return count


def goes_on(daemon: Daemon, count: int, long: Wire) -> bool:
    """Wait for so many requests in flight; tell whether that was before the long run's answer."""
    while in_flight(daemon) != count:
        if long.has_more():
            return False
    return True


def during_a_long_run(daemon: Daemon, attempt: Callable[[Wire], bool]) -> None:
    """Do something while a long run goes on.

    Args:
        daemon: Runs it.
        attempt: Gets the connection of the run; tells whether it was over too soon, so that
            nothing is proven: then there is another one.
    """

    def is_done() -> bool:
        eventually(lambda: in_flight(daemon) == 0, "the end of what came before")
        with Wire.of(daemon) as long:
            long.send(infer_zeros("slow", LONG))
            return goes_on(daemon, 1, long) and attempt(long)

    eventually(is_done, "a run that is long enough")
