"""What came from the broker, on its way to the agent's loop: never more than fits."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.messages import ANNOUNCEMENT_BYTES_MAX, COMMAND_BYTES_MAX
from agent.topics import Kind, Topic, Topics, parse

COMMANDS_MAX: Final = 32
_LIMITS: Final = {
    Kind.ANNOUNCEMENT: ANNOUNCEMENT_BYTES_MAX,
    Kind.COMMAND: COMMAND_BYTES_MAX,
}


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message from the broker; anybody may have written it.

    Attributes:
        topic: Where it came.
        payload: What it says, within the limit of its kind.
    """

    topic: Topic
    payload: bytes


class Inbox:
    """Between the broker's thread and the agent's loop.

    Of announcements only the newest counts. Commands keep their order; when there are too many,
    the newest are dropped and counted: whoever sent them gets no answer and asks again.

    Args:
        topics: Of this device; what is meant for another one is dropped.
        notify: Called when there is something to take; must not block.

    Attributes:
        dropped: Messages that were not passed on.
    """

    def __init__(self, topics: Topics, notify: Callable[[], None]) -> None:
        self._topics = topics
        self._notify = notify
        self._lock = threading.Lock()
        self._announcement: Incoming | None = None
        self._commands: deque[Incoming] = deque()
        self.dropped = 0

    def put(self, topic: str, payload: bytes) -> None:
        """Pass a message on, or count it."""
        found = parse(topic)
        with self._lock:
            if found is None or not self._is_meant(found, payload):
                self.dropped += 1
                return
            message = Incoming(found, payload)
            if found.kind is Kind.ANNOUNCEMENT:
                self._announcement = message
            elif len(self._commands) < COMMANDS_MAX:
                self._commands.append(message)
            else:
                self.dropped += 1
                return
        self._notify()

    def take(self) -> list[Incoming]:
        """Take everything: commands first, in their order."""
        with self._lock:
            taken = list(self._commands)
            self._commands.clear()
            if self._announcement is not None:
                taken.append(self._announcement)
                self._announcement = None
            return taken

    def _is_meant(self, topic: Topic, payload: bytes) -> bool:
        return (
            topic.fleet == self._topics.fleet
            and topic.device in {"", self._topics.device}
            and len(payload) <= _LIMITS.get(topic.kind, -1)
        )
