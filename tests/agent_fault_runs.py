"""Runs one row of the agent's fault table on a real site, and looks whether all promises held."""

import contextlib
import hashlib
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from agent.envelope import unwrap
from agent.errors import AgentError
from agent.messages import JobStatus
from agent.topics import Kind, parse
from edge_runtime import manifest
from edge_runtime.hardware import cpu_facts
from edge_runtime.loading import stated_digest
from edge_runtime.manifest import MANIFEST_FILE
from fleet.repository.rotation import rotate
from fleet.repository.state import now
from tests.agent_site import NAME, STORY_S, Site, key_of, site
from tests.daemons import eventually
from tests.hostile_http import HostileServer, hostile_server, status
from tests.models import save, value

UPDATED: Final = "updated"
"""A release is announced, pulled, judged and committed."""
ROTATED: Final = "rotated"
"""The same; the root changes before, and the rest of the metadata cannot be had at first."""
ABORTED: Final = "aborted"
"""A release that the device is still judging is called off."""

_RANKS: Final = {
    step: rank
    for rank, step in enumerate(
        ("planned", "downloading", "verified", "handing-over", "following", "canceling")
    )
}
_ENDS: Final = {UPDATED: "succeeded", ROTATED: "succeeded", ABORTED: "canceled"}
_ENOUGH: Final = 20
_HAPPENS_S: Final = 60.0
_NUDGE_S: Final = 5.0
_ROWS: Final = 170_000
"""Of the table in each model: large enough to be cut into chunks."""
_MORE: Final = "[telemetry]\ninterval_s = 0\n"
_LONG: Final = {"blocks_min": 4096, "shadow_s": 600.0}


class Row(NamedTuple):
    """One row of the table.

    Attributes:
        points: ``$EDGE_RUNTIME_FAILPOINTS`` of the agent.
        story: What happens meanwhile.
    """

    points: str
    story: str

    @property
    def name(self) -> str:
        """Which failpoint."""
        return self.points.partition("=")[0]

    @property
    def action(self) -> str:
        """What it does."""
        return self.points.partition("=")[2].partition("@")[0]


def large(path: Path, version: int) -> Path:
    """``y = x + 1`` with a table of more than a MiB; two versions share most of its bytes."""
    table = np.random.default_rng(7).random((_ROWS, 2), np.float32)
    table[0] = 1.0
    table[-1000:] = float(version)
    nodes = [
        helper.make_node("Mul", ["x", "zero"], ["nothing"]),
        helper.make_node("ReduceSum", ["nothing"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "place"], ["row"]),
        helper.make_node("Add", ["x", "row"], ["y"]),
    ]
    tensors = [
        numpy_helper.from_array(np.zeros(1, np.float32), "zero"),
        numpy_helper.from_array(table, "table"),
    ]
    return save(path, nodes, [value("x")], [value("y")], tensors)


@dataclass
class FaultSite:
    """A site on which one row follows the other.

    Attributes:
        here: The site.
        web: What stands in for the repository's server.
        story: Which rows it is for.
        version: The newest that was released.
    """

    here: Site
    web: HostileServer
    story: str
    version: int = 1

    # -- one row -------------------------------------------------------------------------------

    def run(self, row: Row) -> None:
        """Go through a row, and look whether every promise held."""
        try:
            self._run(row)
        finally:
            self.here.agent.stop(signal.SIGKILL)

    def _run(self, row: Row) -> None:
        here, agent = self.here, self.here.agent
        self.web.heal()
        heard = len(agent.log())
        if self.story == ROTATED:
            # Before it starts: a look between the two would take the new root over in good order.
            self._act()
        agent.start(row.points)
        if self.story != ROTATED:
            eventually(self._is_up_or_dead, "the agent", STORY_S)
            self._act()
        self._happened(row, heard)
        if row.action == "kill":
            assert agent.process is not None
            assert agent.process.wait(STORY_S) == -signal.SIGKILL
            agent.process = None
        elif row.action == "hang":
            self._serves_on()
            assert here.agent.status()["device"] == NAME
            agent.stop(signal.SIGKILL)  # as the service manager's watchdog would
        self._check_files()
        self.web.heal()
        if agent.process is None:
            agent.start()
            eventually(agent.is_up, "the agent", STORY_S)
        self.ends()
        self._check(heard)
        assert agent.stop() == 0

    def warm_up(self) -> None:
        """Release a version whose chunks the next ones share."""
        self.here.agent.start()
        eventually(self.here.agent.is_up, "the agent", STORY_S)
        self.publish()
        if self.story != ABORTED:
            self.here.reached("succeeded", self.version)
            assert self.here.agent.stop() == 0

    def ends(self) -> None:
        """Wait until the newest version has come to its end, as the fleet hears it.

        After a failure the agent waits for a minute; it is asked to look at once.
        """
        end = _ENDS[self.story]

        def is_over() -> bool:
            if any(each.state.value == end for each in self._statuses()):
                return True
            if time.monotonic() > nudge_s[0]:
                # Not oftener: a look interrupts a download, which goes on after it.
                nudge_s[0] = time.monotonic() + _NUDGE_S
                self._nudge()
            return False

        nudge_s = [0.0]
        shown = len(self.here.agent.log())
        try:
            eventually(is_over, f"{end} of version {self.version}", STORY_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.here.agent.log()[shown:]}") from error

    def _lives(self) -> bool:
        process = self.here.agent.process
        return process is not None and process.poll() is None

    def _is_up_or_dead(self) -> bool:
        with contextlib.suppress(AgentError):  # what is to kill it may be faster
            return bool(self.here.agent.status())
        return not self._lives()

    def _act(self) -> None:
        here = self.here
        if self.story == ROTATED:
            self.web.fault("/metadata/*.snapshot.json", status(500))
            layout, keys = here.repository.layout, here.repository.keys
            folder = here.repository.keys_folder / "offline"
            rotate(layout, "root", keys, folder, passphrase=None, now=now())
            self.publish()
        elif self.story == ABORTED:
            self.publish()
            here.reached("in_progress", self.version)
            eventually(lambda: self._is_at("following"), "the judgement", STORY_S)
            here.plan(self.version, order="abort")
        else:
            self.publish()

    def publish(self) -> None:
        """Release the next version, and announce it."""
        self.version += 1
        name, version = f"bundle-{self.version}", self.version
        folder = self.here.bundle(name, version, make=lambda path: large(path, version))
        self.here.publish(version, folder)

    def _is_at(self, step: str) -> bool:
        return any(each.step == step for each in self._statuses())

    def _happened(self, row: Row, heard: int) -> None:
        agent = self.here.agent
        text = f"failpoint {row.name}: {row.action}"
        try:
            eventually(lambda: text in agent.log()[heard:], text, _HAPPENS_S)
        except AssertionError as error:
            asked = self.web.paths()[-12:]
            try:
                shown: object = agent.status()
            except AgentError as away:
                shown = away
            log = agent.log()[heard:]
            raise AssertionError(f"{error}\n{asked}\n{shown}\n{log}") from error

    def _nudge(self) -> None:
        """Ask for a look at once: after a failure of the disk, the agent waits for a minute."""
        with contextlib.suppress(AgentError):  # the look may be what fails
            self.here.agent.ask("check-now")

    def _serves_on(self) -> None:
        traffic = self.here.device.traffic
        asked = len(traffic.asked)
        eventually(lambda: len(traffic.asked) > asked + _ENOUGH, "more answers", STORY_S)

    # -- promises ------------------------------------------------------------------------------

    def _check_files(self) -> None:
        """What has its final name is whole, at every moment."""
        for path in (self.here.agent.state / "blobs").iterdir():
            if path.suffix or not path.is_file():
                continue
            with contextlib.suppress(FileNotFoundError):  # nobody needs it any more
                assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name

    def _check(self, heard: int) -> None:
        here = self.here
        standing = here.device.status()
        statuses = self._statuses()
        last = statuses[-1]
        if self.story == ABORTED:
            assert standing.active in {None, 1}
        else:
            digest = self._digest()
            assert standing.active == self.version
            assert standing.running_digest == digest
            assert (last.running_version, last.running_digest) == (self.version, digest)
            releases = [each for each in standing.releases if each.version == self.version]
            assert [each.state for each in releases] == ["committed"]
        self._serves_on()
        assert here.device.traffic.faults() == []
        self._check_reports(statuses)
        self._check_files()
        log = here.agent.log()[heard:]
        assert "Traceback" not in log, log

    def _digest(self) -> str:
        """What the daemon must say that it runs: nothing else than what was released."""
        path = self.here.device.folder / f"bundle-{self.version}" / MANIFEST_FILE
        described = manifest.read(path.read_bytes(), str(path))
        return stated_digest(described.variants[0], cpu_facts())

    def _check_reports(self, statuses: list[JobStatus]) -> None:
        end = _ENDS[self.story]
        steps = [each.step for each in statuses]
        ends = [each.state.value for each in statuses if each.step not in _RANKS]
        assert ends, steps
        assert set(ends) == {end}, steps
        ranks = [_RANKS.get(step, len(_RANKS)) for step in steps]
        assert ranks == sorted(ranks), steps
        self._check_numbers()

    def _check_numbers(self) -> None:
        key = key_of(self.here.agent)
        said: dict[tuple[str, int], tuple[str, bytes]] = {}
        for topic, data in self.here.operator.everything():
            parsed = parse(topic)
            if parsed is None or parsed.kind not in {Kind.JOB, Kind.BIRTH, Kind.REPORTED}:
                continue
            envelope, payload = unwrap(parsed, data, {key.key_id: key.public_key})
            number = (envelope.boot_id, envelope.seq)
            assert said.setdefault(number, (topic, payload)) == (topic, payload)

    def _statuses(self) -> list[JobStatus]:
        """Give the statuses of the newest version in the order in which they came."""
        key = key_of(self.here.agent)
        found: dict[tuple[str, int], JobStatus] = {}
        for topic, data in self.here.operator.everything():
            parsed = parse(topic)
            if parsed is None or parsed.kind is not Kind.JOB:
                continue
            envelope, payload = unwrap(parsed, data, {key.key_id: key.public_key})
            status = msgspec.json.decode(payload, type=JobStatus)
            if status.version == self.version:
                found.setdefault((envelope.boot_id, envelope.seq), status)
        return list(found.values())


@contextlib.contextmanager
def fault_site(folder: Path, story: str) -> Iterator[FaultSite]:
    """Run a site on which rows of one story can follow each other; the agent is not started."""
    more = _LONG if story == ABORTED else {}
    with (
        site(folder, _MORE, device_more=more) as here,
        hostile_server(here.repository.folder) as web,
    ):
        here.agent.look_at(web.url)
        # The repository's own file is always the newest root; a device is shipped with one.
        shipped = Path(shutil.copy(here.repository.root, folder / "shipped-root.json"))
        text = here.agent.config.read_text("utf-8")
        text = text.replace(str(here.repository.root), str(shipped))
        here.agent.config.write_text(text, "utf-8")
        made = FaultSite(here, web, story)
        if story != ABORTED:
            made.warm_up()
        yield made
