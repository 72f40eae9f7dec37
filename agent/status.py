"""What ``edge-agent status`` shows."""

import contextlib
from typing import Any

from agent import __version__
from agent.assembly import Assembly
from agent.device.answering import answering, ready_versions
from agent.download.notices import Progress
from agent.errors import AgentError
from agent.progressing import Progressing
from agent.update.standing import Standing
from agent.update.states import FINAL


def status(
    parts: Assembly,
    shown: Progressing | None,
    progress: dict[int, tuple[str, Progress]],
    started_s: float,
) -> dict[str, Any]:
    """Say how the agent does.

    Args:
        parts: Of the agent.
        shown: What the thread of updates shows; ``None``: there is no repository.
        progress: File and progress of the update that is being downloaded, by its id.
        started_s: When the agent started, in seconds since 1970.
    """
    device = parts.member.config.device
    link = parts.messaging.status
    waiting = parts.messaging.outbox.waiting()
    return {
        "version": __version__,
        "device": device.id,
        "fleet": device.fleet,
        "channel": device.channel,
        "started_s": started_s,
        "clock": {"wall_s": parts.clock.wall_s(), "is_trusted": parts.clock.is_trusted()},
        "paused_until_s": parts.pause.until_s(),
        "broker": {
            "is_connected": link.is_connected,
            "broker": link.broker,
            "protocol": "5" if link.is_v5 else "3.1.1",
            "problem": link.problem,
        },
        "clone": parts.messaging.clones.suspicion.name.lower(),
        "outbox": {
            "statuses": waiting.statuses,
            "metrics": waiting.metrics,
            "metrics_bytes": waiting.metrics_bytes,
            "dropped": {reason.value: count for reason, count in waiting.dropped.items()},
            "problem": waiting.problem,
            "held": parts.messaging.held,
            "refused": parts.messaging.refused,
            "refusal": parts.messaging.refusal,
        },
        "bytes_this_month": {
            kind: parts.budget.spent(kind) for kind in ("metadata", "artifact", "telemetry")
        },
        "records": _records(parts),
        "repository": _repository(parts, shown),
        "runtime": _runtime(parts),
        "updates": [
            {
                "id": update.id,
                "model": update.model,
                "kind": update.kind,
                "version": update.version,
                "rollout": update.rollout,
                "state": update.state,
                "phase": update.phase,
                "code": update.code,
                "reason": update.reason,
                "updated_s": update.updated_s,
                "download": _download(progress.get(update.id)),
            }
            for update in parts.updates.except_in(FINAL)
        ],
    }


def _records(parts: Assembly) -> dict[str, Any]:
    """Say what of the records was lost.

    In the run of the agent that found it, and for as long as the fleet does not know or the old
    file is here: one that was gone leaves none.
    """
    loss = parts.file.loss()
    aside = parts.file.aside
    if loss is None or (loss.is_told and not aside.exists() and not parts.file.began_anew):
        return {"problem": "", "kept": (), "lost": (), "aside": ""}
    return {
        "problem": loss.reason,
        "kept": loss.kept,
        "lost": loss.lost,
        "aside": str(aside) if aside.exists() else "",
    }


def _repository(parts: Assembly, shown: Progressing | None) -> dict[str, Any] | None:
    if shown is None:
        return None
    check = shown.check
    return {
        "url": parts.member.config.repository.url,
        "checked_s": check.at_s,
        "problem": check.problem,
        "reason": check.reason,
        "plans_problem": "" if shown.plans_trouble is None else shown.plans_trouble.why,
        "plans_problem_s": 0.0 if shown.plans_trouble is None else shown.plans_trouble.since_s,
        "timestamp_version": check.timestamp_version,
        "fetched_bytes": check.fetched_bytes,
        "models": [
            {
                "model": outlook.model,
                "rollout": "" if outlook.plan is None else outlook.plan.rollout,
                "action": "none" if outlook.decision is None else outlook.decision.action.kind,
                "reason": "" if outlook.decision is None else outlook.decision.action.reason,
                "text": "" if outlook.decision is None else outlook.decision.action.text,
            }
            for outlook in shown.outlooks
        ],
    }


def _runtime(parts: Assembly) -> dict[str, Any]:
    try:
        standings = parts.runtime.standings()
    except AgentError as error:
        return {"problem": error.message, "models": {}}
    ready: dict[str, set[int]] = {}
    with contextlib.suppress(AgentError):  # it went away between both questions
        ready = ready_versions(parts.admin.index())
    return {
        "problem": "",
        "models": {
            model: _model(standings.get(model, Standing()), ready.get(model, set()))
            for model in sorted(standings.keys() | ready.keys())
        },
    }


def _model(standing: Standing, ready: set[int]) -> dict[str, Any]:
    found, passage = answering(standing, ready), standing.under_way()
    return {
        "active": standing.active,
        "answers": found.versions,
        "answers_by": found.source.value,
        "running_digest": standing.running_digest,
        "problem": standing.active_problem,
        "previous": standing.previous,
        "disabled": standing.disabled,
        "override": standing.override,
        "under_way": None
        if passage is None
        else {"version": passage.version, "phase": passage.state, "percent": passage.percent},
    }


def _download(found: tuple[str, Progress] | None) -> dict[str, Any] | None:
    if found is None:
        return None
    file, progress = found
    return {
        "file": file,
        "done_bytes": progress.done_bytes,
        "total_bytes": progress.total_bytes,
        "bytes_per_s": round(progress.bytes_per_s),
    }
