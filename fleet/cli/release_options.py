"""The options of ``edge-fleet repo release add``: each a field of the signed facts, or near it."""

from pathlib import Path
from typing import Annotated

import typer

Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle: a folder or a tar file.")]
Counter = Annotated[
    int | None, typer.Option(min=0, help="Rises with every release; left out: the next one.")
]
MinCounter = Annotated[
    int | None, typer.Option(min=0, help="No device goes below it any more; left out: as before.")
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
    list[str] | None, typer.Option(help="Only these channels may carry it; repeatable.")
]
FirstStageMax = Annotated[int, typer.Option(help="Most devices of the first stage, in 1/10,000.")]
StageMin = Annotated[int, typer.Option(metavar="SECONDS", help="A stage lasts at least so long.")]
ChangesPerDay = Annotated[
    int, typer.Option(help="Most version changes on one device in a day; 0: no limit.")
]
PlanAgeMax = Annotated[
    int, typer.Option(metavar="SECONDS", help="An older plan means hold; 0: no limit.")
]

# What a device must be
Arch = Annotated[list[str] | None, typer.Option(help="Accepted `uname -m`; repeatable.")]
CpuFlag = Annotated[list[str] | None, typer.Option(help="Needed instruction set; repeatable.")]
Memory = Annotated[int, typer.Option(metavar="BYTES", help="Least total memory of the device.")]
Label = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Accepted value of a label; repeatable."),
]
AgentMin = Annotated[str, typer.Option(help="Oldest agent, such as 0.3.0; empty: any.")]
