"""A device for the update machine: agent.db and decisions are real, the ports are fakes on disk.

The fakes keep everything in one folder, so that a process that is killed can be followed by another
one. ``python -m tests.agent_updates FOLDER SCENARIO`` goes a scenario to its
end; ``$EDGE_RUNTIME_FAILPOINTS`` may keep it from it. With failpoint settings behind it, each is
tried in a folder and a process of its own, and where that died, another goes on.
"""

# ruff: noqa: D102 - the ports say what each of these does

import dataclasses
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, Final

from agent.errors import RuntimeAwayError
from agent.plan.decision import Decision, decide
from agent.records.file import RecordsFile
from agent.records.updates import SCHEMA, Update, Updates
from agent.update.deadlines import Deadlines
from agent.update.machine import UpdateMachine
from agent.update.outcomes import RETRY_S
from agent.update.remembered import model_facts
from agent.update.states import State
from edge_runtime import failpoints
from fleet.documents.plan import Plan
from tests.agent_plans import NOW_S, device, plan, plans, release
from tests.agent_ports import MODEL, Files, Outbox, Runtime

ROUNDS_MAX: Final = 60
DEADLINES: Final = Deadlines(download_s=1e6, handover_s=1e6, verdict_s=1e6)


def sha_of(version: int) -> str:
    return f"{version:064x}"


class World:
    """One device, whose processes may die.

    Args:
        folder: Its disk.
        scenario: What the fleet and the runtime do.
        deadlines: Of the machine.
    """

    def __init__(self, folder: Path, scenario: str, deadlines: Deadlines = DEADLINES) -> None:
        self.file = RecordsFile(folder / "agent.db", [SCHEMA])
        self.updates = Updates(self.file)
        self.runtime = Runtime(folder)
        self.files = Files(folder)
        self.outbox = Outbox(folder, self.runtime)
        self.scenario = scenario
        self.now_s = NOW_S
        self.awake_s = 0.0
        self.facts: dict[str, Any] = {}
        self.changes_per_day_max = 0
        if scenario == "bad":
            self.runtime.verdicts[2] = ("rolled-back", "verdict")
        if scenario == "refused":
            self.runtime.refuses = (400, "this bundle is not for this device")
        if scenario == "late":
            deadlines = dataclasses.replace(deadlines, verdict_s=0.0)
        self.machine = UpdateMachine(
            updates=self.updates,
            downloads=self.files,
            device=self.runtime,
            plans=self,
            reports=self.outbox,
            deadlines=deadlines,
            now_s=lambda: self.now_s,
            elapsed_s=lambda: self.now_s,
            awake_s=lambda: self.awake_s,
        )
        self.order: Plan | None = None

    def close(self) -> None:
        self.file.close()

    def plan(self) -> Plan:
        """Give the fleet's plan: a function of how far the device is."""
        if self.order is not None:
            return self.order
        state = self.runtime.state()
        states = {each["version"]: each["state"] for each in state["releases"]}
        was_canary = states.get(2, "installed") not in {"installed", "self-testing"}
        if self.scenario == "aborted" and was_canary:
            return plan(order="abort", sequence=2)
        if self.scenario == "newer" and was_canary:
            return plan(rollout="digits-3", version=3, sequence=2)
        if self.scenario == "reverted" and was_canary and states[2] != "canary":
            return plan(order="revert", revert_to=1, sequence=2)
        return plan()

    def decision(self, order: Plan) -> Decision:
        facts = model_facts(
            self.updates,
            self.runtime.standing(order.model),
            order,
            min_counter=0,
            elapsed_s=self.now_s,
        )
        given = {"now_s": self.now_s, **self.facts}
        known = dataclasses.replace(
            device(**given),
            models={order.model: facts},
            changes={order.model: self.updates.times.changes(order.model, self.now_s)},
        )
        return decide(
            known,
            order,
            plans(order),
            release(
                version=order.version,
                counter=order.version,
                changes_per_day_max=self.changes_per_day_max,
            ),
            sha_of(order.version),
            back=release(version=1, counter=1),
        )

    def look(self, update: Update) -> Decision | None:
        return self.decision(self.plan()) if update.model == MODEL else None

    def round(self, *, is_runtime_busy: bool = False) -> float | None:
        """Do what the worker does once; then the runtime goes a step further, if it is not busy."""
        order = self.plan()
        try:
            decision = self.decision(order)
        except RuntimeAwayError:
            is_stored = False
        else:
            self.machine.heed()
            is_stored = self.machine.consider(MODEL, order, decision, sha_of(order.version))
        pause = self.machine.work()
        if is_runtime_busy:
            return pause
        is_letting_go = any(each.state == State.CANCELING for each in self.updates.of_model(MODEL))
        if is_stored and pause != RETRY_S and not is_letting_go:
            # A device whose disk fails is slow; so is this runtime, or a scenario would be another.
            self.runtime.progress()
        self.machine.look()
        return pause if is_stored else 0.0

    def run(self) -> None:
        """Go on until there is nothing to do."""
        self.machine.resume()
        for _ in range(ROUNDS_MAX):
            if self.round() is None and self.machine.work() is None:
                return
        raise AssertionError(f"no end after {ROUNDS_MAX} rounds: {self.ends()}")

    def until(self, state: State) -> Update:
        """Go on until the newest update is in a state."""
        for _ in range(ROUNDS_MAX):
            self.round()
            if self.newest().state == state:
                return self.newest()
        raise AssertionError(f"never {state}: {self.ends()}")

    def rounds(self, count: int) -> None:
        """Go on for a while."""
        for _ in range(count):
            self.round()

    def newest(self) -> Update:
        """Give the newest update."""
        return self.updates.of_model(MODEL)[0]

    def ends(self) -> list[tuple[str, int, str, str]]:
        """Give every update: kind, version, state and code, oldest first."""
        return [
            (each.kind, each.version, each.state, each.code)
            for each in reversed(self.updates.of_model(MODEL))
        ]

    def told(self) -> list[tuple[int, str, str, str]]:
        """Give what the fleet was told, without what was said twice: version and words."""
        said: dict[tuple[int, str], list[tuple[int, str, str, str]]] = {}
        for _, status in self.outbox.statuses():
            line = (
                status["version"],
                status["state"],
                status.get("step", ""),
                status.get("reason", ""),
            )
            lines = said.setdefault((status["version"], status["details"]["order"]), [])
            if line not in lines[-1:]:
                lines.append(line)
        return [line for lines in said.values() for line in lines]

    def orders(self) -> list[str]:
        """Give what the runtime was ordered; an abort, or what is refused, may come twice."""
        orders: list[str] = self.runtime.state()["orders"]
        return [
            each
            for n, each in enumerate(orders)
            if each.startswith(("stage", "revert")) or each not in orders[:n]
        ]


def main() -> None:
    """Go a scenario to its end, once or with one failpoint setting after the other."""
    folder, scenario, *settings = sys.argv[1:]
    if not settings:
        _go(Path(folder), scenario)
    for n, setting in enumerate(settings):
        place = Path(folder, str(n))
        place.mkdir()
        is_killed = _in_a_process(place, scenario, setting)
        if is_killed and _in_a_process(place, scenario, ""):
            raise AssertionError(f"{setting}: the second process died, too")
        print(json.dumps([setting, is_killed]))  # noqa: T201 - for the test that started this


def _go(folder: Path, scenario: str) -> None:
    world = World(folder, scenario)
    world.run()
    world.close()


def _in_a_process(folder: Path, scenario: str, setting: str) -> bool:
    """Tell whether it was killed."""
    child = os.fork()
    if child == 0:
        try:
            failpoints._set = failpoints.parse(setting)  # type: ignore[misc]
            _go(folder, scenario)
        except BaseException:  # noqa: BLE001 - the child ends here, whatever it is
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert status == 0, f"{setting}: failed in {folder}"
    return False


if __name__ == "__main__":
    main()
