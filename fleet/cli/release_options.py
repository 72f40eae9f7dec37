"""The options of ``edge-fleet repo release add``: each a field of the signed facts, or near it."""

import re
from pathlib import Path
from typing import Annotated, Final

import typer

from fleet.errors import BadInputError

_WORD: Final = re.compile(r"[A-Za-z0-9_.+-]{1,200}")


def _words(values: list[str] | None) -> list[str] | None:
    """Refuse what no device would ever say of itself: a release cannot be changed afterwards."""
    for value in values or ():
        if not _WORD.fullmatch(value):
            raise BadInputError(f"{value!r} is no processor and no instruction set; mend it")
    return values


Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle: a folder or a tar file.")]
Counter = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="Rises with every release; left out: the next one."),
]
MinCounter = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="No device goes below it any more; left out: as before."),
]
Sign = Annotated[Path | None, typer.Option(metavar="KEY", help="Signs the manifest if nobody has.")]
AllowUnsigned = Annotated[
    bool, typer.Option("--allow-unsigned", help="Take a manifest that nobody signed.")
]
NoChunks = Annotated[
    bool, typer.Option("--no-chunks", help="No chunk indexes: devices fetch whole files.")
]

# Guard-rails
Channels = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Only these channels may carry it; repeatable."),
]
FirstStageMax = Annotated[
    int,
    typer.Option(
        min=0, max=10_000, metavar="N", help="Most devices of the first stage, in 1/10,000."
    ),
]
StageMin = Annotated[
    int, typer.Option(min=0, metavar="SECONDS", help="A stage lasts at least so long.")
]
ChangesPerDay = Annotated[
    int,
    typer.Option(
        min=0, metavar="N", help="Most version changes on one device in a day; 0: no limit."
    ),
]
PlanAgeMax = Annotated[
    int, typer.Option(min=0, metavar="SECONDS", help="An older plan means hold; 0: no limit.")
]

# What a device must be
Arch = Annotated[
    list[str] | None,
    typer.Option(metavar="ARCH", callback=_words, help="Accepted `uname -m`; repeatable."),
]
CpuFlag = Annotated[
    list[str] | None,
    typer.Option(metavar="FLAG", callback=_words, help="Needed instruction set; repeatable."),
]
Memory = Annotated[
    int, typer.Option(min=0, metavar="BYTES", help="Least total memory of the device.")
]
Label = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Accepted value of a label; repeatable."),
]
AgentMin = Annotated[
    str, typer.Option(metavar="VERSION", help="Oldest agent, such as 0.3.0; empty: any.")
]

OPTIONS: Final = {
    "channels": "--channel",
    "first_stage_permyriad_max": "--first-stage-max",
    "stage_s_min": "--stage-min",
    "changes_per_day_max": "--changes-per-day",
    "plan_age_s_max": "--plan-age-max",
    "arch": "--arch",
    "cpu_flags": "--cpu-flag",
    "memory_bytes": "--memory",
    "labels": "--label",
    "agent_min": "--agent-min",
}
"""The option for each field of the signed facts."""
