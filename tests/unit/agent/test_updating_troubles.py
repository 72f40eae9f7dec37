"""The thread of updates when something does not work: what it says, and that it goes on."""

from typing import cast

import pytest

from agent.errors import AgentError, ConfigError, StateError
from agent.troubles import Trouble
from agent.updating import NOT_FOLLOWED, Updating
from tests.updating_world import WITHIN_S, Looking, World, running, until


def test_why_plans_cannot_be_followed_is_said_when_it_begins_when_it_changes_and_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    looking = Looking("a")
    looking.error = StateError("the disk fails")
    world = World(looking)

    def said() -> list[str]:
        return [text for text in caplog.messages if NOT_FOLLOWED in text]

    def decide(updating: Updating, times: int = 1) -> None:
        for _ in range(times):
            before = looking.count
            updating.decide_again()
            until(lambda before=before: looking.count > before)  # type: ignore[misc]

    with running(world) as updating:
        decide(updating, 5)
        assert said() == ["plans cannot be followed now: the disk fails"]
        looking.error = StateError("it fails otherwise")
        decide(updating, 5)
        assert said()[1:] == [
            "plans cannot be followed now, since 1970-01-01T00:16:40Z: it fails otherwise"
        ]
        until(lambda: updating.shown.plans_trouble == Trouble("it fails otherwise", 1000.0))
        looking.error = None
        decide(updating, 3)
        until(lambda: updating.shown.plans_trouble is None)
    assert said()[2:] == [
        "this is over, it began at 1970-01-01T00:16:40Z: plans cannot be followed now"
    ]


def test_a_fault_at_one_models_plan_keeps_no_other_model_from_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    looking = Looking("a", "b", "c")
    world = World(looking)
    world.machine.faulty = "a"
    with running(world) as updating:
        for number in range(1, 4):
            updating.decide_again()
            until(lambda number=number: world.machine.considered.count("c") >= number)  # type: ignore[misc]
        assert world.machine.turns > 0  # what is under way goes on
        world.machine.faulty = None
        updating.decide_again()
        until(lambda: "a" in world.machine.considered)
    assert caplog.text.count("the plan for a is not followed by a fault") == 1
    assert "ZeroDivisionError" in caplog.text


def test_a_wrong_setting_is_refused_in_a_sentence_said_once_and_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    world.source.error = ConfigError("there is no file ca.pem; see `ca` in [repository]")
    with running(world) as updating:
        for _ in range(3):
            assert "ca.pem" in updating.check_now(WITHIN_S).problem
        world.source.error = None
        assert updating.check_now(WITHIN_S).problem == ""
    assert caplog.text.count("ca.pem") == 1
    assert world.distrusted == []


def test_the_same_fault_again_and_again_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    with running(world) as updating:
        world.source.error = cast("AgentError", ZeroDivisionError())
        for _ in range(3):
            before = len(world.source.asked)
            updating.ring()
            until(lambda before=before: len(world.source.asked) > before)  # type: ignore[misc]
        world.source.error = None
        assert updating.check_now(WITHIN_S).problem == ""
    assert caplog.text.count("nobody foresaw") == 1


def test_a_fault_in_taking_up_what_was_under_way_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    world.machine.begins_badly = True
    with running(world) as updating:
        assert updating.check_now(WITHIN_S).problem == ""
    assert "nobody foresaw" in caplog.text
