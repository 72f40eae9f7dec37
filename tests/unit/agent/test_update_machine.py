"""What happens to an update when something is in its way."""

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from agent.errors import (
    AgentError,
    BudgetError,
    ConfigError,
    Distrust,
    NetworkError,
    RefusedError,
    RuntimeRefusedError,
    StateError,
    TrustError,
)
from agent.plan.decision import Decision
from agent.records.updates import Update
from agent.update.reporting import WAITS_MAX
from agent.update.states import State
from agent.update.steps import LOSSES_MAX
from fleet.documents.plan import Stage, Window
from tests.agent_plans import decided, plan
from tests.agent_ports import MODEL
from tests.agent_updates import World, sha_of


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, "good")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NetworkError("no route"), "network"),
        (BudgetError("the month's bytes are spent"), "budget"),
        (StateError("the disk is full"), "disk"),
        (TrustError(Distrust.WRONG_HASH, "not what was signed"), "distrust-wrong-hash"),
        (RuntimeRefusedError(503, "later"), "runtime-busy"),
        (ConfigError("there is no file ca.pem; see `ca` in [repository]"), "configuration"),
    ],
)
def test_what_may_pass_is_waited_for_told_once_and_gone_on_with(
    world: World, error: AgentError, code: str
) -> None:
    world.files.raises = [error] * 5
    world.run()
    assert world.ends() == [("install", 2, "succeeded", "")]
    assert [line for line in world.told() if line[3] == code] == [
        (2, "in_progress", "downloading", code)
    ]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RefusedError(404, "there is no such file"), "download-refused"),
        (RuntimeRefusedError(400, "its signature is wrong"), "runtime-refused"),
    ],
)
def test_what_is_refused_is_not_asked_for_again(world: World, error: AgentError, code: str) -> None:
    world.files.raises = [error]
    world.run()
    assert world.ends() == [("install", 2, "failed", code)]
    world.order = plan(sequence=2)
    world.run()
    assert world.ends()[-1] == ("install", 2, "succeeded", "")


def test_a_link_that_flaps_makes_no_flood_of_reports(world: World) -> None:
    world.files.raises = [
        error for _ in range(20) for error in (NetworkError("gone"), BudgetError("spent"))
    ]
    world.rounds(45)
    waits = [status for _, status in world.outbox.statuses() if status.get("reason")]
    assert len(waits) == WAITS_MAX


def test_a_fault_at_one_update_is_raised_when_the_others_had_their_turn(tmp_path: Path) -> None:
    class Both(World):
        """A world in which the fleet wants two models."""

        def look(self, _update: Update) -> Decision | None:
            return decided()

    world = Both(tmp_path, "good")
    for model in (MODEL, "other"):
        order = plan(model=model)
        assert world.machine.consider(model, order, decided(), sha_of(2))
    world.machine.work()
    world.files.raises = [cast("AgentError", ZeroDivisionError("a fault"))]
    with pytest.raises(ZeroDivisionError, match="a fault"):
        world.machine.work()
    states = {model: world.updates.of_model(model)[0].state for model in (MODEL, "other")}
    assert states == {MODEL: State.DOWNLOADING, "other": State.VERIFIED}
    world.close()


def test_an_absent_runtime_is_waited_for(world: World) -> None:
    world.until(State.VERIFIED)
    world.runtime.is_away = True
    world.rounds(5)
    assert world.newest().state == State.VERIFIED
    assert world.newest().code == "runtime-away"
    world.runtime.is_away = False
    world.run()
    assert world.ends() == [("install", 2, "succeeded", "")]


def test_the_plan_is_looked_at_again_before_the_hand_over(world: World) -> None:
    world.until(State.VERIFIED)
    world.order = plan(window=Window(begin="22:00", end="23:00", zone="utc"))
    world.rounds(3)
    held = world.newest()
    assert (held.state, held.code) == (State.VERIFIED, "window-closed")
    assert world.orders() == []
    world.now_s += 14.5 * 3600
    world.run()
    assert world.ends() == [("install", 2, "succeeded", "")]
    assert world.files.fetched == 1


def test_a_hold_between_the_decision_and_the_hand_over_still_holds(world: World) -> None:
    world.until(State.HANDING_OVER)
    world.order = plan(order="hold", sequence=2)
    world.rounds(3)
    assert (world.newest().state, world.newest().code) == (State.VERIFIED, "order-hold")
    assert world.orders() == []


def test_a_device_that_leaves_the_cohort_before_the_hand_over_gives_up(world: World) -> None:
    world.until(State.VERIFIED)
    world.order = plan(sequence=2, stages=(Stage(permyriad=0),))
    world.rounds(2)
    assert world.ends() == [("install", 2, "canceled", "not-in-cohort")]


def test_what_the_runtime_has_is_followed_though_the_plan_is_gone(world: World) -> None:
    world.until(State.FOLLOWING)
    assert world.machine.consider(MODEL, None, None, "")
    assert world.newest().state == State.FOLLOWING
    world.run()
    assert world.ends() == [("install", 2, "succeeded", "")]


def test_a_download_ends_with_its_plan(world: World) -> None:
    world.until(State.DOWNLOADING)
    assert world.machine.consider(MODEL, None, None, "")
    assert world.ends() == [("install", 2, "canceled", "no-plan")]


def test_a_newer_plan_stops_a_download_at_once(world: World) -> None:
    world.until(State.DOWNLOADING)
    world.files.waits = True
    thread = threading.Thread(target=world.machine.work)
    thread.start()
    assert world.files.begun.wait(60.0)
    world.machine.interrupt()
    thread.join(60.0)
    assert not thread.is_alive()
    assert world.newest().state == State.DOWNLOADING
    world.files.waits = False
    world.order = plan(rollout="digits-3", version=3, sequence=2)
    world.run()
    assert world.ends() == [
        ("install", 2, "canceled", "superseded"),
        ("install", 3, "succeeded", ""),
    ]


def test_files_that_are_lost_are_downloaded_again_but_not_for_ever(world: World) -> None:
    for _ in range(LOSSES_MAX):
        world.until(State.HANDING_OVER)
        world.files.lose()
        world.until(State.DOWNLOADING)
    world.until(State.HANDING_OVER)
    world.files.lose()
    world.run()
    assert world.ends() == [("install", 2, "failed", "lost")]


def test_a_start_looks_whether_the_files_are_there(world: World) -> None:
    world.until(State.VERIFIED)
    world.files.lose()
    world.machine.resume()
    assert (world.newest().state, world.newest().code) == (State.DOWNLOADING, "lost")
    world.run()
    assert world.ends() == [("install", 2, "succeeded", "")]


def test_an_unknown_state_is_canceled_and_the_runtime_lets_go(world: World) -> None:
    following = world.until(State.FOLLOWING)
    world.updates.store(dataclasses.replace(following, state="of-a-newer-agent"))
    world.order = plan(order="hold", sequence=2)
    world.run()
    assert world.ends() == [("install", 2, "canceled", "unknown-state")]
    assert world.orders() == ["stage 2", "abort 2"]


def test_a_commit_before_an_abort_arrives_is_a_success(world: World) -> None:
    world.until(State.FOLLOWING)
    for _ in range(3):
        world.runtime.progress()
    world.order = plan(order="abort", sequence=2)
    world.rounds(3)
    assert world.ends() == [("install", 2, "succeeded", "")]


def test_a_plan_that_contradicts_itself_is_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.until(State.VERIFIED)
    with monkeypatch.context() as patch:

        def distrust(_plan: object) -> Decision:
            raise TrustError(Distrust.MALFORMED, "two manifests")

        patch.setattr(world, "decision", distrust)
        world.machine.work()
    assert (world.newest().state, world.newest().code) == (State.VERIFIED, "distrust-malformed")
    world.run()
    assert world.ends() == [("install", 2, "succeeded", "")]


def test_an_aborted_rollout_begins_its_stages_anew(world: World) -> None:
    world.until(State.DOWNLOADING)
    seen_s = world.now_s
    world.now_s += 1000
    world.order = plan(order="abort", sequence=2)
    world.rounds(2)
    world.now_s += 1000
    seen = world.updates.times.see_stage(MODEL, 2, "digits-2", 0, world.now_s)
    assert seen == {0: seen_s + 2000}
