"""What the fleet is told of an update; pure."""

from typing import Any, Final

import msgspec

from agent.messages import JobState, JobStatus
from agent.records.updates import Update
from agent.update.standing import Standing
from agent.update.states import STATUS, known

TEXT_CHARS_MAX: Final = 2000
DETAILS_BYTES_MAX: Final = 32_768
WAITS_MAX: Final = 16
"""Most reports of one state that say what it waits for; a flapping link makes no flood."""


def status_of(update: Update, standing: Standing | None, at_s: float) -> JobStatus:
    """Say how an update does.

    Args:
        update: As it is stored.
        standing: Of its model in the runtime, asked now; ``None``: the runtime is away.
        at_s: Seconds since 1970.
    """
    state = known(update.state)
    details: dict[str, Any] = {"sequence": update.sequence, "order": update.kind}
    if update.back_to is not None:
        details["back_to"] = update.back_to
    if standing is not None:
        details |= _measured(update, standing)
    return JobStatus(
        rollout=update.rollout,
        model=update.model,
        version=update.version,
        state=JobState.IN_PROGRESS if state is None else JobState(STATUS[state]),
        step=update.state,
        reason=update.code,
        text=update.reason[:TEXT_CHARS_MAX],
        running_version=None if standing is None else standing.answers,
        running_digest="" if standing is None else standing.running_digest,
        at_s=at_s,
        details=details,
    )


def _measured(update: Update, standing: Standing) -> dict[str, Any]:
    passage = standing.passage(update)
    if passage is None:
        return {}
    measured: dict[str, Any] = {
        "release": passage.id,
        "phase": passage.state,
        "percent": passage.percent,
        "release_digest": passage.digest,
        "numbers": dict(passage.numbers),
        "judged": list(passage.judged),
    }
    if len(msgspec.json.encode(measured)) > DETAILS_BYTES_MAX:
        measured |= {"numbers": {}, "judged": ["more than a report can hold"]}
    return measured
