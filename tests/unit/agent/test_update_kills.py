"""kill -9, a full disk, an error and a hang at every point of an update: the end is the same.

Each scenario runs in a process of its own that dies at one passage of one failpoint; another one
goes on from what is on the disk. After each: the same updates in the same end states, the same
orders to the runtime (so no release is handed over twice), and the fleet was told the same, in the
same order.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_runtime import failpoints
from tests.agent_updates import World
from tests.every_row import every

ROOT = Path(__file__).parents[3]
POINTS = tuple(name for name in failpoints.NAMES if name.startswith("agent.update."))
SCENARIOS = ("good", "bad", "refused", "aborted", "newer", "reverted", "late")
PASSAGES_MAX = 60
STEP = every(4)
"""Of the rows of one scenario; the scenarios begin at different ones."""
TRIES_MAX = 40

Facts = dict[str, Any]


def _facts(folder: Path, scenario: str) -> Facts:
    world = World(folder, scenario)
    state = world.runtime.state()
    try:
        return {
            "ends": world.ends(),
            "orders": world.orders(),
            "told": world.told(),
            "active": state["active"],
            "changes": len(world.updates.times.changes("digits", world.now_s)),
            "bad": sorted(world.updates.bad("digits")),
            "left": world.updates.unreported(),
        }
    finally:
        world.close()


def _run(folder: Path, scenario: str, setting: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.agent_updates", str(folder), scenario],
        env={**os.environ, failpoints.VARIABLE: setting},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Facts]:
    found = {}
    for scenario in SCENARIOS:
        folder = tmp_path_factory.mktemp(scenario)
        world = World(folder, scenario)
        world.run()
        world.close()
        found[scenario] = _facts(folder, scenario)
    return found


def _passages(monkeypatch: pytest.MonkeyPatch, folder: Path, scenario: str) -> dict[str, int]:
    """Count how often an undisturbed run comes to each failpoint."""
    counting = failpoints.Failpoints(traps={name: [] for name in POINTS})
    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "_set", counting)
        world = World(folder, scenario)
        world.run()
        world.close()
    return counting._passed


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_kill_anywhere_changes_nothing_about_the_end(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: dict[str, Facts],
    scenario: str,
) -> None:
    counts = _passages(monkeypatch, tmp_path_factory.mktemp("count"), scenario)
    settings = [f"{name}=kill@{n + 1}" for name in counts for n in range(counts[name])]
    settings = settings[SCENARIOS.index(scenario) % STEP :: STEP]
    folder = tmp_path_factory.mktemp("kills")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.agent_updates", str(folder), scenario, *settings],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert ended.returncode == 0, ended.stderr
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    assert rows == [[setting, True] for setting in settings]
    wrong = {
        setting: found
        for n, setting in enumerate(settings)
        if (found := _facts(folder / str(n), scenario)) != undisturbed[scenario]
    }
    assert not wrong


def test_the_kill_table_comes_to_every_point(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: set[str] = set()
    for scenario in SCENARIOS:
        reached |= _passages(monkeypatch, tmp_path_factory.mktemp(scenario), scenario).keys()
    assert reached == set(POINTS)


@pytest.mark.parametrize(
    ("scenario", "action"), [*((each, "error") for each in SCENARIOS), ("good", "full")]
)
def test_a_disk_that_fails_once_anywhere_only_costs_time(
    *,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: dict[str, Facts],
    scenario: str,
    action: str,
) -> None:
    for name in POINTS:
        for n in range(1 + SCENARIOS.index(scenario) % STEP, PASSAGES_MAX, STEP):
            folder = tmp_path_factory.mktemp("disk")
            trap = failpoints.parse(f"{name}={action}@{n}")
            with monkeypatch.context() as patch:
                patch.setattr(failpoints, "_set", trap)
                world = World(folder, scenario)
                world.run()
                world.close()
            found = _facts(folder, scenario)
            # What waits for the disk says so, and what was not told at once is told as it is later.
            assert found["ends"] == undisturbed[scenario]["ends"]
            assert found["orders"] == undisturbed[scenario]["orders"]
            assert found["active"] == undisturbed[scenario]["active"]
            assert found["changes"] == undisturbed[scenario]["changes"]
            assert found["told"][-1] == undisturbed[scenario]["told"][-1]
            assert found["left"] == []
            if trap._passed.get(name, 0) < n:
                break
        else:
            pytest.fail(f"{name} has more than {PASSAGES_MAX} passages")


@pytest.mark.parametrize(
    "name", [name for name in POINTS if not name.startswith("agent.update.abort")]
)
def test_a_process_that_hangs_and_is_killed_is_followed_by_one_that_goes_on(
    tmp_path: Path, undisturbed: dict[str, Facts], name: str
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.agent_updates", str(tmp_path), "good"],
        env={**os.environ, failpoints.VARIABLE: f"{name}=hang@1"},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if f"failpoint {name}: hang" in line:
                break
        process.kill()
    again = _run(tmp_path, "good")
    assert again.returncode == 0, again.stderr
    assert _facts(tmp_path, "good") == undisturbed["good"]


@pytest.mark.parametrize("scenario", ["good", "reverted"])
def test_a_process_that_dies_over_and_over_comes_to_the_same_end(
    tmp_path: Path, undisturbed: dict[str, Facts], scenario: str
) -> None:
    """Each start gets two records further, and no start does anything twice."""
    for _ in range(TRIES_MAX):
        ended = _run(tmp_path, scenario, "agent.update.stored=kill@1")
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert _facts(tmp_path, scenario) == undisturbed[scenario]
