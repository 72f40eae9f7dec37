"""Everything that goes over the link: reports out, announcements and commands in."""

from agent.topics import Kind, Topics, parse
from agent.transport.clones import CloneWatch, Suspicion
from agent.transport.inbox import Inbox
from agent.transport.sender import Publisher, Sender
from agent.transport.terms import Grants


class Courier:
    """The link's traffic, on the link's thread.

    Args:
        topics: Of this device.
        sender: Sends what waits.
        inbox: Takes what comes.
        clones: Is shown births of this device's name.
    """

    def __init__(self, topics: Topics, sender: Sender, inbox: Inbox, clones: CloneWatch) -> None:
        self._topics = topics
        self._sender = sender
        self._inbox = inbox
        self._clones = clones

    def connected(self, publisher: Publisher, grants: Grants) -> None:
        """Begin to send."""
        self._sender.connected(publisher, grants)

    def turn(self) -> float | None:
        """Send what may be sent now."""
        return self._sender.turn()

    def received(self, topic: str, payload: bytes) -> None:
        """Pass a message on."""
        if topic != self._topics.birth:
            self._inbox.put(topic, payload)
            return
        found = parse(topic)
        if found is not None and found.kind is Kind.BIRTH:
            self._clones.heard(found, payload)

    def acknowledged(self, message: int, reason: int) -> None:
        """Note what the broker said about a message."""
        self._sender.acknowledged(message, reason)

    def is_stuck(self) -> bool:
        """Tell whether the broker takes messages and never says so."""
        return self._sender.is_stuck()

    def is_idle(self) -> bool:
        """Tell whether nothing waits for the broker's word."""
        return self._sender.in_flight == 0

    def must_hold(self) -> bool:
        """Tell whether another device has this one's identity."""
        return self._clones.suspicion is Suspicion.CLONED

    def taken_over(self) -> None:
        """Note that another connection came with this device's name."""
        self._clones.taken_over()

    def lost(self) -> None:
        """Stop sending."""
        self._sender.lost()
