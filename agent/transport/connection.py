"""One connection to one broker, from its first packet to its last; all on one thread."""

import contextlib
import ssl
import threading
from pathlib import Path
from typing import Final

from paho.mqtt.client import (
    MQTT_CLEAN_START_FIRST_ONLY,
    Client,
    ConnectFlags,
    DisconnectFlags,
    MQTTMessage,
    MQTTMessageInfo,
    MQTTv5,
    MQTTv311,
)
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.clock import Clock
from agent.errors import ConfigError, NetworkError
from agent.settings.messaging import Broker, Mqtt
from agent.transport.backoff import Outcome
from agent.transport.bounded_client import PACKET_BYTES_MAX, BoundedClient
from agent.transport.terms import Events, Grants, Subscription, Will
from agent.trust.tls import NO_CHECK_TIME, chain_dates, check_dates

CONNECT_S: Final = 15.0
"""Most time until TCP and TLS stand."""
RECEIVE_MAX: Final = 32
"""Messages that the broker may send before it has our word."""
EXPIRY_S_MAX: Final = 0xFFFF_FFFF
_PASSWORD_BYTES_MAX: Final = 4096
_FAILED: Final = 0x80
_TAKEN_OVER: Final = 142
# Reason codes of MQTT 5; paho gives those of 3.1.1 as these.
_OUTCOMES: Final = {
    132: Outcome.REFUSED_VERSION,
    133: Outcome.REFUSED,  # this client's name is not wanted
    134: Outcome.REFUSED,  # wrong user or password
    135: Outcome.REFUSED,  # not authorised
    138: Outcome.REFUSED,  # banned
    140: Outcome.REFUSED,  # wrong way to say who one is
    151: Outcome.REFUSED,  # over a quota
    159: Outcome.REFUSED,  # too many connections
}


class Connection:
    """A connection, closed by whoever opened it.

    Args:
        broker: To whom.
        settings: The rest of ``[mqtt]``.
        client_id: Who the device is there.
        will: Said when it is gone.
        events: Told what happens, on the thread that turns it.
        is_v5: MQTT 5, or else 3.1.1.
        clock: Judges the dates of certificates.

    Attributes:
        outcome: How it ended, or would if it ended now.
        problem: The same for people.
        is_taken_over: Whether another one came with this device's name.

    Raises:
        ConfigError: A file of the settings is missing or wrong.
        NetworkError: Nobody answers there; ``outcome`` of no matter.
    """

    def __init__(
        self,
        broker: Broker,
        settings: Mqtt,
        *,
        client_id: str,
        will: Will,
        events: Events,
        is_v5: bool,
        clock: Clock,
    ) -> None:
        self._events = events
        self._clock = clock
        self._settings = settings
        self._is_v5 = is_v5
        self._is_closed = False
        self.outcome = Outcome.ENDED_EARLY
        self.problem = "the broker ended the connection before it answered"
        self.is_taken_over = False
        self._client = _client(broker, client_id, is_v5=is_v5)
        self._client.connect_timeout = CONNECT_S
        self._client.max_inflight_messages_set(0)  # the sender counts
        self._set_up(broker, will)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        self._client.on_subscribe = self._on_subscribe
        try:
            self._open(broker)
        except (OSError, ValueError) as error:
            self.close()
            raise NetworkError(_told(broker, error)) from error
        except BaseException:
            self.close()
            raise

    def _set_up(self, broker: Broker, will: Will) -> None:
        settings, client = self._settings, self._client
        properties: Properties | None = None
        if self._is_v5:
            properties = _properties(PacketTypes.WILLMESSAGE)
            properties.WillDelayInterval = min(int(will.delay_s), EXPIRY_S_MAX)
        client.will_set(will.topic, will.payload, qos=1, retain=True, properties=properties)
        if settings.username:
            client.username_pw_set(settings.username, _password(settings.password_file))
        if broker.websocket_path:
            client.ws_set_options(broker.websocket_path)
        if broker.tls and not broker.unix:
            client.tls_set_context(tls_context(settings))
            client.judge = self._judge

    def _open(self, broker: Broker) -> None:
        properties: Properties | None = None
        if self._is_v5:
            properties = _properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = min(int(self._settings.session_s), EXPIRY_S_MAX)
            properties.ReceiveMaximum = RECEIVE_MAX
            properties.MaximumPacketSize = PACKET_BYTES_MAX
        # Each read of a handshake has a limit of time; a broker that drips has none.
        deadline = threading.Timer(2 * CONNECT_S, self._client.give_up)
        deadline.daemon = True
        deadline.start()
        try:
            self._client.connect(
                broker.unix or broker.host,
                broker.port,
                self._settings.keepalive_s,
                # In MQTT 3.1.1 the client was told when it was made.
                clean_start=False if self._is_v5 else MQTT_CLEAN_START_FIRST_ONLY,
                properties=properties,
            )
        finally:
            deadline.cancel()

    def _judge(self, sock: ssl.SSLSocket, host: str) -> None:
        clock = self._clock
        check_dates(
            chain_dates(sock),
            host,
            now_s=clock.wall_s(),
            floor_s=clock.own_floor_s,
            is_trusted=clock.is_trusted(),
        )

    def fileno(self) -> int:
        """Give the descriptor to wait for; -1: it has ended."""
        sock = None if self._is_closed else self._client.socket()
        return -1 if sock is None else sock.fileno()

    @property
    def wants_to_write(self) -> bool:
        """Whether something waits to be written."""
        return self._client.want_write()

    @property
    def has_unread(self) -> bool:
        """Whether decrypted bytes wait, of which the descriptor knows nothing."""
        pending = getattr(self._client.socket(), "pending", None)
        return pending is not None and pending() > 0

    def turn(self, *, is_readable: bool, is_writable: bool) -> bool:
        """Read, write, and keep the connection alive.

        Returns:
            Whether it still stands.
        """
        try:
            if is_readable:
                self._client.loop_read()
            if is_writable:
                self._client.loop_write()
            self._client.loop_misc()
        except Exception as error:  # noqa: BLE001 - paho's parser, fed by anybody
            self.problem = f"what the broker sends is no MQTT ({type(error).__name__}: {error})"
            return False
        self.problem = self._client.problem or self.problem
        return self.fileno() >= 0

    def subscribe(self, subscriptions: list[Subscription]) -> None:
        """Ask for messages."""
        if self._is_v5:
            asked = [(each.topic, SubscribeOptions(1, each.is_own)) for each in subscriptions]
            self._client.subscribe(asked)
        else:
            self._client.subscribe([(each.topic, 1) for each in subscriptions])

    def publish(
        self, topic: str, payload: bytes, *, retain: bool, expiry_s: float | None
    ) -> int | None:
        """Send a message of QoS 1.

        Returns:
            Its number, which ``Events.acknowledged`` tells; ``None``: the connection has ended.
        """
        properties: Properties | None = None
        if self._is_v5 and expiry_s is not None:
            properties = _properties(PacketTypes.PUBLISH)
            properties.MessageExpiryInterval = max(1, min(int(expiry_s), EXPIRY_S_MAX))
        try:
            sent: MQTTMessageInfo = self._client.publish(
                topic, payload, qos=1, retain=retain, properties=properties
            )
        except (OSError, ValueError) as error:
            self.problem = f"cannot send to {topic}: {error}"
            return None
        return sent.mid if sent.rc is MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def disconnect(self) -> None:
        """Say goodbye; the broker keeps the session and forgets the will."""
        with contextlib.suppress(OSError, ValueError):
            self._client.disconnect()

    def close(self) -> None:
        """End it without a word."""
        self._is_closed = True
        self._client.on_disconnect = self._client.on_connect = None
        for sock in (self._client.socket(), self._client.opened):
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.close()

    def _on_connect(
        self,
        _client: Client,
        _data: object,
        flags: ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason.value >= _FAILED:
            self.outcome = _OUTCOMES.get(reason.value, Outcome.BUSY)
            self.problem = f"the broker refuses this device: {reason}"
            return
        self.outcome = Outcome.LOST
        self.problem = "the connection to the broker was lost"
        self._events.connected(
            Grants(
                is_v5=self._is_v5,
                receive_max=getattr(properties, "ReceiveMaximum", 0xFFFF),
                packet_bytes_max=getattr(properties, "MaximumPacketSize", 0),
                takes_retained=getattr(properties, "RetainAvailable", 1) != 0,
                has_session=flags.session_present,
            )
        )

    def _on_disconnect(
        self,
        _client: Client,
        _data: object,
        flags: DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self.problem = f"the broker ended the connection: {reason}"
            self.is_taken_over = reason.value == _TAKEN_OVER
            if self.outcome is Outcome.ENDED_EARLY or reason.value in _OUTCOMES:
                self.outcome = _OUTCOMES.get(reason.value, self.outcome)

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return
        self._events.received(topic, bytes(message.payload), is_retained=message.retain)

    def _on_publish(
        self,
        _client: Client,
        _data: object,
        message: int,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._events.acknowledged(message, reason.value)

    def _on_subscribe(
        self,
        _client: Client,
        _data: object,
        _message: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        self._events.subscribed([reason.value for reason in reasons])


def tls_context(settings: Mqtt) -> ssl.SSLContext:
    """Make what TLS is spoken with.

    Raises:
        ConfigError: A file of it is missing or wrong.
    """
    try:
        context = ssl.create_default_context(cafile=settings.ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_flags |= NO_CHECK_TIME  # dates are judged by our own clock
        if settings.certificate:
            context.load_cert_chain(settings.certificate, settings.key or None)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot use the certificates of [mqtt] (ca {settings.ca or 'of the system'}, "
            f"certificate {settings.certificate or 'none'}): {error}"
        ) from error
    return context


def _client(broker: Broker, client_id: str, *, is_v5: bool) -> BoundedClient:
    over_ip = "websockets" if broker.websocket_path else "tcp"
    return BoundedClient(
        CallbackAPIVersion.VERSION2,
        client_id,
        clean_session=None if is_v5 else False,
        protocol=MQTTv5 if is_v5 else MQTTv311,
        transport="unix" if broker.unix else over_ip,  # type: ignore[arg-type]
        reconnect_on_failure=False,
    )


def _properties(kind: int) -> Properties:
    return Properties(kind)  # type: ignore[no-untyped-call]


def _password(file: str) -> str | None:
    if not file:
        return None
    try:
        with Path(file).open("rb") as opened:
            text = opened.read(_PASSWORD_BYTES_MAX).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the password in {file}: {error}") from error
    return text.removesuffix("\n").removesuffix("\r")


def _told(broker: Broker, error: Exception) -> str:
    place = broker.unix or f"{broker.host}:{broker.port}"
    return f"cannot connect to the broker {place}: {str(error) or type(error).__name__}"
