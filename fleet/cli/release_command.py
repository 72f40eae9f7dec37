"""``edge-fleet repo release``: add a bundle."""

import re
from pathlib import Path
from typing import TypeVar

import msgspec
import typer

from edge_runtime.exit_codes import ExitCode
from edge_runtime.trust.signatures import KEY_FILE_BYTES_MAX, SigningKey
from fleet.cli import release_options as options
from fleet.cli.arguments import Folder, Json, KeyFolders, asked_passphrase, opened, pairs
from fleet.cli.output import bar, megabytes, print_json, printable
from fleet.cli.repository_commands import described
from fleet.documents.release import GuardRails, Requires
from fleet.errors import BadInputError
from fleet.repository.addition import AddedRelease, NewRelease, add_release
from fleet.repository.bundles import read_head
from fleet.repository.layout import Layout
from fleet.repository.state import now

_T = TypeVar("_T", Requires, GuardRails)


def add_to(app: typer.Typer) -> None:
    """Add the commands to their group."""
    app.command(
        "add",
        epilog="Example: edge-fleet repo release add repo bundle.tar --keys keys --sign keys/"
        "publisher.pem --channel canary --channel stable --first-stage-max 500 --stage-min 3600",
    )(_add)
    app.callback()(_group)


def _group() -> None:
    """Releases: bundles that the offline key signed."""


def _add(
    folder: Folder,
    bundle: options.Bundle,
    *,
    keys: KeyFolders,
    counter: options.Counter = None,
    min_counter: options.MinCounter = None,
    sign: options.Sign = None,
    allow_unsigned: options.AllowUnsigned = False,
    no_chunks: options.NoChunks = False,
    channel: options.Channels = None,
    first_stage_max: options.FirstStageMax = 10_000,
    stage_min: options.StageMin = 0,
    changes_per_day: options.ChangesPerDay = 0,
    plan_age_max: options.PlanAgeMax = 0,
    arch: options.Arch = None,
    cpu_flag: options.CpuFlag = None,
    memory: options.Memory = 0,
    label: options.Label = None,
    agent_min: options.AgentMin = "",
    as_json: Json = False,
) -> int:
    """Check a bundle, copy its files in, and have it signed by the releases key."""
    wanted = NewRelease(
        counter=counter,
        min_counter=min_counter,
        requires=_checked(
            Requires(
                arch=tuple(arch or ()),
                cpu_flags=tuple(cpu_flag or ()),
                memory_bytes=memory,
                labels={name: tuple(each) for name, each in pairs(label or [], "--label").items()},
                agent_min=agent_min,
            )
        ),
        guard_rails=_checked(
            GuardRails(
                channels=tuple(channel or ()),
                first_stage_permyriad_max=first_stage_max,
                stage_s_min=stage_min,
                changes_per_day_max=changes_per_day,
                plan_age_s_max=plan_age_max,
            )
        ),
        sign=None if sign is None else _signing_key(sign),
        allow_unsigned=allow_unsigned,
        chunks=not no_chunks,
    )
    total = read_head(bundle).size_bytes
    with bar("copying", total, shown=not as_json) as progress:
        done = add_release(
            Layout(folder),
            bundle,
            wanted,
            opened(keys),
            now=now(),
            progress=progress,
        )
    _tell(done, as_json=as_json)
    return ExitCode.DONE


def _tell(done: AddedRelease, *, as_json: bool) -> None:
    if as_json:
        print_json(done)
        return
    facts = done.facts
    what = "released" if done.is_new else "was released already"
    print(
        printable(
            f"{facts.model} version {facts.version} {what}: counter {facts.counter}, "
            f"{done.files} files, {megabytes(done.size_bytes)}"
        )
    )
    if text := described(done.signed):
        print(text)


def _signing_key(path: Path) -> SigningKey:
    try:
        with path.open("rb") as file:
            data = file.read(KEY_FILE_BYTES_MAX)
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror or error}") from error
    return SigningKey.read(data, str(path), lambda: asked_passphrase(path))


def _checked(value: _T) -> _T:
    """Hold arguments to the bounds of their document."""
    try:
        return msgspec.convert(msgspec.to_builtins(value), type(value))
    except msgspec.ValidationError as error:
        what, _, field = str(error).partition(" - at `$.")
        name = re.split(r"\W", field, maxsplit=1)[0]
        raise BadInputError(f"{options.OPTIONS.get(name, name)}: {what}") from error
