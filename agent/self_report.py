"""Says what this device is, and how its models do: births, and what is reported; retained."""

from agent.assembly import Assembly
from agent.device.known_models import Known, KnownModels
from agent.errors import RuntimeAwayError
from agent.messages import Reported, write
from agent.presence import birth, reported, slots
from agent.records.outbox_rows import Priority


class SelfReport:
    """On the agent's loop only.

    Args:
        parts: Of the agent.
        started_s: When it started, in seconds since 1970.
    """

    def __init__(self, parts: Assembly, started_s: float) -> None:
        self._parts = parts
        self._started_s = started_s
        self._known = KnownModels(parts.member.state)
        self._said: Reported | None = None
        loss = parts.file.loss()
        self._is_anew = loss is not None and not loss.is_told

    def birth(self) -> None:
        """Say what the device is, and how its models do; the second ends the state ``init``."""
        parts, known = self._parts, self._look()
        messaging = parts.messaging
        message = birth(
            parts.member.config.device,
            parts.cpu,
            boot_id=messaging.outbox.boot_id,
            started_s=self._started_s,
            memory_bytes=parts.conditions.host().memory_bytes,
            known=known,
            suspicion=messaging.clones.suspicion,
            is_anew=self._is_anew,
            challenge=messaging.clones.challenge,
            answers=messaging.clones.answers,
        )
        messaging.add(messaging.topics.birth, write(message), Priority.LATEST, retain=True)
        self._said = None
        self._report(known)

    def changed(self) -> None:
        """Say how models do if that is another thing than what was said last."""
        self._report(self._look())

    def _look(self) -> Known:
        try:
            standings = self._parts.runtime.standings()
        except RuntimeAwayError:
            return self._known.away()
        return self._known.answered(slots(standings), self._parts.clock.wall_s())

    def _report(self, known: Known) -> None:
        message = reported(known, 0.0)
        if message == self._said:
            return
        self._said = message
        messaging = self._parts.messaging
        now = reported(known, self._parts.clock.wall_s())
        messaging.add(messaging.topics.reported, write(now), Priority.LATEST, retain=True)
