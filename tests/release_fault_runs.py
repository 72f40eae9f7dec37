"""Runs one row of the fault table against a real daemon, and looks whether all promises held."""

import http.client
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from edge_runtime.protocol.release_schemas import COMMITTED, ENDINGS, Release
from tests.bad_models import slow
from tests.daemons import eventually
from tests.mixed_bundles import brought, mixed
from tests.models import add_constant
from tests.release_device import STEP_S, Device, Truth, bundle
from tests.release_promises import check_history, check_store

POWER: Final = "boot_id=another"
"""A daemon that starts with this finds that the device was switched off meanwhile."""
ENOUGH: Final = 25
"""Right answers after which nobody doubts that requests are answered."""
DISABLED: Final = "disabled"
_UNAVAILABLE: Final = 503


class Row(NamedTuple):
    """One promise.

    Attributes:
        points: What goes wrong, where: ``$EDGE_RUNTIME_FAILPOINTS``.
        plan: What is going on meanwhile; see ``PLANS``.
        ends: State and cause in which the release ends, in words of the history; ``disabled``
            stands for a rolled back first release.
        power: Whether the power was cut when the daemon died.
        alone: Whether the release ends although something hangs for ever; else the daemon is told
            to stop, and the next one goes on.
    """

    points: str
    plan: str
    ends: str
    power: bool = False
    alone: bool = False

    @property
    def action(self) -> str:
        """What happens at the failpoint."""
        return self.points.partition("=")[2].partition("@")[0].partition(":")[0]

    @property
    def shown(self) -> str:
        """Name of the row."""
        more = " power cut" if self.power else " alone" if self.alone else ""
        return f"{self.points} {self.plan}{more}"


class Plan(NamedTuple):
    """What goes on while something goes wrong.

    Attributes:
        version: That is released.
        settings: Of the device.
        bundles: Prepares what is released, in the row's folder.
        act: Does all that people do, from wherever it stands; called again after a restart.
        is_first: Whether nothing is served before.
        before: What happens before anything goes wrong.
        is_quiet: Whether nobody asks meanwhile.
    """

    version: int
    act: Callable[["Run"], None]
    settings: Mapping[str, Any]
    bundles: Callable[[Path], None]
    is_first: bool = False
    before: Callable[["Run"], None] | None = None
    is_quiet: bool = False

    @property
    def is_asked(self) -> bool:
        """Whether requests come all the time."""
        return not (self.is_first or self.is_quiet)


class Run:
    """One row, as it happens.

    Args:
        row: The row.
        folder: For all its files.
    """

    def __init__(self, row: Row, folder: Path) -> None:
        self.row = row
        self.folder = folder
        self.plan = PLANS[row.plan]
        self.may_be_refused = row.action in {"error", "full"}
        self.restarts = 0
        self.cut_off: Exception | None = None
        self.plan.bundles(folder)
        seed = None
        if not self.plan.is_first:
            seed = add_constant(folder / "seed" / "model.onnx", 1.0, note="seed")
        now = "" if self.plan.before else row.points
        self.device = Device(folder, seed=seed, failpoints=now, **self.plan.settings)

    def go(self) -> Truth:
        """Go through it, and give what the device says at the end."""
        with self.device as device:
            if not self.plan.is_asked:
                device.is_up.clear()
            device.begin_traffic()
            if self.plan.before:
                self.plan.before(self)
                device.restart(failpoints=self.row.points)
            if self.row.action == "hang":
                self._through_a_hang()
            else:
                self._through()
            truth = device.truth()
            self._check_ends(truth)
            check_history(truth)
            self._check_serves(truth)
            check_store(device, truth, self.restarts)
            assert not device.traffic.faults(), device.traffic.faults()[:3]
            log = device.daemon.log()
            assert "Traceback" not in log, log
            return truth

    # -- going through it ----------------------------------------------------------------------

    def _through(self) -> None:
        try:
            self.plan.act(self)
        except (OSError, http.client.HTTPException, AssertionError):
            if self.row.action != "kill":
                raise
            self._after_a_kill()
        else:  # what is over for people may go on beside
            eventually(self.has_happened, self.row.points, STEP_S)
            if self.row.action == "kill":
                self._after_a_kill()
        assert self.has_happened(), self.device.daemon.log()

    def _after_a_kill(self) -> None:
        device = self.device
        device.died()
        self.restarts += 1
        points = POWER if self.row.power else ""
        device.restart(failpoints=points, serves=self.plan.is_asked)
        self.may_be_refused = False
        self.plan.act(self)

    def _through_a_hang(self) -> None:
        device = self.device
        acting = threading.Thread(target=self._act_until_it_ends, daemon=True)
        acting.start()
        eventually(self.has_happened, f"{self.row.points}", STEP_S)
        if self.plan.is_asked:
            self.serves_on()
        status = device.status_of_all()
        if self.row.points.startswith(("release.", "journal.")):
            eventually(self._is_told, "the reason", STEP_S)
        assert status.models or self.row.points.startswith(("store.", "journal."))
        if self.row.alone:
            acting.join(STEP_S)
            assert not acting.is_alive(), "it does not end"
            if self.cut_off is not None:
                raise self.cut_off
            return
        self.restarts += 1
        device.restart(signal.SIGTERM, serves=self.plan.is_asked)
        acting.join(STEP_S)
        self.plan.act(self)

    def _act_until_it_ends(self) -> None:
        try:
            self.plan.act(self)
        except (OSError, http.client.HTTPException, AssertionError) as error:
            self.cut_off = error  # it hangs: that is what it is about

    def _is_told(self) -> bool:
        status = self.device.status_of_all()
        waits = [each.waits_for for model in status.models for each in model.releases]
        return any("the disk has not answered" in text for text in [status.problem, *waits])

    def has_happened(self) -> bool:
        """Tell whether what was to go wrong went wrong."""
        point = self.row.points.partition(",")[0]
        name = point.partition("=")[0]
        return f"failpoint {name}: {self.row.action}" in self.device.daemon.log()

    def serves_on(self) -> None:
        """Wait until enough requests that begin from now on are answered."""
        now_s, traffic = time.monotonic(), self.device.traffic
        eventually(lambda: sum(traffic.by_version(now_s).values()) >= ENOUGH, "answers", STEP_S)

    # -- what people do ------------------------------------------------------------------------

    def staged(self, version: int, **more: Any) -> Release:  # noqa: ANN401 - of the request
        """Stage a version, again if it was refused because the disk failed; it may be there."""
        device = self.device
        present = device.release(version)
        if present is not None:
            return present
        path = self.folder / f"bundle-{version}"
        if self.may_be_refused:
            answer = device.post("/admin/releases", {"path": str(path), **more})
            if answer.status != http.client.OK:
                self.may_be_refused = False
                self.refused = answer.body.decode()
                if self.plan.is_asked:
                    self.serves_on()
                check_store(device, None, 1)
        return device.release(version) or device.stage(path, **more)

    def ended(self, version: int) -> None:
        """Wait for the end of a release."""
        self.device.ended(version)

    # -- promises ------------------------------------------------------------------------------

    def _check_ends(self, truth: Truth) -> None:
        last = truth.status.releases[0]
        assert last.version == self.plan.version, truth.status
        found = f"{last.state} {last.cause}".strip()
        ends = self.row.ends
        if ends == DISABLED:
            assert truth.status.disabled, truth.status
            found = DISABLED
        assert found == ends, f"{found}: {last.reason}\n{self.device.daemon.log()}"

    def _check_serves(self, truth: Truth) -> None:
        device, status = self.device, truth.status
        if status.disabled:
            answer = device.ask()
            assert answer.status == _UNAVAILABLE, answer
            assert "rolled back" in answer.shown, answer
            return
        device.is_up.set()
        self.serves_on()
        version = str(status.active or 1)
        now_s = time.monotonic()
        self.serves_on()
        assert device.traffic.by_version(now_s).keys() == {version}
        last = status.releases[0]
        is_it = last.version == status.active
        assert (status.running_digest == last.digest) == is_it, status
        assert is_it == (last.state == COMMITTED), status


# -- plans ---------------------------------------------------------------------------------------


def _bundle(*versions: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for version in versions:
            bundle(folder / f"bundle-{version}", version)

    return make


def _wrong_and_good(folder: Path) -> None:
    bundle(folder / "bundle-2", 2, lambda path: add_constant(path, 7.0))
    bundle(folder / "bundle-3", 3)


def _long_tested(folder: Path) -> None:
    bundle(folder / "bundle-2", 2, lambda path: slow(path, 64, 1024))


def _with_two_variants(folder: Path) -> None:
    mixed(folder / "whole")
    brought(folder / "whole", folder / "bundle-2", "model.onnx", "golden.npz")


def _good(run: Run) -> None:
    run.staged(run.plan.version)
    run.ended(run.plan.version)


def _by_hand(run: Run) -> None:
    run.staged(2, mode="manual")
    if run.device.reach(2, "staged", *_FURTHER).state == "staged":
        run.device.order("promote")
    run.ended(2)


def _collected(run: Run) -> None:
    """One that fails its self-test is removed from the disk; the next one is good."""
    run.staged(2)
    run.ended(2)
    eventually(lambda: run.has_happened() or run.restarts > 0, run.row.points, STEP_S)
    if run.row.action == "kill" and not run.restarts:
        run.device.died()
        raise AssertionError
    run.staged(3)
    run.ended(3)


def _second(run: Run) -> None:
    """Version 2 is released before, so that the active version lies in the store."""
    run.staged(2, mode="manual")
    run.device.reach(2, "staged")
    run.device.order("promote")
    run.ended(2)


def _partly(run: Run) -> None:
    """Version 2 waits for a person, without the variant that this CPU cannot run."""
    run.staged(2, mode="manual")
    run.device.reach(2, "staged")


def _filled(run: Run) -> None:
    """What was left out comes; then a person lets version 2 go on."""
    if run.device.reach(2, "staged", *_FURTHER).state == "staged":
        order = {"path": str(run.folder / "whole"), "mode": "manual"}
        answer = run.device.post("/admin/releases", order)
        if run.may_be_refused and answer.status != http.client.OK:
            run.may_be_refused = False
            answer = run.device.post("/admin/releases", order)
        assert answer.status == http.client.OK, answer.body
        files = run.device.daemon.state / "store" / "models" / "m" / "2"
        assert (files / "other.bin").is_file()
        run.device.order("promote")
    run.ended(2)


def _back_from(state: str, mode: str = "automatic") -> Callable[[Run], None]:
    def act(run: Run) -> None:
        run.staged(2, mode=mode)
        found = run.device.reach(2, state, "rolling-back", "rolled-back", *_after(state))
        if state in {"probation", "committed"} and found.state == "staged":
            run.device.order("promote")
            found = run.device.reach(2, state, "rolling-back", "rolled-back")
        if found.state == state:
            _wait_for_traffic(run, state)
            run.device.order("rollback", reason="a person said so")
        run.device.reach(2, "rolled-back")

    return act


def _wait_for_traffic(run: Run, state: str) -> None:
    """Wait until the candidate has answered, or cannot because of the fault."""
    if state in {"canary", "probation"} and not run.restarts:
        traffic = run.device.traffic
        eventually(lambda: run.has_happened() or "2" in traffic.by_version(), "its answer", STEP_S)


def _after(state: str) -> tuple[str, ...]:
    return ("staged",) if state in {"probation", "committed"} else ()


_FURTHER: Final = ("probation", "rolling-back", *ENDINGS)
_STRICT: Final = {"on_inconclusive": "roll-back", "canary_s": 30.0, "probation_s": 3.0}
_LONG: Final = {"blocks_min": 4096, "shadow_s": 600.0, "canary_s": 600.0, "probation_s": 600.0}

PLANS: Final[Mapping[str, Plan]] = {
    # A good version over the one that the configuration names.
    "good": Plan(2, _good, {}, _bundle(2)),
    # The same over a version that was released before.
    "next": Plan(3, _good, {}, _bundle(2, 3), before=_second),
    # The same where a step that comes to its deadline would be the end of it.
    "strict": Plan(2, _good, _STRICT, _bundle(2)),
    # The same where nobody asks anything, so that every step goes on to its deadline.
    "quiet": Plan(2, _good, {"shadow_s": 0.5, "canary_s": 0.3}, _bundle(2), is_quiet=True),
    # The same with little time for the self-test.
    "brief": Plan(2, _good, {"self_test_s": 8.0}, _bundle(2)),
    # Blue/green: staged, then promoted by hand.
    "promote": Plan(2, _by_hand, {}, _bundle(2)),
    # Variants that were left out are brought while it waits.
    "filled": Plan(2, _filled, {}, _with_two_variants, before=_partly),
    # The first version ever on a device that serves nothing.
    "first": Plan(1, _good, {"probation_s": 1.0}, _bundle(1), is_first=True),
    # A version that fails its self-test leaves the disk; then comes a good one.
    "collect": Plan(3, _collected, {"keep_versions": 0}, _wrong_and_good),
    # A rollback by hand, in each state.
    "back from self-testing": Plan(2, _back_from("self-testing"), _LONG, _long_tested),
    "back from staged": Plan(2, _back_from("staged", "manual"), _LONG, _bundle(2)),
    "back from shadowing": Plan(2, _back_from("shadowing"), _LONG, _bundle(2)),
    "back from canary": Plan(2, _back_from("canary"), {**_LONG, "shadow_s": 0}, _bundle(2)),
    "back from probation": Plan(2, _back_from("probation", "manual"), _LONG, _bundle(2)),
    "back from committed": Plan(2, _back_from("committed", "manual"), {}, _bundle(2)),
}
