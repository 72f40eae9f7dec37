"""A broker that speaks only MQTT 3.1.1 and falls silent at anything newer: amqtt does."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from agent.topics import Topics
from tests.agent_site import STORY_S, AgentProcess
from tests.brokers import free_port
from tests.daemons import eventually
from tests.repositories import new_repository, served

pytest.importorskip("amqtt", reason="amqtt is an extra of the tests")
pytestmark = pytest.mark.integration

PROGRAM = Path(__file__).parent.parent.parent / "examples" / "digits" / "broker.py"
TOPICS = Topics("shop", "till-7")


@contextlib.contextmanager
def amqtt(folder: Path, port: int) -> Iterator[None]:
    with (folder / "broker.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(port)], stdout=log, stderr=log
        )

    def listens() -> bool:
        assert process.poll() is None
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return True
        return False

    try:
        eventually(listens, "amqtt", STORY_S)
        yield
    finally:
        process.terminate()
        process.wait(STORY_S)


class Ears:
    """Hears everything that comes over such a broker.

    Attributes:
        heard: Boot ids by topic.
    """

    def __init__(self, port: int) -> None:
        self.heard: dict[str, list[str]] = {}
        self.is_listening = threading.Event()
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id="ears", protocol=MQTTProtocolVersion.MQTTv311
        )
        self.client.on_connect = lambda client, *_: client.subscribe("edge/#", qos=1)
        self.client.on_subscribe = lambda *_: self.is_listening.set()
        self.client.on_message = self._received
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self.is_listening.wait(STORY_S)

    def _received(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        with contextlib.suppress(ValueError, KeyError):
            self.heard.setdefault(message.topic, []).append(
                json.loads(message.payload).get("boot_id", "")
            )

    def heard_runs(self, topic: str, runs: int) -> bool:
        """Tell whether so many runs of the agent said something there."""
        return len(set(self.heard.get(topic, ()))) >= runs

    def close(self) -> None:
        """Leave."""
        self.client.disconnect()
        self.client.loop_stop()


def is_newer(agent: AgentProcess, before: int) -> bool:
    return bool(agent.status()["repository"]["timestamp_version"] > before)


def test_announcements_statuses_and_metrics_flow_over_mqtt_3_1_1_also_after_a_crash(
    tmp_path: Path,
) -> None:
    for name in ("a", "origin"):
        (tmp_path / name).mkdir()
    repository = new_repository(tmp_path / "origin", fleet="shop")
    repository.add_bundle(model="digits")
    repository.set_plan(model="digits")
    port = free_port()
    config = (
        '[device]\nid = "till-7"\nfleet = "shop"\nclock_is_trusted = "yes"\n'
        f'[runtime]\nadmin_socket = "{tmp_path}/nobody.sock"\n'
        f'[repository]\nurl = "{repository.url}"\nroot = "{repository.root}"\n'
        "doorbell_jitter_s = 0\n[telemetry]\ninterval_s = 0.3\n[outbox]\ndrain_jitter_s = 0\n"
        "[mqtt]\nreconnect_first_s = 0.2\nreconnect_most_s = 1.0\n"
        f'[[mqtt.brokers]]\nhost = "127.0.0.1"\nport = {port}\ntls = false\n'
    )
    agent = AgentProcess(tmp_path / "a", config)
    with served(repository), amqtt(tmp_path, port):
        ears = Ears(port)
        try:
            for crash in (True, False):
                agent.start()
                eventually(agent.is_up, "the agent", STORY_S)
                eventually(lambda: agent.status()["broker"]["is_connected"], "yes", STORY_S)
                assert agent.status()["broker"]["protocol"] == "3.1.1"
                eventually(partial(is_newer, agent, 0), "the first look", STORY_S)
                before = agent.status()["repository"]["timestamp_version"]
                repository.refresh()
                ears.client.publish(TOPICS.announcement, repository.timestamp(), 1, retain=True)
                eventually(partial(is_newer, agent, before), "what was announced", STORY_S)
                runs = 1 if crash else 2
                for topic in (TOPICS.birth, TOPICS.reported, TOPICS.metrics):
                    eventually(partial(ears.heard_runs, topic, runs), f"{topic} {runs}", STORY_S)
                agent.stop(signal.SIGKILL if crash else signal.SIGTERM)
        finally:
            agent.close()
            ears.close()
