"""What a release costs while it runs: p99 of a model beside it, and the released model's own."""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.bench import Bench
from benchmarks.cases import DIGITS, THUMBNAIL
from benchmarks.paced import Wait, ask_paced
from benchmarks.results import Fact, Outcome, at_most, percentile, ratios, spread
from benchmarks.servers import Command, ServerError, environment, ours, started
from benchmarks.wire import connect, head, receive
from benchmarks.workload import WrongAnswerError, read_workload

ALONE: Final = "no release"
GOOD: Final = "a release that is committed"
BAD: Final = "a release that is rolled back"
WAYS: Final = (ALONE, GOOD, BAD)

_PER_S: Final = 300
"""Requests to the model beside: a twentieth of what it could answer."""
_RELEASED_PER_S: Final = 20
"""Requests to the released model: its runs take about a tenth of a core."""

_PIECE_S: Final = 0.25  # of the time in which one connection is asked before the end is looked for
_END_S: Final = 120.0
_POLL_S: Final = 0.2  # each question takes the daemon some time, which is not the release's
_ENDS: Final = ("committed", "rolled-back", "failed")
_SETTINGS: Final[Mapping[str, str]] = {
    # So short that every step passes within seconds; the share of a CPU is the default.
    "release.block_s": "0.1",
    "release.blocks_min": "4",
    "release.shadow_s": "2.0",
    "release.weights": "[25, 50, 100]",
    "release.canary_s": "1.0",
    "release.probation_s": "1.0",
}


@dataclass(frozen=True, slots=True)
class Passage:
    """What both models' callers waited during one release, or for as long without one."""

    beside: list[Wait]
    """Of the model that has nothing to do with it."""

    released: list[Wait]
    states: list[str] = field(default_factory=list)
    """The states that were seen, in order."""

    @property
    def p99_ms(self) -> float:
        """Of the model beside it."""
        return percentile([wait.ms for wait in self.beside], 99)


def release_row(bench: Bench) -> Outcome:
    """Measure callers' waits while versions of another model come and go."""
    found: dict[str, list[Passage]] = {way: [] for way in WAYS}
    with _daemon(bench) as device:
        for _ in range(bench.plan.release_rounds):
            for way in WAYS:
                found[way].append(device.passage(way, bench.plan.release_s))
                bench.tick()
    return conclude(found)


def conclude(found: Mapping[str, list[Passage]]) -> Outcome:
    """Put the rounds together.

    Args:
        found: One passage a round, by ``WAYS``.

    Raises:
        WrongAnswerError: A request failed.
    """
    outcome = Outcome()
    alone = [passage.p99_ms for passage in found[ALONE]]
    for way, passages in found.items():
        waits = [wait for passage in passages for wait in (*passage.beside, *passage.released)]
        if any(wait.status != 200 for wait in waits):
            raise WrongAnswerError(f"{way}: not every answer was a success")
        p99 = [passage.p99_ms for passage in passages]
        what = f"{DIGITS} p99, {_PER_S} requests per s, beside {THUMBNAIL}"
        outcome.facts.append(Fact(what, way, "ms", spread(p99)))
        for percent in (50, 99):
            times = [
                percentile([wait.ms for wait in passage.released], percent) for passage in passages
            ]
            what = f"{THUMBNAIL} p{percent}, {_RELEASED_PER_S} requests per s"
            outcome.facts.append(Fact(what, way, "ms", spread(times)))
        if way != ALONE:
            over = ratios(p99, alone)
            target = f"{DIGITS} p99 during {way} of {THUMBNAIL}, over p99 without"
            outcome.facts.append(Fact(target, "paired rounds", "x", over))
            outcome.targets.append(at_most(target, over.median, 1.2, "x"))
    return outcome


class Device:
    """A daemon with two models, one of which gets new versions.

    Args:
        bench: What every row needs.
        command: The daemon.
        admin: Its admin socket.
        folder: For the bundles.
    """

    def __init__(self, bench: Bench, command: Command, admin: str, folder: Path) -> None:
        self._bench = bench
        self._command = command
        self._admin = admin
        self._folder = folder
        self._version = 1

    def passage(self, way: str, alone_s: float) -> Passage:
        """Ask both models for as long as one release takes.

        Args:
            way: One of ``WAYS``.
            alone_s: How long, where there is no release.

        Raises:
            WrongAnswerError: The release does not end as it should.
        """
        bundle = self._bundle() if way != ALONE else None
        over = threading.Event()
        beside: list[Wait] = []
        released: list[Wait] = []
        callers = [
            threading.Thread(target=self._ask, args=(over, *each))
            for each in ((DIGITS, _PER_S, beside), (THUMBNAIL, _RELEASED_PER_S, released))
        ]
        for caller in callers:
            caller.start()
        try:
            if bundle is None:
                states = []
                time.sleep(alone_s)
            else:
                states = self._release(bundle, aborted=way == BAD)
        finally:
            over.set()
            for caller in callers:
                caller.join()
        if not beside or not released:
            raise WrongAnswerError(f"{way}: a model gave no answer while it was measured")
        return Passage(beside, released, states)

    def _ask(self, over: threading.Event, model: str, per_s: float, waits: list[Wait]) -> None:
        workload = read_workload(self._bench.folder, model, "binary")
        try:
            while not over.is_set():
                waits += ask_paced(self._command.address, workload, per_s, _PIECE_S)
        except OSError:
            waits.append(Wait(0, 0.0))  # no success: ``conclude`` says so

    def _release(self, bundle: Path, *, aborted: bool) -> list[str]:
        """Release a version; one that is to be rolled back is aborted at its last weight."""
        self._order("/admin/releases", {"path": str(bundle)})
        states: list[str] = []
        reason = ""
        deadline = time.monotonic() + _END_S
        while not states or states[-1] not in _ENDS:
            if time.monotonic() > deadline:
                raise WrongAnswerError(f"the release did not end; its states were {states}")
            time.sleep(_POLL_S)
            release = self._ask_admin("GET", f"/admin/releases/{THUMBNAIL}")["releases"][0]
            reason = release["reason"]
            if not states or states[-1] != release["state"]:
                states.append(release["state"])
            is_last = release["stage"] == len(release["weights"]) - 1
            if aborted and release["state"] == "canary" and is_last:
                self._order(f"/admin/releases/{THUMBNAIL}/abort", {})
        wanted = "rolled-back" if aborted else "committed"
        if states[-1] != wanted:
            raise WrongAnswerError(f"the release is {states[-1]}, not {wanted}: {reason}")
        return states

    def _order(self, target: str, order: dict[str, Any]) -> None:
        self._ask_admin("POST", target, json.dumps(order).encode())

    def _ask_admin(self, method: str, target: str, body: bytes = b"") -> Any:  # noqa: ANN401 - JSON
        with connect(self._admin) as stream:
            headers = {"Connection": "close"}
            stream.sendall(head(method, target, headers, len(body)) + body)
            answer = receive(stream)
        if answer.status != 200:
            raise WrongAnswerError(f"{method} {target}: {answer.body[:300]!r}")
        return json.loads(answer.body)

    def _bundle(self) -> Path:
        """Make the next version: the same model, with another digest."""
        self._version += 1
        model = self._folder / f"{self._version}.onnx"
        note = str(self._version).encode()
        # A doc_string (field 6 of ModelProto): another digest, the same model.
        model.write_bytes(
            self._bench.model(THUMBNAIL).read_bytes() + bytes((0x32, len(note))) + note
        )
        bundle = self._folder / f"{THUMBNAIL}-{self._version}"
        script = Path(sys.executable).with_name("edge-runtime")
        command = [str(script), "bundle", "create", str(model), "--name", THUMBNAIL]
        command += ["--version", str(self._version), "-o", str(bundle)]
        made = subprocess.run(
            command, env=environment(), capture_output=True, text=True, check=False
        )
        if made.returncode:
            raise ServerError(f"no bundle could be made: {made.stderr}")
        return bundle


@contextmanager
def _daemon(bench: Bench) -> Iterator[Device]:
    """Serve both models, the one to be released from its file at first."""
    folder = bench.scratch / f"r{time.monotonic_ns()}"
    folder.mkdir()
    models = {name: bench.model(name) for name in (DIGITS, THUMBNAIL)}
    command = ours(models, folder / "d", _SETTINGS)
    try:
        with started(command, bench.scratch):
            yield Device(bench, command, str(folder / "d" / "a.sock"), folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
