"""Settings of MQTT, the outbox and telemetry."""

from typing import Annotated, Literal

from msgspec import Meta

from agent.settings.group import Bytes, Port, Seconds, SecondsOrNone, Settings


class Broker(Settings, frozen=True):
    """One broker, in ``[[mqtt.brokers]]``; several are tried in turn."""

    host: Annotated[str, Meta(description="Its name or address.")] = ""
    port: Annotated[Port, Meta(description="Its port.")] = 8883
    unix: Annotated[str, Meta(description="Its Unix socket, instead of host and port.")] = ""
    websocket_path: Annotated[
        str, Meta(description="Speak MQTT over a websocket at this path.")
    ] = ""
    tls: Annotated[bool, Meta(description="Encrypt, and check the broker's certificate.")] = True


class Mqtt(Settings, frozen=True):
    """How the fleet is talked to, in ``[mqtt]``. No broker: only the repository is asked."""

    brokers: Annotated[tuple[Broker, ...], Meta(max_length=8, description="Tried in turn.")] = ()
    protocol: Annotated[
        Literal["auto", "5", "3.1.1"],
        Meta(
            description="Version of MQTT. `auto`: 5, and 3.1.1 where a broker refuses that, hangs "
            "up or falls silent."
        ),
    ] = "auto"
    ca: Annotated[
        str, Meta(description="File of certificates to believe instead of the system's.")
    ] = ""
    certificate: Annotated[
        str, Meta(description="File of this device's certificate. Empty: the enrolment's.")
    ] = ""
    key: Annotated[str, Meta(description="File of its private key.")] = ""
    username: Annotated[str, Meta(description="For brokers that ask for one.")] = ""
    password_file: Annotated[str, Meta(description="File of the password, in one line.")] = ""
    keepalive_s: Annotated[
        int, Meta(ge=5, le=65_535, description="Longest silence towards the broker.")
    ] = 300
    session_s: Annotated[
        SecondsOrNone, Meta(description="How long the broker keeps the session of a lost device.")
    ] = 604_800.0
    will_delay_s: Annotated[
        SecondsOrNone, Meta(description="How long the device may be gone before it is `lost`.")
    ] = 60.0
    in_flight_max: Annotated[
        int, Meta(ge=1, le=1000, description="Messages that wait for the broker's word at once.")
    ] = 20
    reconnect_first_s: Annotated[
        Seconds, Meta(description="Pause before a new try; twice as long each time, jittered.")
    ] = 1.0
    reconnect_most_s: Annotated[Seconds, Meta(description="Longest pause.")] = 600.0
    command_key: Annotated[
        str,
        Meta(
            description="File of the public key whose signed commands are obeyed. Empty: the "
            "enrolment's, or none."
        ),
    ] = ""


class Outbox(Settings, frozen=True):
    """What waits for the broker, in ``[outbox]``."""

    metrics_bytes: Annotated[
        Bytes, Meta(description="Most bytes of metrics that wait; the oldest are dropped.")
    ] = 8_388_608
    memory_bytes: Annotated[
        Bytes, Meta(description="Most bytes of metrics kept in memory while connected.")
    ] = 262_144
    drain_per_s: Annotated[
        float, Meta(gt=0, le=10_000, description="Messages a second after a long outage.")
    ] = 50.0
    drain_jitter_s: Annotated[
        SecondsOrNone, Meta(description="The drain begins after a random part of this time.")
    ] = 30.0


class Telemetry(Settings, frozen=True):
    """What is measured, in ``[telemetry]``."""

    interval_s: Annotated[
        SecondsOrNone, Meta(description="Time between two batches; 0: no telemetry.")
    ] = 60.0
    stretch: Annotated[
        float,
        Meta(ge=1, le=1000, description="How much longer that is on battery or a metered link."),
    ] = 10.0
    sketches: Annotated[
        bool, Meta(description="Whether distributions of outputs are sent, for drift.")
    ] = True
    log_format: Annotated[
        Literal["auto", "json", "text"],
        Meta(description="How the agent logs. `auto`: text on a terminal."),
    ] = "auto"
