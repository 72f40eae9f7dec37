"""What a device and a broker agree on."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Grants:
    """What a broker allows.

    Attributes:
        is_v5: Whether MQTT 5 is spoken.
        receive_max: Messages that it takes before its word.
        packet_bytes_max: Largest packet that it takes; 0: any.
        takes_retained: Whether it keeps messages.
        has_session: Whether it remembers this device.
    """

    is_v5: bool
    receive_max: int
    packet_bytes_max: int
    takes_retained: bool
    has_session: bool


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker says when the device is gone.

    Attributes:
        topic: Where.
        payload: What.
        delay_s: After how long; MQTT 3.1.1: at once.
    """

    topic: str
    payload: bytes
    delay_s: float


@dataclass(frozen=True, slots=True)
class Subscription:
    """What the device wants to hear.

    Attributes:
        topic: A topic, maybe with wildcards.
        is_own: Its own messages are not wanted there; MQTT 3.1.1 sends them all the same.
    """

    topic: str
    is_own: bool = False


class Events(Protocol):
    """Who is told what happens on a connection, on the thread that turns it."""

    def connected(self, grants: Grants) -> None:
        """The broker said yes."""

    def received(self, topic: str, payload: bytes, *, is_retained: bool) -> None:
        """A message came; anybody may have written it."""

    def acknowledged(self, message: int, reason: int) -> None:
        """The broker has a message, or refuses it: then the reason is 128 or more."""

    def subscribed(self, reasons: list[int]) -> None:
        """The broker answered subscriptions; one is refused where its reason is 128 or more."""
