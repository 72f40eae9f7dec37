"""What updates report, on its way into the outbox."""

from collections.abc import Callable

import msgspec

from agent.device.remarks import Remarks
from agent.messages import JobStatus, write
from agent.records.outbox import Outbox
from agent.records.outbox_rows import Priority
from agent.topics import Topics


class Reports:
    """Puts job statuses into the outbox; an ``agent.update.ports.Reports``.

    Args:
        outbox: Keeps them until the broker has them.
        topics: Of this device.
        remarks: What is to be said of downloads.
        wake: Makes the link look at the outbox.
    """

    def __init__(
        self, outbox: Outbox, topics: Topics, remarks: Remarks, wake: Callable[[], None]
    ) -> None:
        self._outbox = outbox
        self._topics = topics
        self._remarks = remarks
        self._wake = wake

    def job(self, status: JobStatus) -> None:
        """Store a status until the fleet has it; what is remarkable of its download goes along."""
        said = self._remarks.of(status.model, status.version, status.rollout)
        if said:
            download = [msgspec.to_builtins(each.notice) for each in said]
            details = {**status.details, "download": download}
            status = msgspec.structs.replace(status, details=details)
        self._outbox.add(self._topics.job(status.rollout), write(status), Priority.STATUS)
        self._wake()


class NoReports:
    """For a device that has no broker: nobody is to be told."""

    def job(self, status: JobStatus) -> None:
        """Drop a status."""
