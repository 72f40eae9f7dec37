"""Every state ends in time, in seconds awake, over all starts."""

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import (
    NetworkError,
)
from agent.update import machine
from agent.update.deadlines import START_S, TICK_S, WAIT_S, Deadlines
from agent.update.states import FINAL, State
from tests.agent_plans import plan
from tests.agent_ports import MODEL
from tests.agent_updates import World, sha_of


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, "good")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("state", "used_s"),
    [
        (State.DOWNLOADING, 100.0),
        (State.HANDING_OVER, 200.0),
        (State.FOLLOWING, 300.0),
        (State.VERIFIED, WAIT_S),
        (State.PLANNED, WAIT_S),
    ],
)
def test_every_state_ends_at_its_deadline(tmp_path: Path, state: State, used_s: float) -> None:
    limits = Deadlines(download_s=100.0, handover_s=200.0, verdict_s=300.0)
    world = World(tmp_path, "good", limits)
    world.files.raises = [NetworkError("gone")] * 3 if state is State.DOWNLOADING else []
    # Whoever waits, waits for the fleet's word.
    world.machine.consider(MODEL, world.plan(), world.decision(world.plan()), sha_of(2))
    newest = world.newest()
    if state is not State.PLANNED:
        newest = world.until(state)
    world.machine.work() if state is State.DOWNLOADING else None
    world.order = plan(order="hold", sequence=2)
    world.machine._watches.used_s(newest)
    world.awake_s += used_s
    world.run()
    assert world.ends() == [("install", 2, "timed-out", "deadline")]
    assert world.told()[-1][1] == "timed_out"
    world.close()


def test_a_download_that_hangs_ends_at_its_deadline(tmp_path: Path) -> None:
    limits = Deadlines(download_s=100.0, handover_s=1.0, verdict_s=1.0)
    world = World(tmp_path, "good", limits)
    world.until(State.DOWNLOADING)
    world.files.waits = True
    world.machine._watches.used_s(world.newest())
    world.awake_s = 99.999
    thread = threading.Thread(target=world.machine.work)
    thread.start()
    assert world.files.begun.wait(60.0)
    world.awake_s = 100.0
    thread.join(60.0)
    world.machine.work()
    assert world.ends() == [("install", 2, "timed-out", "deadline")]
    assert not world.machine._interrupted.is_set()
    world.close()


def test_time_that_is_used_up_stays_so_over_starts(tmp_path: Path) -> None:
    world = World(tmp_path, "good")
    world.until(State.FOLLOWING)
    world.runtime.change(releases=world.runtime.state()["releases"])
    world.machine.work()
    world.awake_s += TICK_S + 5
    world.machine.work()
    assert world.newest().used_s == pytest.approx(TICK_S + 5)
    world.close()
    again = World(tmp_path, "good")
    again.machine.resume()
    assert again.newest().used_s == pytest.approx(TICK_S + 5 + START_S)
    again.close()


def test_a_download_that_hangs_does_not_hold_up_other_models(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.until(State.DOWNLOADING)
    other = world.updates.add(dataclasses.replace(world.newest(), model="other"))
    monkeypatch.setattr(machine, "SLICE_S", 0.0)
    world.files.waits = True
    world.machine.work()
    assert world.files.begun.is_set()
    assert [each.state for each in world.updates.except_in(FINAL)] == [State.DOWNLOADING] * 2
    assert other in world.updates.of_model("other")
    assert not world.machine._interrupted.is_set()


def test_a_download_makes_way_for_a_look_at_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, "good")
    world.until(State.DOWNLOADING)
    monkeypatch.setattr(machine, "ALONE_S", 0.0)
    world.files.waits = True
    world.machine.work()
    assert world.newest().state == State.DOWNLOADING
    monkeypatch.undo()
    world.files.waits = False
    world.run()
    assert world.ends() == [("install", 2, "succeeded", "")]
    world.close()
