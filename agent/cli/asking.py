"""``edge-agent status``, ``explain`` and ``check-now``: questions to the running agent."""

import argparse
from datetime import UTC, datetime
from typing import Any, Final

from agent import locations
from agent.cli.options import check_has_run, config_of, print_json
from agent.cli.running_agent import ask_running
from agent.config import Config
from agent.control import Question
from agent.errors import RuntimeAwayError
from edge_runtime.exit_codes import ExitCode

ASK_S: Final = 30.0
CHECK_S: Final = 330.0
_KIB: Final = 1024


def run(options: argparse.Namespace) -> int:
    """Ask, and show the answer.

    Raises:
        AgentError: No agent is running, or it cannot answer.
    """
    config = config_of(options)
    if options.command == "explain":
        return _explain(options, config)
    limit_s = CHECK_S if options.command == "check-now" else ASK_S
    found = ask_running(options, config, Question(options.command), limit_s)
    if options.json:
        print_json(found)
    elif options.command == "status":
        print("\n".join(_status(found)))
    else:
        print(_check(found))
    if options.command == "check-now":
        return ExitCode.FAILED if found["problem"] else ExitCode.DONE
    return ExitCode.DONE


def _explain(options: argparse.Namespace, config: Config) -> int:
    try:
        lines = ask_running(options, config, Question("explain", options.model), ASK_S)
    except RuntimeAwayError:
        lines = _explained_here(config, options.model)
    if options.json:
        print_json(lines)
    else:
        print("\n".join(lines))
    return ExitCode.DONE


def _explained_here(config: Config, model: str) -> list[str]:
    """Decide by what is kept: no agent is running."""
    from agent.assembly import Bells, assemble  # noqa: PLC0415 - only here
    from agent.explaining import explained  # noqa: PLC0415
    from agent.member import member  # noqa: PLC0415

    check_has_run(locations.state_directory(config.state_dir))
    parts = assemble(member(config), Bells())
    try:
        return ["no agent is running; by what is kept here:", *explained(parts, model)]
    finally:
        parts.messaging.stop()
        parts.close()


def _status(found: dict[str, Any]) -> list[str]:
    clock = "trusted" if found["clock"]["is_trusted"] else "not trusted"
    broker, outbox = found["broker"], found["outbox"]
    link = f"connected to {broker['broker']} (MQTT {broker['protocol']})"
    if not broker["is_connected"]:
        link = f"not connected: {broker['problem']}"
    outbox_text = (
        f"{outbox['statuses']} statuses, {outbox['metrics']} metrics "
        f"({outbox['metrics_bytes'] // _KIB} KiB), {sum(outbox['dropped'].values())} dropped"
    )
    lines = [
        f"{found['device']} in fleet {found['fleet']}, channel {found['channel']}",
        f"  agent       {found['version']}, since {_when(found['started_s'])}",
        f"  clock       {_when(found['clock']['wall_s'])}, {clock}",
        f"  broker      {link}",
        f"  outbox      {outbox_text}",
    ]
    if found["clone"] == "cloned":
        lines.append(
            "  CLONE       another device signs with this one's key: no update begins; run"
        )
        lines.append("              `edge-agent prepare-image` on the copy, and enrol both again;")
        lines.append("              if the copy is gone for good: `edge-agent clear-clone`")
    elif found["clone"] == "suspected":
        lines.append("  clone       another device may use this identity (suspected)")
    if found["paused_until_s"] > found["clock"]["wall_s"]:
        lines.append(f"  paused      updates are, until {_when(found['paused_until_s'])}")
    if outbox["refusal"]:
        lines.append(f"  refused     {outbox['refused']} times: {outbox['refusal']}")
    if outbox["held"]:
        lines.append(f"  measured    waits in the outbox: {outbox['held']}")
    lines += _records(found["records"])
    spent = found["bytes_this_month"]
    lines.append("  this month  " + ", ".join(f"{_kib(spent[kind])} {kind}" for kind in spent))
    return [
        *lines,
        *_repository(found["repository"]),
        *_runtime(found["runtime"]),
        *_updates(found),
    ]


def _records(found: dict[str, Any]) -> list[str]:
    if not found["problem"]:
        return []
    lines = [
        f"  RECORDS     agent.db began anew: {found['problem']}",
        f"              kept: {', '.join(found['kept']) or 'nothing'}",
        f"              lost: {', '.join(found['lost'])}",
    ]
    if found["aside"]:
        lines.append(
            f"              the old one is {found['aside']}: remove it when it was seen to"
        )
    return lines


def _repository(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return ["  repository  none: enrol the device, or set repository.url"]
    when = f"looked at {_when(found['checked_s'])}" if found["checked_s"] else "not looked at yet"
    lines = [f"  repository  {found['url']}, {when}"]
    if found["problem"]:
        reason = f" ({found['reason']})" if found["reason"] else ""
        lines.append(f"              {found['problem']}{reason}")
    if found["plans_problem"]:
        since = _when(found["plans_problem_s"])
        lines.append(f"              no plan is followed since {since}: {found['plans_problem']}")
    for model in found["models"]:
        rollout = f" by {model['rollout']}" if model["rollout"] else ""
        lines.append(f"              {model['model']}: {model['action']}{rollout}: {model['text']}")
    return lines


def _runtime(found: dict[str, Any]) -> list[str]:
    if found["problem"]:
        return [f"  runtime     {found['problem']}"]
    lines = []
    for model, standing in sorted(found["models"].items()):
        digest = standing["running_digest"][:12]
        shown = f" ({digest})" if digest else ""
        lines.append(f"  runtime     {model}: {_answering(standing)}{shown}")
        if standing["problem"]:
            lines.append(f"              {standing['problem']}")
    return lines or ["  runtime     it answers, and has no model"]


_BY: Final = {
    "release": "",
    "probation": ", on probation",
    "configuration": ", as the daemon's configuration says",
}


def _answering(standing: dict[str, Any]) -> str:
    if standing["disabled"]:
        text = f"disabled: {standing['disabled']}"
    elif standing["answers"]:
        versions = standing["answers"]
        several = f"versions {', '.join(map(str, versions))} answer"
        text = several if len(versions) > 1 else f"version {versions[0]} answers"
        text += _BY.get(standing["answers_by"], "")
    else:
        text = "nothing answers"
    tried = standing["under_way"]
    if tried is not None and tried["version"] not in standing["answers"]:
        share = f", {tried['percent']} %" if tried["percent"] else ""
        text += f"; version {tried['version']} is tried ({tried['phase']}{share})"
    return text


def _updates(found: dict[str, Any]) -> list[str]:
    lines = []
    for update in found["updates"]:
        text = f"{update['model']} {update['kind']} {update['version']} by {update['rollout']}"
        phase = f"/{update['phase']}" if update["phase"] else ""
        reason = f": {update['reason']}" if update["reason"] else ""
        download = update["download"]
        if download is not None and update["state"] == "downloading":
            share = 100 * download["done_bytes"] // max(1, download["total_bytes"])
            reason += f" [{download['file']} {share} %, {_kib(download['bytes_per_s'])}/s]"
        lines.append(f"  update      {text}: {update['state']}{phase}{reason}")
    return lines


def _check(found: dict[str, Any]) -> str:
    if found["problem"]:
        reason = f" ({found['reason']})" if found["reason"] else ""
        return f"nothing new is believed: {found['problem']}{reason}"
    news = "something is new" if found["changed"] else "nothing is new"
    return f"{news}: timestamp {found['timestamp_version']}, {found['fetched_bytes']} bytes"


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _kib(size: int) -> str:
    return f"{size / _KIB:.1f} KiB"
