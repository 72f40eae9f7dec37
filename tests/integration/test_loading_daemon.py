"""The cache of optimised graphs as a daemon uses it: across starts, kills, and daemons."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from signal import SIGKILL

import numpy as np
import psutil
import pytest

from edge_runtime.client import Client
from edge_runtime.optimized_graphs import MODEL, MODEL_BYTES_MIN
from tests import models
from tests.customized import at_start
from tests.daemons import START_S, Daemon, eventually

pytestmark = pytest.mark.integration

SIZE = 1536
USED = "runs from its optimised graph"
BUSY = "no optimised graph this time, the CPUs are busy"
#: What makes a graph stops itself just before it begins, when its priority is set.
HELD = """
    import os, signal, sys
    def hold(event, arguments):
        if event == "import" and arguments[0] == "edge_runtime.graph_optimization":
            os.kill(os.getpid(), signal.SIGSTOP)
    if any("graph_optimization import main" in each for each in sys.orig_argv):
        sys.addaudithook(hold)
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = models.slow(tmp_path / "model.onnx", size=SIZE, layers=1)
    assert path.stat().st_size > MODEL_BYTES_MIN
    return path


@pytest.fixture
def held(tmp_path: Path) -> Mapping[str, str]:
    """The environment of a daemon whose graphs are never made."""
    (tmp_path / "python").mkdir()
    return at_start(tmp_path / "python", HELD)


def check(daemon: Daemon) -> None:
    with Client(str(daemon.socket), timeout_s=START_S) as client:
        (output,) = client.infer("m", {"x": np.ones((2, SIZE), np.float32)}).values()
    assert output.shape == (2, SIZE)
    assert not output.any()


def check_from_graph(daemon: Daemon, uses: int = 1) -> None:
    """Ask what runs from a graph, after more starts if the CPUs had no time to make one."""
    check(daemon)
    while daemon.log().rfind(BUSY) > daemon.log().rfind(USED):  # so it was the last time
        daemon.restart()
        check(daemon)
    assert daemon.log().count(USED) == uses


def graphs(state: Path) -> list[Path]:
    return sorted((state / "optimized").glob(f"*/graph/{MODEL}"))


def optimizer(daemon: Daemon) -> psutil.Process:
    """Wait for the process that makes a graph; it is held, and has the priority it should have."""
    found: list[psutil.Process] = []

    def is_found() -> bool:
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            for child in psutil.Process(daemon.process.pid).children():
                is_idle = os.sched_getscheduler(child.pid) == os.SCHED_IDLE
                if is_idle and child.status() == psutil.STATUS_STOPPED:
                    found.append(child)
        return bool(found)

    eventually(is_found, "making a graph at low priority", START_S)
    assert "graph_optimization" in " ".join(found[0].cmdline())
    return found[0]


def has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_later_start_uses_the_graph_that_the_first_one_made(model: Path) -> None:
    with Daemon([f"m={model}"]) as daemon:
        check_from_graph(daemon)
        (graph,) = graphs(daemon.state)
        made = graph.stat()
        daemon.restart()
        check_from_graph(daemon, 2)
        assert graphs(daemon.state) == [graph]
        later = graph.stat()
        assert (later.st_ino, later.st_mtime_ns) == (made.st_ino, made.st_mtime_ns)
        assert "Traceback" not in daemon.log()


def test_what_makes_the_graph_has_low_priority_and_ends_with_a_killed_daemon(
    model: Path, held: Mapping[str, str]
) -> None:
    daemon = Daemon([f"m={model}"], held, wait=False)
    try:
        child = optimizer(daemon)
        daemon.restart(SIGKILL, {})
        eventually(lambda: has_ended(child), "its end")
        check_from_graph(daemon)
        assert len(graphs(daemon.state)) == 1
        assert not [*(daemon.state / "optimized").glob(".*")]
    finally:
        daemon.stop()


def test_stop_while_a_graph_is_made_does_not_wait_for_it(
    model: Path, held: Mapping[str, str]
) -> None:
    daemon = Daemon([f"m={model}"], held, wait=False)
    try:
        child = optimizer(daemon)
    finally:
        code = daemon.stop()
    assert code == 0
    eventually(lambda: has_ended(child), "its end")


def test_daemons_that_share_a_state_directory_share_the_graph(model: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    both = [Daemon([f"m={model}"], wait=False, state=state) for _ in range(2)]
    try:
        for daemon in both:
            daemon.wait_ready()
            check_from_graph(daemon)
    finally:
        for daemon in both:
            daemon.stop()
    assert len(graphs(state)) == 1
    assert not [*(state / "optimized").glob(".*")]


def test_cache_that_is_switched_off_keeps_no_graph(model: Path) -> None:
    off = {"EDGE_RUNTIME__ENGINE__GRAPH_CACHE_BYTES": "0"}
    with Daemon([f"m={model}"], off) as daemon:
        check(daemon)
        assert USED not in daemon.log()
        assert not graphs(daemon.state)
