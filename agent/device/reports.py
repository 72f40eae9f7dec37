"""What updates report, on its way into the outbox."""

import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from agent.device.remarks import Remarks
from agent.errors import RuntimeAwayError
from agent.messages import REPORT_BYTES_MAX, JobState, JobStatus, write
from agent.records.outbox import Outbox
from agent.records.outbox_rows import Priority
from agent.topics import Topics
from agent.update.judgements import Judgement

_log = logging.getLogger(__name__)

_UNDER_WAY: Final = frozenset({JobState.QUEUED, JobState.IN_PROGRESS})


class Judges(Protocol):
    """Tells how the steps of a release ended: the runtime."""

    def judgements(self, model: str, release: int) -> list[Judgement]:
        """Say it, the oldest first; raises ``RuntimeAwayError``."""
        ...


class Reports:
    """Puts job statuses into the outbox; an ``agent.update.ports.Reports``.

    Comparisons go along with the statuses, so that they are as durable, as signed and as much in
    order as these. A status on the way tells of the last step that ended, the last status of all.

    Args:
        outbox: Keeps them until the broker has them.
        topics: Of this device.
        remarks: What is to be said of downloads.
        judges: What is to be said of comparisons.
        wake: Makes the link look at the outbox.
    """

    def __init__(
        self,
        outbox: Outbox,
        topics: Topics,
        remarks: Remarks,
        judges: Judges,
        wake: Callable[[], None],
    ) -> None:
        self._outbox = outbox
        self._topics = topics
        self._remarks = remarks
        self._judges = judges
        self._wake = wake

    def job(self, status: JobStatus) -> None:
        """Store a status until the fleet has it; what is remarkable of its download goes along."""
        more: dict[str, Any] = {}
        said = self._remarks.of(status.model, status.version, status.rollout)
        if said:
            more["download"] = [msgspec.to_builtins(each.notice) for each in said]
        judgements = self._judgements(status)
        if judgements:
            more["judgements"] = [msgspec.to_builtins(each) for each in judgements]
        payload = _with(status, more)
        while more and len(payload) > REPORT_BYTES_MAX:
            more.pop(next(iter(more)))  # what matters less comes first
            payload = _with(status, more)
        self._outbox.add(self._topics.job(status.rollout), payload, Priority.STATUS)
        self._wake()

    def _judgements(self, status: JobStatus) -> list[Judgement]:
        release = status.details.get("release")
        if not isinstance(release, int):
            return []
        try:
            found = self._judges.judgements(status.model, release)
        except RuntimeAwayError as error:
            _log.info("a report of %s has no comparisons: %s", status.model, error.message)
            return []
        return found[-1:] if status.state in _UNDER_WAY else found


def _with(status: JobStatus, more: dict[str, Any]) -> bytes:
    return write(msgspec.structs.replace(status, details={**status.details, **more}))


class NoReports:
    """For a device that has no broker: nobody is to be told."""

    def job(self, status: JobStatus) -> None:
        """Drop a status."""
