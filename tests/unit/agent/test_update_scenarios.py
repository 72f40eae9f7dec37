"""What becomes of an update, undisturbed: states, reports, and what the runtime was ordered."""

from pathlib import Path

from agent.update.states import STATUS, State
from tests.agent_updates import World


def _run(folder: Path, scenario: str) -> World:
    world = World(folder, scenario)
    world.run()
    world.close()
    return World(folder, scenario)


def test_a_good_release_succeeds_when_it_is_active_and_runs(tmp_path: Path) -> None:
    world = _run(tmp_path, "good")
    assert world.ends() == [("install", 2, "succeeded", "")]
    assert world.orders() == ["stage 2"]
    assert [line[1:3] for line in world.told()] == [
        ("queued", "planned"),
        ("in_progress", "downloading"),
        ("in_progress", "verified"),
        ("in_progress", "handing-over"),
        ("in_progress", "following"),
        ("succeeded", "succeeded"),
    ]
    _, last = world.outbox.statuses()[-1]
    assert (last["running_version"], last["running_digest"]) == (2, "digest-2")
    assert last["details"]["numbers"] == {"blocks": 16}
    phases = [status["details"].get("phase") for _, status in world.outbox.statuses()]
    assert [phase for phase in phases if phase] == [
        "installed",
        "self-testing",
        "canary",
        "committed",
    ]
    world.close()


def test_success_is_never_told_before_the_version_answers(tmp_path: Path) -> None:
    world = _run(tmp_path, "good")
    for active, status in world.outbox.statuses():
        assert (
            active == (2 if status["state"] == "succeeded" else 1) or status["step"] == "following"
        )
    world.close()


def test_a_release_that_is_rolled_back_failed_and_is_remembered(tmp_path: Path) -> None:
    world = _run(tmp_path, "bad")
    assert world.ends() == [("install", 2, "failed", "verdict")]
    _, last = world.outbox.statuses()[-1]
    assert (last["state"], last["reason"], last["text"]) == ("failed", "verdict", "it disagrees")
    assert (last["running_version"], last["running_digest"]) == (1, "digest-1")
    assert list(world.updates.bad("digits")) == [f"{2:064x}"]
    assert world.decision(world.plan()).action.reason == "remembered-as-bad"
    world.close()


def test_what_the_runtime_refuses_failed_with_its_sentence(tmp_path: Path) -> None:
    world = _run(tmp_path, "refused")
    assert world.ends() == [("install", 2, "failed", "runtime-refused")]
    _, last = world.outbox.statuses()[-1]
    assert last["text"] == "this bundle is not for this device"
    assert world.orders() == ["refused 2"]
    world.close()


def test_an_abort_ends_what_the_runtime_has(tmp_path: Path) -> None:
    world = _run(tmp_path, "aborted")
    assert world.ends() == [("install", 2, "canceled", "abort")]
    assert world.orders() == ["stage 2", "abort 2"]
    assert world.told()[-1][1:3] == ("canceled", "canceled")
    assert world.runtime.state()["active"] == 1
    world.close()


def test_a_newer_plan_takes_the_place_of_what_is_under_way(tmp_path: Path) -> None:
    world = _run(tmp_path, "newer")
    assert world.ends()[0][:3] == ("install", 2, "canceled")
    assert world.ends()[1] == ("install", 3, "succeeded", "")
    assert world.runtime.state()["active"] == 3
    world.close()


def test_a_revert_goes_back_and_is_told(tmp_path: Path) -> None:
    world = _run(tmp_path, "reverted")
    assert world.ends() == [
        ("install", 2, "succeeded", ""),
        ("revert", 2, "succeeded", ""),
    ]
    assert world.orders() == ["stage 2", "revert to 1"]
    _, last = world.outbox.statuses()[-1]
    assert (last["state"], last["running_version"]) == ("succeeded", 1)
    assert last["details"]["order"] == "revert"
    assert last["details"]["back_to"] == 1
    assert len(world.updates.times.changes("digits", world.now_s)) == 2
    world.close()


def test_a_verdict_that_never_comes_times_out_and_the_runtime_lets_go(tmp_path: Path) -> None:
    world = _run(tmp_path, "late")
    assert world.ends() == [("install", 2, "timed-out", "deadline")]
    assert world.orders() == ["stage 2", "abort 2"]
    assert world.told()[-1][1] == "timed_out"
    world.close()


def test_every_state_has_a_word_of_the_fleet() -> None:
    assert set(STATUS) == set(State)
