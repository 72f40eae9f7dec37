"""What the agent takes while nothing happens: memory, wakes, CPU time, and what a look costs.

The agent is the installed one, connected to a real broker, after an update of a daemon that runs.
The repository is the fleet's own, on loopback.
"""

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from agent.control import Question, ask
from agent.errors import AgentError
from agent.topics import Topics
from benchmarks.agent_download import serving
from benchmarks.agent_outbox import broker
from benchmarks.bench import Bench
from benchmarks.cases import DIGITS
from benchmarks.footprint import cpu_s, memory, wakes_per_s
from benchmarks.results import Entry, Fact, Outcome, at_most, spread
from benchmarks.servers import Command, ServerError, environment, ours, spawned, started
from fleet.repository.addition import NewRelease, add_release
from fleet.repository.creation import NewRepository, create
from fleet.repository.key_files import Keys
from fleet.repository.layout import Layout
from fleet.repository.plans import set_plan
from fleet.repository.state import now

TABLE: Final = "A look at the repository when nothing is new"
POLLED: Final = "over HTTP"
ANNOUNCED: Final = "announced over MQTT"
_FLEET: Final = "bench"
_DEVICE: Final = "dev-1"
_HOST: Final = "127.0.0.1"
_LOOKS: Final = 20
_MEMORY_MB: Final = 60.0
_IDLE_PERCENT: Final = 0.2
"""Of one core: 120 ms of CPU time in a minute, a batch of telemetry included."""
_WAIT_S: Final = 120.0
_POLL_S: Final = 0.02
_PROBES: Final = 3
_RELEASE: Final = {
    "release.block_s": "0.1",
    "release.blocks_min": "4",
    "release.shadow_s": "2.0",
    "release.canary_s": "0.5",
    "release.probation_s": "0.5",
}
_CONFIG: Final = """\
state_dir = "{folder}/agent"
[device]
id = "{device}"
fleet = "{fleet}"
clock_is_trusted = "yes"
[runtime]
admin_socket = "{folder}/d/a.sock"
poll_s = 0.5
[repository]
url = "{url}"
root = "{root}"
doorbell_jitter_s = 0
[downloads]
reserve_bytes = 0
[[mqtt.brokers]]
host = "{host}"
port = {port}
tls = false
"""


@dataclass(frozen=True)
class _Site:
    """An agent that has made an update.

    Attributes:
        pid: Of the agent.
        socket: Its control socket.
        timestamp: What is announced.
        port: Of the broker.
    """

    pid: int
    socket: Path
    timestamp: bytes
    port: int

    def status(self) -> dict[str, Any]:
        """Ask how it does."""
        found: dict[str, Any] = ask(self.socket, Question("status"), 10.0)
        return found


def agent_row(bench: Bench) -> Outcome:
    """Measure an agent that is connected and idle, then its looks at the repository."""
    outcome = Outcome()
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None:
        outcome.notes.append("mosquitto is not installed: the agent was not measured.")
        return outcome
    with _site(bench, program) as site:
        time.sleep(bench.plan.settle_s)
        _idle(bench, site, outcome)
        bench.tick()
        for name, look in ((POLLED, _polled), (ANNOUNCED, _announced)):
            outcome.entries.append(Entry(TABLE, {"how": name, **_cost(site, look)}))
            bench.tick()
    outcome.notes.append(
        "The agent had updated a model before, and sends telemetry every minute. CPU time of a "
        "look includes the question whether plans have another meaning now, asked of the daemon."
    )
    return outcome


def _idle(bench: Bench, site: _Site, outcome: Outcome) -> None:
    """Watch it for minutes: what it does once a minute must not be missed, nor counted for all."""
    before_s, began_s = cpu_s(site.pid), time.monotonic()
    window_s = bench.plan.agent_idle_s / _PROBES
    wakes = spread([wakes_per_s(site.pid, window_s) for _ in range(_PROBES)])
    busy_s, elapsed_s = cpu_s(site.pid) - before_s, time.monotonic() - began_s
    percent = busy_s / elapsed_s * 100
    found = memory(site.pid)
    name = "edge-agent"
    outcome.facts.extend(
        [
            Fact("memory (PSS), connected and idle", name, "MB", spread([found.pss_mb])),
            Fact("memory (RSS), connected and idle", name, "MB", spread([found.rss_mb])),
            Fact(f"CPU time in {elapsed_s:.0f} s of idleness", name, "s", spread([busy_s])),
            Fact("the same, of one core", name, "%", spread([percent])),
            Fact("wakes while idle", name, "per s", wakes),
        ]
    )
    outcome.targets.extend(
        [
            at_most("memory (PSS) of the agent", found.pss_mb, _MEMORY_MB, "MB"),
            at_most("CPU time of the idle agent", percent, _IDLE_PERCENT, "% of one core"),
            at_most("wakes of the idle agent", wakes.median, 2, "per s"),
        ]
    )


def _cost(site: _Site, look: Callable[[_Site], None]) -> dict[str, Any]:
    costs_ms, sizes = [], []
    for _ in range(_LOOKS):
        before_s = cpu_s(site.pid)
        look(site)
        time.sleep(_POLL_S)
        costs_ms.append((cpu_s(site.pid) - before_s) * 1000)
        sizes.append(float(site.status()["repository"]["fetched_bytes"]))
    return {"CPU time (ms)": spread(costs_ms), "bytes": spread(sizes)}


def _polled(site: _Site) -> None:
    ask(site.socket, Question("check-now"), _WAIT_S)


def _announced(site: _Site) -> None:
    before_s = site.status()["repository"]["checked_s"]
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect(_HOST, site.port)
    client.loop_start()
    topic = Topics(_FLEET, _DEVICE).announcement
    client.publish(topic, site.timestamp, qos=1, retain=True).wait_for_publish(_WAIT_S)
    client.disconnect()
    client.loop_stop()
    _until(lambda: site.status()["repository"]["checked_s"] > before_s, "a look")


def _until(condition: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + _WAIT_S
    while not condition():
        if time.monotonic() > end_s:
            raise ServerError(f"{what} did not come in {_WAIT_S:.0f} s")
        time.sleep(_POLL_S)


@contextmanager
def _site(bench: Bench, program: str) -> Iterator[_Site]:
    folder = bench.scratch / f"agent-{time.monotonic_ns()}"
    folder.mkdir()
    daemon = ours({DIGITS: bench.model(DIGITS)}, folder / "d", _RELEASE)
    try:
        layout = _repository(bench, folder)
        with (
            started(daemon, bench.scratch),
            broker(program, folder) as port,
            serving(layout.folder) as url,
        ):
            config = folder / "agent.toml"
            names = {"device": _DEVICE, "fleet": _FLEET, "host": _HOST, "root": layout.root}
            config.write_text(_CONFIG.format(folder=folder, url=url, port=port, **names), "utf-8")
            script = Path(sys.executable).with_name("edge-agent")
            arguments = [str(script), "run", "--config", str(config)]
            agent = Command("edge-agent", arguments, environment(), 0, ())
            with spawned(agent, folder / "agent.log") as running:
                timestamp = (layout.metadata / "timestamp.json").read_bytes()
                site = _Site(running.pid, folder / "agent" / "agent.sock", timestamp, port)
                _until(lambda: _is_updated(site), "the update")
                yield site
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_updated(site: _Site) -> bool:
    with contextlib.suppress(AgentError):
        found = site.status()
        active = found["runtime"]["models"].get(DIGITS, {}).get("active")
        is_over = active == 2 and found["updates"] == []
        return is_over and bool(found["broker"]["is_connected"])
    return False


def _repository(bench: Bench, folder: Path) -> Layout:
    layout, keys = Layout(folder / "repository"), folder / "keys"
    create(layout, keys, NewRepository(fleet=_FLEET), passphrase=None, now=now())
    model, bundle = folder / "next.onnx", folder / "bundle"
    # A doc_string (field 6 of ModelProto): another digest, the same model.
    model.write_bytes(bench.model(DIGITS).read_bytes() + bytes((0x32, 1)) + b"2")
    script = Path(sys.executable).with_name("edge-runtime")
    command = [str(script), "bundle", "create", str(model), "--name", DIGITS]
    command += ["--version", "2", "-o", str(bundle)]
    subprocess.run(command, env=environment(), capture_output=True, check=True)
    signing = Keys([keys])
    add_release(layout, bundle, NewRelease(allow_unsigned=True), signing, now=now())
    plan = {"rollout": "r2", "model": DIGITS, "version": 2, "stages": [{"permyriad": 10_000}]}
    set_plan(layout, "stable", plan, signing, now=now())
    return layout
