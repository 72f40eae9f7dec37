"""What ``edge-agent status`` shows."""

from typing import Any

from agent import __version__
from agent.assembly import Assembly
from agent.download.notices import Progress
from agent.errors import AgentError
from agent.update.states import FINAL
from agent.updating import Progressing


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
        },
        "bytes_this_month": {
            kind: parts.budget.spent(kind) for kind in ("metadata", "artifact", "telemetry")
        },
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


def _repository(parts: Assembly, shown: Progressing | None) -> dict[str, Any] | None:
    if shown is None:
        return None
    check = shown.check
    return {
        "url": parts.member.config.repository.url,
        "checked_s": check.at_s,
        "problem": check.problem,
        "reason": check.reason,
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
    return {
        "problem": "",
        "models": {
            model: {
                "active": standing.active,
                "running_digest": standing.running_digest,
                "previous": standing.previous,
                "disabled": standing.disabled,
                "override": standing.override,
            }
            for model, standing in standings.items()
        },
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
