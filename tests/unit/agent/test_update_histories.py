"""Whatever the fleet, the runtime, the disk and people do, in any order: what always holds."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import BudgetError, NetworkError, RefusedError, StateError
from agent.update.states import FINAL, HANDED_OVER, State
from edge_runtime import failpoints
from tests.agent_plans import plan
from tests.agent_ports import MODEL
from tests.agent_updates import World

POINTS: Final = tuple(name for name in failpoints.NAMES if name.startswith("agent.update."))
HAPPENINGS: Final = (
    *("install 2",) * 3,
    "install 3",
    "hold 2",
    "abort 2",
    "abort 3",
    "revert 2",
    "revert 3",
    *("work",) * 16,
    *("progress",) * 4,
    "look",
    "away",
    "back",
    "restart",
    "network",
    "budget",
    "full",
    "not-found",
    "lose",
    "untold",
    "person holds",
    "person clears",
    "person rolls back",
    "bad 2",
    "day",
    *(f"stumble {name.rpartition('.')[2]}" for name in POINTS),
)


class _Story:
    """One device and what happens to it."""

    def __init__(self, folder: Path, stumble: Callable[[failpoints.Failpoints], None]) -> None:
        self.folder = folder
        self.stumble = stumble
        self.stumbles: list[str] = []
        self.world = World(folder, "good")
        self.world.changes_per_day_max = 4
        self.sequence = 0

    def happen(self, what: str) -> None:
        world = self.world
        kind, _, version = what.partition(" ")
        match kind:
            case "install" | "hold" | "abort" | "revert":
                self.sequence += 1
                back = world.runtime.state()["previous"] or 1
                world.order = plan(
                    rollout=f"digits-{version}",
                    version=int(version),
                    sequence=self.sequence,
                    order=kind,
                    revert_to=back if kind == "revert" else None,
                )
            case "work":
                world.round(is_runtime_busy=True)
            case "progress":
                world.runtime.progress()
            case "look":
                world.machine.look()
            case "away" | "back":
                world.runtime.is_away = kind == "away"
            case "restart":
                self.restart()
            case "network":
                world.files.raises.append(NetworkError("gone"))
            case "budget":
                world.files.raises.append(BudgetError("spent"))
            case "full":
                world.files.raises.append(StateError("full"))
            case "not-found":
                world.files.raises.append(RefusedError(404, "no such file"))
            case "lose":
                world.files.lose()
            case "untold":
                world.outbox.raises.append(StateError("full"))
            case "bad":
                world.runtime.verdicts[int(version)] = ("rolled-back", "verdict")
            case "stumble":
                # The next passage finds the disk failing, and so do those of earlier stumbles.
                self.stumbles.append(f"agent.update.{version}=error@1")
                self.stumble(failpoints.parse(",".join(self.stumbles)))
            case "day":
                world.now_s += 86_401.0
            case _:
                self.person(version)

    def restart(self) -> None:
        old = self.world
        old.close()
        self.world = World(self.folder, "good")
        self.world.order, self.world.now_s = old.order, old.now_s
        self.world.changes_per_day_max = old.changes_per_day_max
        self.world.runtime.verdicts = old.runtime.verdicts
        self.world.machine.resume()

    def person(self, what: str) -> None:
        runtime = self.world.runtime
        state = runtime.state()
        if what == "holds":
            runtime.change(override="hold")
        elif what == "clears":
            runtime.change(override="")
        elif state["previous"] is not None:
            runtime.end("rolled-back", "operator", active=state["previous"])
            runtime.change(previous=None, override="rollback")

    def check(self) -> None:
        world = self.world
        rows = world.updates.of_model(MODEL)
        going = [each for each in rows if each.state not in FINAL]
        assert len([each for each in going if each.state != State.CANCELING]) <= 1
        # What was handed over is at most one release of the runtime for each update.
        orders = Counter(world.runtime.state()["orders"])
        for version in (2, 3):
            handed = [each for each in rows if each.version == version and each.seen_release >= 0]
            assert orders[f"stage {version}"] <= len(handed)
        for active, status in world.outbox.statuses():
            if status["step"] == "succeeded":
                details = status["details"]
                assert active == details.get("back_to", status["version"])
                assert status["running_digest"] == f"digest-{active}"
        changes = world.updates.times.changes(MODEL, world.now_s)
        recent = [at_s for at_s in changes if at_s > world.now_s - 86_400]
        assert len(recent) <= world.changes_per_day_max + 1

    def end(self) -> None:
        """Let everything be well again: then everything ends."""
        world = self.world
        world.runtime.is_away = False
        world.files.raises.clear()
        world.outbox.raises.clear()
        self.happen("abort 2")
        for _ in range(60):
            world.round()
            self.check()
            if not world.updates.except_in(FINAL) and not world.updates.unreported():
                break
        assert world.updates.except_in(FINAL) == []
        assert world.updates.unreported() == []
        assert not {each.state for each in world.updates.of_model(MODEL)} & HANDED_OVER


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(HAPPENINGS), min_size=25, max_size=60))
def test_any_history_is_told_truly_hands_over_once_and_ends(
    tmp_path_factory: pytest.TempPathFactory, happenings: list[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        story = _Story(
            tmp_path_factory.mktemp("story"),
            lambda trap: patch.setattr(failpoints, "_set", trap),
        )
        for what in happenings:
            story.happen(what)
            story.check()
        story.stumble(failpoints.Failpoints())
        story.end()
        story.world.close()
