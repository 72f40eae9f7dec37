"""What the fleet is told is what runs, at the end and after it."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import (
    StateError,
)
from agent.update.following import NOT_RUNNING_S
from agent.update.states import State
from fleet.documents.plan import Stage
from tests.agent_plans import DAY_S, plan
from tests.agent_ports import MODEL
from tests.agent_updates import World, sha_of


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, "good")
    yield made
    made.close()


def test_a_report_that_the_disk_does_not_take_is_made_later(world: World) -> None:
    world.outbox.raises = [StateError("full")] * 2
    world.run()
    assert world.ends() == [("install", 2, "succeeded", "")]
    assert world.told()[-1][1:3] == ("succeeded", "succeeded")
    assert world.updates.unreported() == []


def test_a_success_that_a_person_undid_before_it_could_be_told_is_not_told_as_one(
    world: World,
) -> None:
    while world.ends() != [("install", 2, "succeeded", "")]:
        world.outbox.raises = [StateError("full")] * 9
        world.round()
    world.outbox.raises.clear()
    world.runtime.end("rolled-back", "operator", active=1)
    world.runtime.change(previous=None, override="rollback")
    world.rounds(3)
    assert "succeeded" not in {step for _, _, step, *_ in world.told()}
    assert world.ends() == [("install", 2, "fell-back", "operator")]
    assert world.told()[-1][2] == "fell-back"
    assert world.updates.unreported() == []


def test_what_a_device_must_not_take_is_rejected_once(world: World) -> None:
    world.facts = {"agent_version": ""}
    world.runtime.change(active=3)
    for sequence in (1, 2, 3):
        world.order = plan(sequence=sequence)
        world.rounds(3)
    assert world.ends() == [("install", 2, "rejected", "downgrade")]
    assert [line[1:] for line in world.told()] == [("rejected", "rejected", "downgrade")]


def test_a_device_that_is_not_meant_says_nothing(world: World) -> None:
    world.runtime.change(active=3)
    world.order = plan(stages=(Stage(permyriad=0),))
    world.rounds(3)
    assert world.ends() == []
    assert world.outbox.statuses() == []


def test_a_version_that_is_committed_and_not_in_memory_is_told_as_such(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing = world.runtime.standing
    monkeypatch.setattr(
        world.runtime,
        "standing",
        lambda model: dataclasses.replace(standing(model), running_digest=""),
    )
    world.until(State.FOLLOWING)
    world.rounds(5)
    assert (world.newest().state, world.newest().code) == (State.FOLLOWING, "not-in-memory")
    world.awake_s += NOT_RUNNING_S
    world.rounds(1)
    assert world.ends() == [("install", 2, "succeeded", "not-in-memory")]


def test_a_commit_that_runs_something_else_is_no_success(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing = world.runtime.standing
    monkeypatch.setattr(
        world.runtime,
        "standing",
        lambda model: dataclasses.replace(standing(model), running_digest="another"),
    )
    world.until(State.FOLLOWING)
    world.rounds(5)
    world.awake_s += NOT_RUNNING_S
    world.rounds(1)
    assert world.ends() == [("install", 2, "failed", "other-digest")]


@pytest.mark.parametrize(
    ("state", "cause", "active", "code"),
    [
        ("rolled-back", "operator", 1, "operator"),
        ("rolled-back", "crashed", 1, "crashed"),
        ("rolled-back", "crashed", None, "crashed"),
        ("committed", "", 7, "replaced"),
        ("committed", "", None, "fell-back"),
    ],
)
def test_a_version_that_falls_back_after_its_success_is_told(
    world: World, state: str, cause: str, active: int | None, code: str
) -> None:
    world.run()
    world.runtime.end(state, cause, active=active)
    world.order = plan(order="hold", sequence=2)
    world.rounds(3)
    assert world.ends() == [("install", 2, "fell-back", code)]
    running, last = world.outbox.statuses()[-1]
    assert (last["state"], last["step"], last["reason"]) == ("failed", "fell-back", code)
    assert running == active
    assert len([1 for _, each in world.outbox.statuses() if each["step"] == "fell-back"]) == 1


def test_the_same_plan_is_not_tried_again_after_a_fall_back(world: World) -> None:
    world.run()
    world.runtime.end("rolled-back", "operator", active=1)
    world.rounds(3)
    assert world.ends() == [("install", 2, "fell-back", "operator")]
    assert world.orders() == ["stage 2"]
    world.order = plan(sequence=2)
    world.run()
    assert world.ends()[-1] == ("install", 2, "succeeded", "")


def test_a_person_s_release_is_waited_for(world: World) -> None:
    world.until(State.VERIFIED)
    world.runtime.change(
        releases=[{"id": 1, "version": 9, "state": "staged", "manifest_sha256": sha_of(9)}]
    )
    world.machine.work()
    assert (world.newest().state, world.newest().code) == (State.VERIFIED, "local-release")
    assert world.orders() == []


def test_an_agent_that_lost_its_records_follows_what_it_had_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, "good")
    world.until(State.FOLLOWING)
    world.close()
    (tmp_path / "agent.db").unlink()
    again = World(tmp_path, "good")
    with monkeypatch.context() as patch:
        patch.setattr(again.runtime, "progress", lambda: None)
        again.until(State.FOLLOWING)
    again.run()
    assert again.ends() == [("install", 2, "succeeded", "")]
    assert again.orders() == ["stage 2"]
    again.close()


def test_a_local_hold_at_the_last_moment_is_no_failure(world: World) -> None:
    world.until(State.HANDING_OVER)
    world.runtime.refuses = (403, "a hold stands")
    state = world.runtime.state()
    world.runtime.change(override="")
    standing = world.runtime.standing
    looks = iter((False, False, True))

    def late(model: str) -> object:
        found = standing(model)
        return dataclasses.replace(found, override="hold") if next(looks, True) else found

    world.runtime.standing = late  # type: ignore[method-assign, assignment]
    world.machine.work()
    assert (world.newest().state, world.newest().code) == (State.VERIFIED, "local-hold")
    assert world.runtime.state()["releases"] == state["releases"]


def test_a_change_counts_at_the_hand_over_and_once(world: World) -> None:
    world.run()
    assert world.updates.times.changes(MODEL, world.now_s) == (world.now_s,)
    assert world.updates.times.changes(MODEL, world.now_s + DAY_S) == (world.now_s,)
