"""What happens to an update when something is in its way."""

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import (
    AgentError,
    BudgetError,
    Distrust,
    NetworkError,
    RefusedError,
    RuntimeRefusedError,
    StateError,
    TrustError,
)
from agent.plan.decision import Decision
from agent.records.updates import Update
from agent.update import machine
from agent.update.deadlines import START_S, TICK_S, WAIT_S, Deadlines
from agent.update.following import NOT_RUNNING_S
from agent.update.reporting import WAITS_MAX
from agent.update.states import FINAL, State
from agent.update.steps import LOSSES_MAX
from fleet.documents.plan import Stage, Window
from tests.agent_plans import DAY_S, plan
from tests.agent_updates import MODEL, World, sha_of


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, "good")
    yield made
    made.close()


def _until(world: World, state: State) -> Update:
    for _ in range(30):
        world.round()
        newest = world.updates.of_model(MODEL)[0]
        if newest.state == state:
            return newest
    raise AssertionError(f"never {state}: {world.ends()}")


def _rounds(world: World, count: int) -> None:
    for _ in range(count):
        world.round()


def _newest(world: World) -> Update:
    return world.updates.of_model(MODEL)[0]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NetworkError("no route"), "network"),
        (BudgetError("the month's bytes are spent"), "budget"),
        (StateError("the disk is full"), "disk"),
        (TrustError(Distrust.WRONG_HASH, "not what was signed"), "distrust-wrong-hash"),
        (RuntimeRefusedError(503, "later"), "runtime-busy"),
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
    _rounds(world, 45)
    waits = [status for _, status in world.outbox.statuses() if status.get("reason")]
    assert len(waits) == WAITS_MAX


def test_an_absent_runtime_is_waited_for(world: World) -> None:
    _until(world, State.VERIFIED)
    world.runtime.is_away = True
    _rounds(world, 5)
    assert _newest(world).state == State.VERIFIED
    assert _newest(world).code == "runtime-away"
    world.runtime.is_away = False
    world.run()
    assert world.ends() == [("install", 2, "succeeded", "")]


def test_the_plan_is_looked_at_again_before_the_hand_over(world: World) -> None:
    _until(world, State.VERIFIED)
    world.order = plan(window=Window(begin="22:00", end="23:00", zone="utc"))
    _rounds(world, 3)
    held = _newest(world)
    assert (held.state, held.code) == (State.VERIFIED, "window-closed")
    assert world.orders() == []
    world.now_s += 14.5 * 3600
    world.run()
    assert world.ends() == [("install", 2, "succeeded", "")]
    assert world.files.fetched == 1


def test_a_hold_between_the_decision_and_the_hand_over_still_holds(world: World) -> None:
    _until(world, State.HANDING_OVER)
    world.order = plan(order="hold", sequence=2)
    _rounds(world, 3)
    assert (_newest(world).state, _newest(world).code) == (State.VERIFIED, "order-hold")
    assert world.orders() == []


def test_a_device_that_leaves_the_cohort_before_the_hand_over_gives_up(world: World) -> None:
    _until(world, State.VERIFIED)
    world.order = plan(sequence=2, stages=(Stage(permyriad=0),))
    _rounds(world, 2)
    assert world.ends() == [("install", 2, "canceled", "not-in-cohort")]


def test_what_the_runtime_has_is_followed_though_the_plan_is_gone(world: World) -> None:
    _until(world, State.FOLLOWING)
    assert world.machine.consider(MODEL, None, None, "")
    assert _newest(world).state == State.FOLLOWING
    world.run()
    assert world.ends() == [("install", 2, "succeeded", "")]


def test_a_download_ends_with_its_plan(world: World) -> None:
    _until(world, State.DOWNLOADING)
    assert world.machine.consider(MODEL, None, None, "")
    assert world.ends() == [("install", 2, "canceled", "no-plan")]


def test_a_newer_plan_stops_a_download_at_once(world: World) -> None:
    _until(world, State.DOWNLOADING)
    world.files.waits = True
    thread = threading.Thread(target=world.machine.work)
    thread.start()
    assert world.files.begun.wait(30)
    world.machine.interrupt()
    thread.join(30)
    assert not thread.is_alive()
    assert _newest(world).state == State.DOWNLOADING
    world.files.waits = False
    world.order = plan(rollout="digits-3", version=3, sequence=2)
    world.run()
    assert world.ends() == [
        ("install", 2, "canceled", "superseded"),
        ("install", 3, "succeeded", ""),
    ]


def test_files_that_are_lost_are_downloaded_again_but_not_for_ever(world: World) -> None:
    for _ in range(LOSSES_MAX):
        _until(world, State.HANDING_OVER)
        world.files.lose()
        _until(world, State.DOWNLOADING)
    _until(world, State.HANDING_OVER)
    world.files.lose()
    world.run()
    assert world.ends() == [("install", 2, "failed", "lost")]


def test_a_start_looks_whether_the_files_are_there(world: World) -> None:
    _until(world, State.VERIFIED)
    world.files.lose()
    world.machine.resume()
    assert (_newest(world).state, _newest(world).code) == (State.DOWNLOADING, "lost")
    world.run()
    assert world.ends() == [("install", 2, "succeeded", "")]


def test_an_unknown_state_is_canceled_and_the_runtime_lets_go(world: World) -> None:
    following = _until(world, State.FOLLOWING)
    world.updates.store(dataclasses.replace(following, state="of-a-newer-agent"))
    world.order = plan(order="hold", sequence=2)
    world.run()
    assert world.ends() == [("install", 2, "canceled", "unknown-state")]
    assert world.orders() == ["stage 2", "abort 2"]


def test_a_commit_before_an_abort_arrives_is_a_success(world: World) -> None:
    _until(world, State.FOLLOWING)
    for _ in range(3):
        world.runtime.progress()
    world.order = plan(order="abort", sequence=2)
    _rounds(world, 3)
    assert world.ends() == [("install", 2, "succeeded", "")]


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
    newest = _newest(world)
    if state is not State.PLANNED:
        newest = _until(world, state)
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
    _until(world, State.DOWNLOADING)
    world.files.waits = True
    world.machine._watches.used_s(_newest(world))
    world.awake_s = 99.999
    thread = threading.Thread(target=world.machine.work)
    thread.start()
    assert world.files.begun.wait(30)
    world.awake_s = 100.0
    thread.join(30)
    world.machine.work()
    assert world.ends() == [("install", 2, "timed-out", "deadline")]
    assert not world.machine._interrupted.is_set()
    world.close()


def test_time_that_is_used_up_stays_so_over_starts(tmp_path: Path) -> None:
    world = World(tmp_path, "good")
    _until(world, State.FOLLOWING)
    world.runtime.change(releases=world.runtime.state()["releases"])
    world.machine.work()
    world.awake_s += TICK_S + 5
    world.machine.work()
    assert _newest(world).used_s == pytest.approx(TICK_S + 5)
    world.close()
    again = World(tmp_path, "good")
    again.machine.resume()
    assert _newest(again).used_s == pytest.approx(TICK_S + 5 + START_S)
    again.close()


def test_a_report_that_the_disk_does_not_take_is_made_later(world: World) -> None:
    world.outbox.raises = [StateError("full")] * 2
    world.run()
    assert world.ends() == [("install", 2, "succeeded", "")]
    assert world.told()[-1][1:3] == ("succeeded", "succeeded")
    assert world.updates.unreported() == []


def test_a_download_that_hangs_does_not_hold_up_other_models(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _until(world, State.DOWNLOADING)
    other = world.updates.add(dataclasses.replace(_newest(world), model="other"))
    monkeypatch.setattr(machine, "SLICE_S", 0.0)
    world.files.waits = True
    world.machine.work()
    assert world.files.begun.is_set()
    assert [each.state for each in world.updates.except_in(FINAL)] == [State.DOWNLOADING] * 2
    assert other in world.updates.of_model("other")
    assert not world.machine._interrupted.is_set()


def test_a_plan_that_contradicts_itself_is_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _until(world, State.VERIFIED)
    with monkeypatch.context() as patch:

        def distrust(_plan: object) -> Decision:
            raise TrustError(Distrust.MALFORMED, "two manifests")

        patch.setattr(world, "decision", distrust)
        world.machine.work()
    assert (_newest(world).state, _newest(world).code) == (State.VERIFIED, "distrust-malformed")
    world.run()
    assert world.ends() == [("install", 2, "succeeded", "")]


def test_an_aborted_rollout_begins_its_stages_anew(world: World) -> None:
    _until(world, State.DOWNLOADING)
    seen_s = world.now_s
    world.now_s += 1000
    world.order = plan(order="abort", sequence=2)
    _rounds(world, 2)
    world.now_s += 1000
    seen = world.updates.see_stage(MODEL, 2, "digits-2", 0, world.now_s, is_trusted=True)
    assert seen == {0: seen_s + 2000}


def test_what_a_device_must_not_take_is_rejected_once(world: World) -> None:
    world.facts = {"agent_version": ""}
    world.runtime.change(active=3)
    for sequence in (1, 2, 3):
        world.order = plan(sequence=sequence)
        _rounds(world, 3)
    assert world.ends() == [("install", 2, "rejected", "downgrade")]
    assert [line[1:] for line in world.told()] == [("rejected", "rejected", "downgrade")]


def test_a_device_that_is_not_meant_says_nothing(world: World) -> None:
    world.runtime.change(active=3)
    world.order = plan(stages=(Stage(permyriad=0),))
    _rounds(world, 3)
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
    _until(world, State.FOLLOWING)
    _rounds(world, 5)
    assert (_newest(world).state, _newest(world).code) == (State.FOLLOWING, "not-in-memory")
    world.awake_s += NOT_RUNNING_S
    _rounds(world, 1)
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
    _until(world, State.FOLLOWING)
    _rounds(world, 5)
    world.awake_s += NOT_RUNNING_S
    _rounds(world, 1)
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
    _rounds(world, 3)
    assert world.ends() == [("install", 2, "fell-back", code)]
    running, last = world.outbox.statuses()[-1]
    assert (last["state"], last["step"], last["reason"]) == ("failed", "fell-back", code)
    assert running == active
    assert len([1 for _, each in world.outbox.statuses() if each["step"] == "fell-back"]) == 1


def test_the_same_plan_is_not_tried_again_after_a_fall_back(world: World) -> None:
    world.run()
    world.runtime.end("rolled-back", "operator", active=1)
    _rounds(world, 3)
    assert world.ends() == [("install", 2, "fell-back", "operator")]
    assert world.orders() == ["stage 2"]
    world.order = plan(sequence=2)
    world.run()
    assert world.ends()[-1] == ("install", 2, "succeeded", "")


def test_a_person_s_release_is_waited_for(world: World) -> None:
    _until(world, State.VERIFIED)
    world.runtime.change(
        releases=[{"id": 1, "version": 9, "state": "staged", "manifest_sha256": sha_of(9)}]
    )
    world.machine.work()
    assert (_newest(world).state, _newest(world).code) == (State.VERIFIED, "local-release")
    assert world.orders() == []


def test_an_agent_that_lost_its_records_follows_what_it_had_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, "good")
    _until(world, State.FOLLOWING)
    world.close()
    (tmp_path / "agent.db").unlink()
    again = World(tmp_path, "good")
    with monkeypatch.context() as patch:
        patch.setattr(again.runtime, "progress", lambda: None)
        _until(again, State.FOLLOWING)
    again.run()
    assert again.ends() == [("install", 2, "succeeded", "")]
    assert again.orders() == ["stage 2"]
    again.close()


def test_a_local_hold_at_the_last_moment_is_no_failure(world: World) -> None:
    _until(world, State.HANDING_OVER)
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
    assert (_newest(world).state, _newest(world).code) == (State.VERIFIED, "local-hold")
    assert world.runtime.state()["releases"] == state["releases"]


def test_a_change_counts_at_the_hand_over_and_once(world: World) -> None:
    world.run()
    assert world.updates.changes(MODEL, world.now_s, is_trusted=True) == (world.now_s,)
    assert world.updates.changes(MODEL, world.now_s + DAY_S, is_trusted=True) == (world.now_s,)
