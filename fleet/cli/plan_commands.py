"""``edge-fleet repo plan``: set the plan of a model in a channel, and show plans."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from edge_runtime.exit_codes import ExitCode
from fleet.cli.arguments import Folder, Json, KeyFolders, document, opened
from fleet.cli.output import TIME_FORMAT, print_json, print_table, printable, say
from fleet.cli.repository_commands import described
from fleet.documents.plan import Plan
from fleet.errors import BadInputError
from fleet.repository.layout import Layout
from fleet.repository.overview import overview
from fleet.repository.plans import set_plan
from fleet.repository.state import now


def add_to(app: typer.Typer) -> None:
    """Add the commands to their group."""
    app.command(
        "set", epilog="Example: edge-fleet repo plan set repo plan.toml --keys keys/online"
    )(_set)
    app.command("show", epilog="Example: edge-fleet repo plan show repo --json")(_show)


def _set(
    folder: Folder,
    plan: Annotated[
        Path, typer.Argument(metavar="PLAN", help="The plan: a file of TOML (.toml) or JSON.")
    ],
    *,
    keys: KeyFolders,
    channel: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The channel; wins over `channel` in the file."),
    ] = None,
    stage: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="NUMBER",
            help="The present stage; wins over the file. In neither: the one at which the rollout "
            "is, 0 for a new one.",
        ),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(metavar="ORDER", help="install, hold, abort or revert; wins over the file."),
    ] = None,
    revert_to: Annotated[
        int | None,
        typer.Option(min=1, metavar="VERSION", help="Version that revert goes back to."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Put a plan in place of the one for the same model in its channel."""
    fields = document(plan)
    in_file = fields.pop("channel", None)
    named = channel if channel is not None else in_file
    if not isinstance(named, str):
        raise BadInputError(f"{plan} names no channel; write `channel` into it, or say --channel")
    for name, value in (("stage", stage), ("order", order), ("revert_to", revert_to)):
        if value is not None:
            fields[name] = value
    done = set_plan(Layout(folder), named, fields, opened(keys), now=now())
    if as_json:
        print_json(done)
        return ExitCode.DONE
    what = "set" if done.is_new else "was set already"
    print(printable(f"channel {done.channel}: {_sentence(done.plan)} {what}"))
    if text := described(done.signed):
        print(text)
    return ExitCode.DONE


def _show(
    folder: Folder,
    *,
    channel: Annotated[str | None, typer.Option(metavar="NAME", help="Only this channel.")] = None,
    as_json: Json = False,
) -> int:
    """Show the plans of every channel, with their stages."""
    every = [plans for plans in overview(Layout(folder)).plans if channel in {None, plans.channel}]
    if as_json:
        print_json(every)
        return ExitCode.DONE
    if not every:
        say("there are no plans" if channel is None else f"channel {channel} has no plans")
    for plans in every:
        for plan in plans.plans:
            rows = [
                (
                    "now" if number == plan.stage else "",
                    str(number),
                    f"{stage.permyriad / 100:g} %",
                    f"{stage.duration_s:g} s",
                    "" if stage.begun_s is None else _shown_time(stage.begun_s),
                )
                for number, stage in enumerate(plan.stages)
            ]
            columns = ("", "STAGE", "DEVICES", "LASTS", "BEGUN (UTC)")
            print_table(f"{plans.channel}: {_sentence(plan)}", columns, rows)
    return ExitCode.DONE


def _shown_time(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):{TIME_FORMAT}}"
    except (OverflowError, OSError, ValueError):  # a plan may say any number
        return f"{seconds:.0f} s"


def _sentence(plan: Plan) -> str:
    back = f" to {plan.revert_to}" if plan.order == "revert" else ""
    return (
        f"plan {plan.rollout} {plan.sequence} ({plan.model} version {plan.version}: {plan.order}"
        f"{back}, stage {plan.stage})"
    )
