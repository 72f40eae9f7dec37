"""The cache of optimised graphs as a daemon uses it: across starts, kills, and daemons."""

import contextlib
import os
from pathlib import Path
from signal import SIGKILL

import numpy as np
import psutil
import pytest

from edge_runtime.client import Client
from edge_runtime.optimized_graphs import MODEL, MODEL_BYTES_MIN
from tests import models
from tests.daemons import START_S, Daemon, eventually

pytestmark = pytest.mark.integration

SIZE = 1536
USED = "runs from its optimised graph"
BUSY = "no optimised graph this time, the CPUs are busy"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = models.slow(tmp_path / "model.onnx", size=SIZE, layers=1)
    assert path.stat().st_size > MODEL_BYTES_MIN
    return path


def check(daemon: Daemon) -> None:
    with Client(str(daemon.socket), timeout_s=20) as client:
        (output,) = client.infer("m", {"x": np.ones((2, SIZE), np.float32)}).values()
    assert output.shape == (2, SIZE)
    assert not output.any()


def check_from_graph(daemon: Daemon, uses: int = 1) -> None:
    """Ask what runs from a graph, after more starts if the CPUs had no time to make one."""
    check(daemon)
    busy = 0
    while daemon.log().count(BUSY) > busy:
        busy += 1
        daemon.restart()
        check(daemon)
    assert daemon.log().count(USED) == uses


def graphs(state: Path) -> list[Path]:
    return sorted((state / "optimized").glob(f"*/graph/{MODEL}"))


def optimizers(daemon: Daemon) -> list[psutil.Process]:
    """Find the process that makes a graph, once it has the priority that it should have."""
    found: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error, ProcessLookupError):
        for child in psutil.Process(daemon.process.pid).children():
            words = " ".join(child.cmdline())
            is_idle = os.sched_getscheduler(child.pid) == os.SCHED_IDLE
            if "graph_optimization" in words and is_idle:
                found.append(child)
    return found


def optimizer(daemon: Daemon) -> psutil.Process:
    """Wait for that process."""
    eventually(lambda: bool(optimizers(daemon)), "making a graph at low priority", START_S)
    return optimizers(daemon)[0]


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_later_start_uses_the_graph_that_the_first_one_made(model: Path) -> None:
    with Daemon([f"m={model}"]) as daemon:
        check_from_graph(daemon)
        (graph,) = graphs(daemon.state)
        made = graph.stat()
        daemon.restart()
        check_from_graph(daemon, 2)
        assert graphs(daemon.state) == [graph]
        assert graph.stat() == made
        assert "Traceback" not in daemon.log()


def test_what_makes_the_graph_has_low_priority_and_ends_with_a_killed_daemon(model: Path) -> None:
    daemon = Daemon([f"m={model}"], wait=False)
    try:
        child = optimizer(daemon)
        child.suspend()  # it would take for ever
        daemon.restart(SIGKILL)
        eventually(lambda: has_ended(child), "its end")
        check_from_graph(daemon)
        assert len(graphs(daemon.state)) == 1
        assert not [*(daemon.state / "optimized").glob(".*")]
    finally:
        daemon.stop()


def test_stop_while_a_graph_is_made_does_not_wait_for_it(model: Path) -> None:
    daemon = Daemon([f"m={model}"], wait=False)
    child = optimizer(daemon)
    child.suspend()
    assert daemon.stop() == 0
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
