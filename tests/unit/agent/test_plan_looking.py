"""Every model's plan is decided about by itself: what is wrong with one holds up no other."""

# ruff: noqa: D102 - the ports say what each of these does

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from agent.clock import Clock
from agent.clone_condition import CloneCondition
from agent.device.conditions import Conditions
from agent.device.plans import PlanLooking
from agent.elapsed_time import ElapsedTime
from agent.errors import (
    AgentError,
    ConfigError,
    Distrust,
    RuntimeAwayError,
    StateError,
    TrustError,
)
from agent.pause import Pause
from agent.records import elapsed, floors, updates
from agent.records.file import RecordsFile
from agent.settings.device import Device
from agent.settings.device import Updates as UpdateSettings
from agent.telemetry.host import Host
from agent.trust.verified import MANIFEST, Artifact, VerifiedRelease
from agent.update.standing import Standing
from edge_runtime.hardware import CpuFacts
from fleet.documents.plan import Plans
from tests.agent_plans import DAY_S, NOW_S, SHA, plan, plans, release

if TYPE_CHECKING:
    from agent.device.runtime import Runtime
    from agent.trust.repository import Repository

MODELS = ("a", "b", "c")


class Signed:
    """What is believed: version 2 of three models, planned for every device.

    Attributes:
        raises: What it raises when it is asked for the release of a model.
    """

    def __init__(self) -> None:
        self.raises: dict[str, BaseException] = {}

    def plans(self, _channel: str) -> Plans:
        return plans(*(plan(model=model, rollout=f"{model}-2") for model in MODELS))

    def release(self, model: str, version: int) -> VerifiedRelease:
        if model in self.raises:
            raise self.raises[model]
        manifest = Artifact(MANIFEST, 1, SHA, MANIFEST)
        facts = release(model=model, version=version, counter=version)
        return VerifiedRelease(facts, {MANIFEST: manifest})

    def min_counter(self, _model: str) -> int:
        return 0

    def is_fresh(self) -> bool:
        return True


class Daemon:
    """A daemon on which version 1 of everything runs."""

    is_away = False

    def standings(self) -> dict[str, Standing]:
        if self.is_away:
            raise RuntimeAwayError("nobody answers")
        return {model: Standing(active=1) for model in MODELS}

    def standing(self, model: str) -> Standing:
        return self.standings()[model]


class World:
    """Decisions with real records; the repository and the daemon are made up."""

    def __init__(self, folder: Path) -> None:
        schemas = [updates.SCHEMA, floors.SCHEMA, elapsed.SCHEMA]
        self.file = RecordsFile(folder / "agent.db", schemas)
        self.signed, self.daemon = Signed(), Daemon()
        clock = Clock(floors.Floors(self.file), "yes", system=lambda: NOW_S, built_s=NOW_S - DAY_S)
        self.looking = PlanLooking(
            "stable",
            cast("Repository", self.signed),
            cast("Runtime", self.daemon),
            updates.Updates(self.file),
            Conditions(
                Device(id="gate-7", fleet="farm"),
                UpdateSettings(),
                reserve_bytes=0,
                cpu=CpuFacts("x86_64", frozenset({"avx2"}), vnni=False, description="a CPU"),
                host=lambda: Host(memory_bytes=1 << 30, disk_free_bytes=1 << 30),
                clock=clock,
                pause=Pause(folder),
                clone=CloneCondition(folder),
            ),
            ElapsedTime(elapsed.Elapsed(self.file), lambda: NOW_S),
        )

    def actions(self) -> dict[str, tuple[str, str]]:
        """Give what follows for each model: action and text."""
        return {
            outlook.model: (outlook.decision.action.kind, outlook.decision.action.text)
            for outlook in self.looking.outlooks()
            if outlook.decision is not None
        }


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.file.close()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "error",
    [
        TrustError(Distrust.MALFORMED, "its release was written by a newer program"),
        ConfigError("there is no `root`"),
        AgentError("something else"),
        KeyError("manifest.json"),
        RecursionError("a document that nobody foresaw"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_one_models_plan_that_raises_holds_that_model_and_stops_no_other(
    world: World, model: str, error: BaseException
) -> None:
    world.signed.raises[model] = error
    found = world.actions()
    assert {each: kind for each, (kind, _) in found.items()} == {
        each: "hold" if each == model else "install" for each in MODELS
    }
    assert str(error) in found[model][1]
    # The same for whoever asks about one model alone.
    alone = world.looking.outlook(model).decision
    assert alone is not None
    assert alone.action.kind == "hold"
    world.signed.raises.clear()
    assert {kind for kind, _ in world.actions().values()} == {"install"}


def test_a_fault_at_a_model_is_logged_once_with_its_traceback(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.signed.raises["b"] = KeyError("manifest.json")
    for _ in range(5):
        world.actions()
    assert caplog.text.count("nothing can be decided about b") == 1
    assert caplog.text.count("Traceback") == 1
    world.signed.raises.clear()
    world.actions()
    world.signed.raises["b"] = KeyError("manifest.json")
    world.actions()
    assert caplog.text.count("nothing can be decided about b") == 2


def test_a_disk_or_a_daemon_that_is_gone_is_no_single_models_trouble(world: World) -> None:
    world.signed.raises["b"] = StateError("the disk fails")
    with pytest.raises(StateError, match="the disk fails"):
        world.looking.outlooks()
    world.signed.raises.clear()
    world.daemon.is_away = True
    with pytest.raises(RuntimeAwayError, match="nobody answers"):
        world.looking.outlooks()
