"""A whole site: a repository that is served, a broker, a device with daemon and agent, an operator.

Everything is real and on loopback; the agent is started through the installed command.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from agent.control import Question, ask
from agent.errors import AgentError
from agent.identity import DeviceKey, device_key
from agent.messages import JobStatus
from agent.topics import Kind, Topics, parse
from edge_runtime.failpoints import VARIABLE
from tests.brokers import Mosquitto, mosquitto
from tests.daemons import eventually
from tests.models import add_constant
from tests.release_device import MODEL, Device, bundle
from tests.repositories import TestRepository, new_repository, served

COMMAND: Final = str(Path(sys.executable).with_name("edge-agent"))
NAME: Final = "till-7"
FLEET: Final = "shop"
STORY_S: Final = 150.0
"""Time within which a story must come to its next turn."""


class Operator:
    """Hears everything on the broker, and announces.

    Attributes:
        heard: Messages by topic, the newest last.
    """

    def __init__(self, broker: Mosquitto) -> None:
        self.heard: dict[str, list[bytes]] = {}
        self._order: list[tuple[str, bytes]] = []
        self._lock = threading.Lock()
        is_listening = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id="operator", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.on_connect = lambda client, *_: client.subscribe("edge/#", qos=1)
        self._client.on_subscribe = lambda *_: is_listening.set()
        self._client.on_message = self._received
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        # What is said before the broker knows that somebody listens is kept for nobody.
        assert is_listening.wait(60.0), "the broker did not let the operator listen"

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()

    def announce(self, timestamp: bytes) -> None:
        """Ring the doorbell."""
        self.publish(Topics(FLEET, NAME).announcement, timestamp, retain=True)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Say something, and wait until the broker has it."""
        said = self._client.publish(topic, payload, qos=1, retain=retain)
        said.wait_for_publish(60.0)
        assert said.is_published(), f"the broker did not take {topic} within a minute"

    def of(self, kind: Kind) -> list[dict[str, Any]]:
        """Give the payloads of one kind from the device, the oldest first."""
        with self._lock:
            found = []
            for topic, messages in self.heard.items():
                parsed = parse(topic)
                if parsed is not None and parsed.kind is kind and parsed.device == NAME:
                    found += [json.loads(each) for each in messages]
        return found

    def everything(self) -> list[tuple[str, bytes]]:
        """Give topic and payload of every message, in the order in which they came."""
        with self._lock:
            return list(self._order)

    def jobs(self) -> list[JobStatus]:
        """Give the job statuses in the order of their numbers, each once."""
        by_number = {
            (each["boot_id"], each["seq"]): msgspec.json.decode(each["payload"], type=JobStatus)
            for each in self.of(Kind.JOB)
        }
        return [by_number[key] for key in sorted(by_number, key=lambda key: key[1])]

    def _received(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        with self._lock:
            self.heard.setdefault(message.topic, []).append(bytes(message.payload))
            self._order.append((message.topic, bytes(message.payload)))


class AgentProcess:
    """The installed ``edge-agent run``.

    Args:
        folder: For its files; short, since sockets have at most 107 bytes.
        config: Text of its configuration but for ``state_dir``.
    """

    def __init__(self, folder: Path, config: str) -> None:
        self.folder = folder
        self.state = folder / "agent"
        self.config = folder / "agent.toml"
        self.config.write_text(f'state_dir = "{self.state}"\n{config}', "utf-8")
        self._log = (folder / "agent.log").open("ab")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, failpoints: str = "") -> None:
        """Start it."""
        clean = {
            key: text
            for key, text in os.environ.items()
            if "EDGE_" not in key and key not in {"STATE_DIRECTORY", "RUNTIME_DIRECTORY"}
        }
        environment = {**clean, VARIABLE: failpoints} if failpoints else clean
        self.process = subprocess.Popen(
            [COMMAND, "run", "--config", str(self.config)], env=environment, stderr=self._log
        )

    def stop(self, sign: signal.Signals = signal.SIGTERM, within_s: float = 60.0) -> int | None:
        """End it."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(sign)
        code = self.process.wait(within_s)
        self.process = None
        return code

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Have it stand still for a block, whatever it is doing."""
        process = self.process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        try:
            # A signal takes a moment; who has ended is not waited for.
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill it if it still runs."""
        self.stop(signal.SIGKILL)
        self._log.close()

    def go_offline(self) -> None:
        """Have it look for the repository where there is none."""
        self.look_at("http://127.0.0.1:9")  # the discard port: nobody listens

    def look_at(self, url: str) -> None:
        """Have it look for the repository elsewhere from its next start on."""
        lines = self.config.read_text("utf-8").splitlines()
        text = "\n".join(f'url = "{url}"' if line.startswith("url =") else line for line in lines)
        self.config.write_text(text, "utf-8")

    def set(self, group: str, line: str) -> None:
        """Put a setting into a group that its configuration has; for its next start."""
        text = self.config.read_text("utf-8")
        assert f"[{group}]\n" in text
        self.config.write_text(text.replace(f"[{group}]\n", f"[{group}]\n{line}\n", 1), "utf-8")

    def log(self) -> str:
        """Give what it wrote."""
        return (self.folder / "agent.log").read_text("utf-8", "replace")

    def ask(self, what: str, model: str = "") -> Any:  # noqa: ANN401 - any JSON
        """Ask it on its socket."""
        return ask(self.state / "agent.sock", Question(what, model), 30.0)

    def status(self) -> dict[str, Any]:
        """Ask how it does."""
        found: dict[str, Any] = self.ask("status")
        return found

    def is_up(self) -> bool:
        """Tell whether it answers."""
        assert self.process is None or self.process.poll() is None, self.log()
        with contextlib.suppress(AgentError):
            return bool(self.status())
        return False

    def command(self, *arguments: str, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run another command with the same configuration."""
        done = subprocess.run(
            [COMMAND, arguments[0], "--config", str(self.config), *arguments[1:]],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert expect is None or done.returncode == expect, done.stderr
        return done


class Site:
    """All of it.

    Attributes:
        repository: What is signed.
        broker: The broker.
        operator: Who hears.
        device: The daemon.
        agent: The agent; not started yet.
    """

    def __init__(
        self,
        repository: TestRepository,
        broker: Mosquitto,
        operator: Operator,
        device: Device,
        agent: AgentProcess,
    ) -> None:
        self.repository = repository
        self.broker = broker
        self.operator = operator
        self.device = device
        self.agent = agent

    def __enter__(self) -> Self:
        return self

    def publish(self, version: int, folder: Path, **plan: Any) -> None:  # noqa: ANN401
        """Release a bundle, plan it for every device, and announce it."""
        self.repository.add(folder)
        self.plan(version, **plan)

    def plan(self, version: int, **plan: Any) -> None:  # noqa: ANN401 - fields of the plan
        """Set the plan, and announce it."""
        self.repository.set_plan(model=MODEL, version=version, **plan)
        self.operator.announce(self.repository.timestamp())

    def bundle(self, name: str, version: int, **more: Any) -> Path:  # noqa: ANN401
        """Write a bundle that gives ``y = x + 1``, unless told otherwise."""
        return bundle(self.device.folder / name, version, **more)

    def reached(self, state: str, version: int) -> JobStatus:
        """Wait until the fleet has heard of a state of a version."""
        found: list[JobStatus] = []

        def heard() -> bool:
            assert self.agent.process is None or self.agent.process.poll() is None
            found[:] = [
                each
                for each in self.operator.jobs()
                if (each.state.value, each.version) == (state, version)
            ]
            return bool(found)

        try:
            eventually(heard, f"{state} of version {version}", STORY_S)
        except AssertionError as error:
            text = f"{error}; heard {self.operator.jobs()}\n{self.agent.log()}"
            raise AssertionError(text) from error
        return found[-1]


@contextlib.contextmanager
def site(
    folder: Path, more: str = "", device_more: Mapping[str, Any] | None = None
) -> Iterator[Site]:
    """Run a site whose daemon serves version 1 of the model under traffic.

    Args:
        folder: For all files.
        more: More of the agent's configuration, as TOML.
        device_more: What ``Device`` takes.
    """
    seed = add_constant(folder / "seed" / "model.onnx", 1.0, note="seed")
    (folder / "origin").mkdir()
    (folder / "broker").mkdir()
    repository = new_repository(folder / "origin", fleet=FLEET)
    with (
        served(repository),
        mosquitto(folder / "broker") as broker,
        Device(folder, seed=seed, **(device_more or {})) as device,
    ):
        device.begin_traffic()
        operator = Operator(broker)
        agent = AgentProcess(device.daemon.folder, _config(repository, broker, device, more))
        try:
            yield Site(repository, broker, operator, device, agent)
        finally:
            operator.close()
            agent.close()


def _config(repository: TestRepository, broker: Mosquitto, device: Device, more: str) -> str:
    return f"""
[device]
id = "{NAME}"
fleet = "{FLEET}"
clock_is_trusted = "yes"
[runtime]
admin_socket = "{device.daemon.admin}"
poll_s = 0.3
[repository]
url = "{repository.url}"
root = "{repository.root}"
doorbell_jitter_s = 0
[downloads]
reserve_bytes = 0
retry_first_s = 0.1
[outbox]
drain_jitter_s = 0
[mqtt]
reconnect_first_s = 0.1
reconnect_most_s = 1.0
[[mqtt.brokers]]
host = "127.0.0.1"
port = {broker.port}
tls = false
{more}
"""


def key_of(agent: AgentProcess) -> DeviceKey:
    """Read the key of a device."""
    return device_key(agent.state)
