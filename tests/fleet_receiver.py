"""The other end of MQTT for tests: counts what devices say, and believes only what is signed."""

import ssl
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.envelope import unwrap
from agent.messages import Ended, Gap, MetricsBatch, Presence, State, read
from agent.topics import Kind, parse
from tests.brokers import HOST


@dataclass
class Heard:
    """What was heard of one run of an agent.

    Attributes:
        seqs: Numbers that came, each with its topic.
        gaps: What it says never comes.
        ended: What a later run says about its end.
        copies: Messages that came again.
    """

    seqs: dict[int, str] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    copies: int = 0

    @property
    def lost(self) -> int:
        """How many numbers it says are gone."""
        return sum(gap.count for gap in self.gaps)

    def missing(self, last_seq: int) -> set[int]:
        """Give the numbers that did not come."""
        return set(range(1, last_seq + 1)) - self.seqs.keys()


class Receiver:
    """Listens to a whole fleet.

    Args:
        port: Of the broker.
        keys: Public keys of the devices by their ids.
        client_id: A broker keeps a session for it.
        tls: Speak TLS so.
        user: Who it is, and the password.

    Attributes:
        runs: What was heard, by boot id.
        states: The last presence of each device.
        payloads: Every payload by topic, with its number, in the order of arrival.
        historical: Numbers that waited, by boot id.
        forged: Messages that nobody signed who may say so.
        raw: Every message as it came.
    """

    def __init__(
        self,
        port: int,
        keys: Mapping[str, bytes],
        *,
        client_id: str = "receiver",
        tls: ssl.SSLContext | None = None,
        user: tuple[str, str] | None = None,
    ) -> None:
        self._keys = keys
        self._lock = threading.Lock()
        self.runs: dict[str, Heard] = defaultdict(Heard)
        self.states: dict[str, Presence] = {}
        self.payloads: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
        self.historical: dict[str, set[int]] = defaultdict(set)
        self.forged = 0
        self.raw: list[tuple[str, bytes]] = []
        self._subscribed = threading.Event()
        self.client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTv5)
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        self.client.on_message = self._on_message
        if tls is not None:
            self.client.tls_set_context(tls)
        if user is not None:
            self.client.username_pw_set(*user)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 3600
        self.client.reconnect_delay_set(1, 1)
        self.client.connect(HOST, port, clean_start=False, properties=properties)

    def __enter__(self) -> Self:
        self.client.loop_start()
        assert self._subscribed.wait(60.0)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Say something, as the fleet or as an enemy."""
        said = self.client.publish(topic, payload, 1, retain)
        said.wait_for_publish(60.0)
        assert said.is_published(), f"the broker did not take {topic} within a minute"

    def state_of(self, device: str) -> State | None:
        """Give how a device is there."""
        found = self.states.get(device)
        return None if found is None else found.state

    def count(self, boot_id: str) -> int:
        """Give how many numbers of a run came."""
        with self._lock:
            return len(self.runs[boot_id].seqs)

    def on(self, topic: str) -> list[bytes]:
        """Give the payloads that came on a topic."""
        with self._lock:
            return [payload for _, payload in self.payloads[topic]]

    def _on_connect(self, client: Client, *_: object) -> None:
        client.subscribe("edge/v1/#", 1)

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        topic, data = parse(message.topic), bytes(message.payload)
        with self._lock:
            self.raw.append((message.topic, data))
            if topic is None or topic.kind in {Kind.ANNOUNCEMENT, Kind.COMMAND}:
                return
            if topic.kind is Kind.STATE:
                self.states[topic.device] = read(data, Presence)
                return
            try:
                envelope, payload = unwrap(topic, data, self._keys)
            except ValueError:
                self.forged += 1
                return
            heard = self.runs[envelope.boot_id]
            if envelope.seq in heard.seqs:
                heard.copies += 1
                return
            self.payloads[message.topic].append((envelope.seq, payload))
            if envelope.historical:
                self.historical[envelope.boot_id].add(envelope.seq)
            if topic.kind is Kind.METRICS:
                batch = read(payload, MetricsBatch)
                for gap in batch.gaps:
                    self.runs[gap.boot_id].gaps.append(gap)
                for end in batch.ended:
                    self.runs[end.boot_id].ended.append(end)
            # Last: tests wait for a number, and look at the rest then.
            heard.seqs[envelope.seq] = message.topic
