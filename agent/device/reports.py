"""What updates report, on its way into the outbox."""

from agent.messages import JobStatus, write
from agent.records.outbox import Outbox
from agent.records.outbox_rows import Priority
from agent.topics import Topics


class Reports:
    """Puts job statuses into the outbox; an ``agent.update.ports.Reports``.

    Args:
        outbox: Keeps them until the broker has them.
        topics: Of this device.
    """

    def __init__(self, outbox: Outbox, topics: Topics) -> None:
        self._outbox = outbox
        self._topics = topics

    def job(self, status: JobStatus) -> None:
        """Store a status until the fleet has it."""
        self._outbox.add(self._topics.job(status.rollout), write(status), Priority.STATUS)


class NoReports:
    """For a device that has no broker: nobody is to be told."""

    def job(self, status: JobStatus) -> None:
        """Drop a status."""
